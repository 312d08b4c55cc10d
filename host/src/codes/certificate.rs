//! Codes about certificates that an authority issues.

use super::{Entry, Group, Line, Text, text};
use crate::telemetry::events;

static GROUP: Group = Group {
    heading: "Why a certificate was not issued",
    place: "As the reason of a certificate",
    intro: "`last_error` of `nowconnect certificates`. The name keeps the certificate that it has, and the order is tried again later; see [certificates](certificates.md).",
    seen_by: "the hub's operator",
    property: None,
    metrics: &["nowconnect_certificate_orders_total{result=\"CODE\"}"],
    lines: &[Line(events::CERTIFICATE_FAILED, "code")],
};

named! {
    /// Why a certificate was not issued.
    CertificateCode {
        AcmeAccountRefused = "acme_account_refused";
        AcmeBadCertificate = "acme_bad_certificate";
        AcmeRateLimited = "acme_rate_limited";
        AcmeRefused = "acme_refused";
        AcmeStateFailed = "acme_state_failed";
        AcmeTimeout = "acme_timeout";
        AcmeUnreachable = "acme_unreachable";
        AcmeValidationFailed = "acme_validation_failed";
    }
}

pub(super) fn entries() -> Vec<Entry> {
    let all = CertificateCode::ALL.iter();
    all.map(|code| Entry::new(&GROUP, code.as_str(), meaning(*code)))
        .collect()
}

fn meaning(code: CertificateCode) -> Text {
    match code {
        CertificateCode::AcmeAccountRefused => text(
            "the authority opens no account for this hub, or does not know the one it had",
            "It wants an external account or another contact, or the account was closed. One that it does not know is opened anew with the next try.",
            "look at the message; set `external_account` or `contact` of `ingress.acme`",
        ),
        CertificateCode::AcmeBadCertificate => text(
            "what the authority issued cannot be used",
            "Its chain cannot be read, is for another name or key, or has ended; or this machine's clock is wrong.",
            "compare the clocks; if they agree, ask the authority",
        ),
        CertificateCode::AcmeRateLimited => text(
            "the authority issues no more for now",
            "A limit of the authority on orders, names or failures is reached.",
            "wait: the next try comes when the authority allows it; many names of one domain are better served by a wildcard certificate in `certificates`",
        ),
        CertificateCode::AcmeRefused => text(
            "the authority refuses the name or the order",
            "Its rules or a CAA record exclude the name, or it offers none of the configured challenges.",
            "look at the message; publish the name elsewhere, change the record, or take the host out of `ingress.acme.hosts`",
        ),
        CertificateCode::AcmeStateFailed => text(
            "the state file could not be read or written",
            "The disk is full or fails, or an entry is damaged. A certificate that was issued is in use all the same, until the hub ends.",
            "look at the disk of `ingress.acme.state_file`, then `nowconnect certificates renew`",
        ),
        CertificateCode::AcmeTimeout => text(
            "the authority did not come to an end with the order in time",
            "It is busy, or cannot reach the name and goes on trying.",
            "wait for the next try; if it stays, look whether the name leads here",
        ),
        CertificateCode::AcmeUnreachable => text(
            "the authority does not answer, or not as an authority does",
            "`directory_url` is wrong, the network between is cut, or its own certificate is not trusted.",
            "look at the message; for an authority of your own set `ingress.acme.ca_file`",
        ),
        CertificateCode::AcmeValidationFailed => text(
            "the authority looked at the name and did not find this hub",
            "The name leads elsewhere, port 80 or 443 of it does not lead to the ports of this hub, or something in front ends TLS.",
            "look at the message and at the name's address; then `nowconnect certificates renew`",
        ),
    }
}
