//! Certificates that viewers have shown in the TLS handshake.
//!
//! The handshake has verified the chain against the authorities of the listener. Here the leaf
//! gets a name: its first URI, else its first e-mail address, else its first DNS name, else
//! `CN=` and the common name of its subject.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nowconnect_protocol::TenantName;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::{Proven, Refusal, RefusalKind};
use crate::config::ListenerName;

/// The longest name of a certificate that is taken, in bytes: as that of a claim.
const MAX_NAME_BYTES: usize = 256;

/// What a verified client certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// Who it names; `None` where no name can be read, or it is too long.
    name: Option<String>,
    /// Its first alternative name, for policies.
    pub(crate) first_san: Option<String>,
    /// Whose authorities vouch for it.
    listener: ListenerName,
    issuer: String,
    not_after: SystemTime,
}

impl ClientCertificate {
    /// Of a chain that the authorities of a listener have verified; `None` where its first certificate cannot be read, which then proves
    /// nothing.
    pub(crate) fn of(listener: &ListenerName, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (_, leaf) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
        let names = alternative_names(&leaf);
        let pick = |kind: Kind| {
            let mut found = names.iter().filter(|(of, _)| *of == kind);
            found.next().map(|(_, name)| name.clone())
        };
        let common = || {
            let name = leaf.subject().iter_common_name().next()?;
            let text = name.as_str().ok().filter(|text| !text.is_empty())?;
            Some(format!("CN={text}"))
        };
        let name = pick(Kind::Uri)
            .or_else(|| pick(Kind::Email))
            .or_else(|| pick(Kind::Dns))
            .or_else(common)
            .filter(|name| !name.is_empty() && name.len() <= MAX_NAME_BYTES);
        let not_after = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
        Some(Self {
            name,
            first_san: names.into_iter().next().map(|(_, name)| name),
            listener: listener.clone(),
            issuer: leaf.issuer().to_string(),
            not_after: UNIX_EPOCH + Duration::from_secs(not_after),
        })
    }

    /// `listeners` are those whose authorities count; empty means any.
    pub(super) fn prove(
        &self,
        tenant: &TenantName,
        listeners: &[ListenerName],
    ) -> Result<Proven, Refusal> {
        let refused = |why| Err(Refusal::new(RefusalKind::CertificateRefused, why));
        if !listeners.is_empty() && !listeners.contains(&self.listener) {
            return refused("the authorities of this listener do not count for the route");
        }
        let Some(name) = &self.name else {
            return refused("the certificate names nobody, or by a name that is too long");
        };
        // The handshake may be long ago.
        if SystemTime::now() > self.not_after {
            return refused("the certificate has expired since the handshake");
        }
        Ok(Proven {
            issuer: Some(self.issuer.clone()),
            until: Some(self.not_after),
            ..Proven::named(tenant, format!("cert:{name}"), "mtls")
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Uri,
    Email,
    Dns,
    Other,
}

/// In the order of the certificate; of those that are no text nothing is said.
fn alternative_names(leaf: &X509Certificate<'_>) -> Vec<(Kind, String)> {
    let extension = leaf.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| &extension.value.general_names);
    names
        .into_iter()
        .flatten()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((Kind::Uri, (*uri).to_owned())),
            GeneralName::RFC822Name(email) => Some((Kind::Email, (*email).to_owned())),
            GeneralName::DNSName(dns) => Some((Kind::Dns, (*dns).to_owned())),
            GeneralName::IPAddress(bytes) => Some((Kind::Other, address(bytes)?)),
            GeneralName::OtherName(..)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::RegisteredID(_)
            | GeneralName::Invalid(..) => None,
        })
        .collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    let v6 = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(v6).to_string())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_certificate_is_named_by_what_is_most_particular() {
        let uri = SanType::URI("spiffe://corp/ns/shop".try_into().unwrap());
        let email = SanType::Rfc822Name("ann@example.com".try_into().unwrap());
        let dns = SanType::DnsName("ann.example.com".try_into().unwrap());
        for (names, expected) in [
            (
                vec![dns.clone(), email.clone(), uri],
                "cert:spiffe://corp/ns/shop",
            ),
            (vec![dns.clone(), email], "cert:ann@example.com"),
            (vec![dns], "cert:ann.example.com"),
            (vec![], "cert:CN=ann"),
        ] {
            let certificate = certificate(names, "ann", 2090);
            let proven = certificate.prove(&TenantName::default(), &[]).unwrap();
            assert_eq!(proven.id, expected);
            assert_eq!(proven.issuer.as_deref(), Some("CN=ann"));
        }
    }

    #[test]
    fn one_that_names_nobody_or_has_ended_proves_nothing() {
        let none = certificate(vec![], "", 2090);
        let ended = certificate(vec![], "ann", 2020);
        let long = certificate(vec![], &"a".repeat(300), 2090);
        for certificate in [none, ended, long] {
            let refused = certificate
                .prove(&TenantName::default(), &[])
                .err()
                .unwrap();
            assert_eq!(refused.kind, RefusalKind::CertificateRefused);
        }
    }

    #[test]
    fn it_counts_only_where_its_listeners_authorities_do() {
        let certificate = certificate(vec![], "ann", 2090);
        let prove = |listeners: &[ListenerName]| {
            let proven = certificate.prove(&TenantName::default(), listeners);
            proven.map(drop).map_err(|refused| refused.kind)
        };
        assert_eq!(prove(&[]), Ok(()));
        assert_eq!(prove(&[listener("other"), listener("web")]), Ok(()));
        let refused = Err(RefusalKind::CertificateRefused);
        assert_eq!(prove(&[listener("other")]), refused);
    }

    fn listener(name: &str) -> ListenerName {
        ListenerName::parse(name).unwrap()
    }

    fn certificate(names: Vec<SanType>, common: &str, until: i32) -> ClientCertificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        ClientCertificate::of(&listener("web"), &[der]).unwrap()
    }
}
