//! Certificates from an authority.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::build::{Surroundings, ms, name, url};
use super::file::{AcmeFile, ChallengeFile};
use super::problem::Problems;
use super::tree::Path;
use crate::ingress::HostPattern;

/// `ingress.acme`: an authority that issues certificates over ACME.
#[derive(Clone, Debug, PartialEq)]
pub struct AcmeConfig {
    /// The authority's directory.
    pub directory_url: Url,
    /// Where account, certificates and keys are kept.
    pub state_file: PathBuf,
    /// Whom the authority may write to.
    pub contact: Vec<String>,
    /// Roots for the authority's own server, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// What a new account is bound to.
    pub external_account: Option<ExternalAccount>,
    /// How names are checked, in the order in which that is tried; at least one.
    pub challenges: Vec<ChallengeKind>,
    /// The hosts that certificates are issued for; empty means all that are published.
    pub hosts: Vec<HostPattern>,
    /// The most names.
    pub max_names: usize,
    /// Orders at once.
    pub max_orders: usize,
    /// Orders begun within an hour.
    pub orders_per_hour: usize,
    /// How long a handshake waits for the first certificate of its name.
    pub handshake_wait: Duration,
}

/// An account that exists at the authority already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    /// Its name.
    pub key_id: String,
    /// The file with its key.
    pub hmac_key_file: PathBuf,
}

/// How an authority checks a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeKind {
    /// By a TLS handshake at port 443 of the name.
    TlsAlpn01,
    /// By plain HTTP at port 80 of the name.
    Http01,
}

impl AcmeConfig {
    pub(super) fn build(
        file: &AcmeFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        if !file.terms_of_service_agreed {
            problems.add_with_help(
                &path.key("terms_of_service_agreed"),
                format!(
                    "`{path}.terms_of_service_agreed` is `false`: the authority issues nothing"
                ),
                "write `true` once you have read its terms, or take `acme` out",
            );
        }
        let at = path.key("contact");
        for (index, contact) in file.contact.iter().enumerate() {
            if !contact.strip_prefix("mailto:").is_some_and(is_mailbox) {
                problems.add_with_help(
                    &at.index(index),
                    format!("`{contact}` is no contact that an authority could write to"),
                    "write it as `mailto:ops@example.com`",
                );
            }
        }
        let at = path.key("hosts");
        let hosts = file.hosts.iter().enumerate();
        let hosts: Vec<HostPattern> = hosts
            .filter_map(|(index, host)| name(HostPattern::parse(host), &at.index(index), problems))
            .collect();
        let mut challenges: Vec<ChallengeKind> = Vec::new();
        for challenge in &file.challenges {
            let kind = match challenge {
                ChallengeFile::TlsAlpn01 => ChallengeKind::TlsAlpn01,
                ChallengeFile::Http01 => ChallengeKind::Http01,
            };
            if !challenges.contains(&kind) {
                challenges.push(kind);
            }
        }
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Some(Self {
            directory_url: url(
                &file.directory_url,
                &["https"],
                &path.key("directory_url"),
                problems,
            )?,
            state_file: around.path(&file.state_file),
            contact: file.contact.clone(),
            ca_file: around.optional_path(file.ca_file.as_ref()),
            external_account: file
                .external_account
                .as_ref()
                .map(|external| ExternalAccount {
                    key_id: external.key_id.clone(),
                    hmac_key_file: around.path(&external.hmac_key_file),
                }),
            challenges,
            hosts,
            max_names: size(file.max_names),
            max_orders: size(file.max_orders),
            orders_per_hour: size(file.orders_per_hour),
            handshake_wait: ms(file.handshake_wait_ms),
        })
    }

    /// Whether certificates are issued for this host, if it is published.
    pub(crate) fn allows(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.fits(host))
    }
}

/// Authorities take no lists and no header fields (RFC 8555, 7.3).
fn is_mailbox(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '?' | '<' | '>');
    text.split_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
        && text.chars().all(plain)
}
