//! A certificate in words.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

/// One line about a certificate.
pub(super) fn describe(certificate: &CertificateDer<'_>) -> String {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return "a certificate that cannot be read".to_owned();
    };
    let names = parsed
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|extension| {
            extension
                .value
                .general_names
                .iter()
                .map(plain_name)
                .collect::<Vec<_>>()
                .join(", ")
        })
        .filter(|names| !names.is_empty())
        .map_or_else(String::new, |names| format!("; names {names}"));
    format!(
        "certificate `{}`; issued by `{}`; valid until {}{names}",
        parsed.subject(),
        parsed.issuer(),
        parsed.validity().not_after
    )
}

/// The name alone for the two kinds that hosts have.
fn plain_name(name: &GeneralName<'_>) -> String {
    if let GeneralName::DNSName(name) = name {
        return (*name).to_owned();
    }
    if let GeneralName::IPAddress(bytes) = name {
        if let Ok(octets) = <[u8; 4]>::try_from(*bytes) {
            return IpAddr::from(octets).to_string();
        }
        if let Ok(octets) = <[u8; 16]>::try_from(*bytes) {
            return IpAddr::from(octets).to_string();
        }
    }
    name.to_string()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn a_certificate_is_told_in_one_line() {
        let names = ["hub.test", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
        let signed = rcgen::generate_simple_self_signed(names.to_vec()).unwrap();
        let line = describe(signed.cert.der());
        assert!(
            line.starts_with("certificate `CN=rcgen self signed cert`; issued by"),
            "{line}"
        );
        assert!(
            line.ends_with("; names hub.test, 192.0.2.1, 2001:db8::1"),
            "{line}"
        );
        assert_eq!(
            describe(&CertificateDer::from(vec![1, 2, 3])),
            "a certificate that cannot be read"
        );
    }
}
