//! Which names get certificates, and what there is to tell of all certificates.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::ending::{Ending, is_ending};
use super::view::{CertificateSource, CertificateStatus};
use crate::config::AcmeConfig;
use crate::control::Protocol;
use crate::hub::{Hub, now_ms};

/// The names that are published here by their full host name, in routes or by agents, that `ingress.acme.hosts` allows,
/// and that no certificate in a file fits at every port.
pub(super) fn wanted(hub: &Hub, acme: &AcmeConfig) -> BTreeSet<Arc<str>> {
    let ports = hub.ingress.tls_ports();
    if ports.is_empty() {
        return BTreeSet::new();
    }
    let is_covered = |host: &str| ports.iter().all(|port| port.files().covers(host));
    let published = hub.published.all();
    let published = published
        .iter()
        .filter(|published| published.protocol == Protocol::Http)
        .map(|published| Arc::clone(&published.host));
    let mut hosts = hub.ingress.hosts();
    hosts.extend(published);
    hosts
        .into_iter()
        .filter(|host| can_have(host) && acme.allows(host) && !is_covered(host))
        .take(acme.max_names)
        .collect()
}

/// Every certificate of the HTTP ports, those from files first.
pub(crate) fn all(hub: &Hub) -> Vec<CertificateStatus> {
    let now = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
    let mut all = Vec::new();
    for port in hub.ingress.tls_ports() {
        for one in port.files().iter() {
            let file = one.file.display().to_string();
            let status = CertificateStatus {
                names: one.names.clone(),
                source: CertificateSource::File,
                file: Some(file),
                not_after: one.not_after,
                ending: one
                    .not_after
                    .is_some_and(|end| is_ending(one.not_before, end, now)),
                next_order_ms: None,
                under_way: false,
                failures: 0,
                last_error: None,
            };
            // Ports may share files.
            if !all.contains(&status) {
                all.push(status);
            }
        }
    }
    all.extend(hub.ingress.issued().status().iter().cloned());
    all
}

/// Tells the metrics, and what is to be told of readiness.
pub(super) fn measure(hub: &Hub) {
    let all = all(hub);
    let ends = all.iter().map(|one| {
        let name = one.names.first().or(one.file.as_ref());
        (
            name.map_or("", String::as_str),
            one.source.as_str(),
            one.not_after,
        )
    });
    hub.metrics.certificates.set(ends);
    let ending = Ending::of(hub, &all);
    hub.metrics
        .certificates
        .troubled(ending.count(), ending.failing());
    hub.ingress.issued().set_ending(ending.sentence());
}

/// Whether an authority could issue for this name: one of the public DNS, in letters, digits and
/// hyphens (RFC 8555, 7.1.4; CA/B baseline requirements, 7.1.4.2).
fn can_have(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.contains('.') && host.split('.').all(label) && host.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_public_dns_can_have_one() {
        for host in ["shop.example.com", "xn--mnchen-3ya.de", "a.b"] {
            assert!(can_have(host), "{host}");
        }
        for host in [
            "localhost",
            "192.0.2.1",
            "[2001:db8::1]",
            "a_b.example.com",
            "-a.example.com",
            "a-.example.com",
            "a..b",
        ] {
            assert!(!can_have(host), "{host}");
        }
    }
}
