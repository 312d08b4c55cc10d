//! Why a certificate could not be had.

use std::time::Duration;

use instant_acme::{Error, Problem};

use crate::codes::CertificateCode;

/// The longest text of an authority that is kept, in characters.
const MAX_MESSAGE_CHARS: usize = 400;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) code: CertificateCode,
    /// For the operator: what the authority said, on one line.
    pub(super) message: String,
    /// The least that the authority wants us to wait.
    pub(super) retry_after: Option<Duration>,
    /// Whether the authority does not know our account.
    pub(super) account_unknown: bool,
}

impl Trouble {
    pub(super) fn new(code: CertificateCode, message: impl ToString) -> Self {
        Self {
            code,
            message: one_line(&message.to_string()),
            retry_after: None,
            account_unknown: false,
        }
    }

    /// Of a question to the authority.
    pub(super) fn of(error: Error) -> Self {
        if let Error::Api(problem) = &error {
            return Self::refused(problem);
        }
        if matches!(error, Error::Timeout(_)) {
            let what = "the authority did not come to an end with the order";
            return Self::new(CertificateCode::AcmeTimeout, what);
        }
        if matches!(error, Error::Crypto | Error::KeyRejected) {
            let what = "the account's key in the state file cannot be used";
            return Self::new(CertificateCode::AcmeStateFailed, what);
        }
        Self::new(CertificateCode::AcmeUnreachable, with_causes(&error))
    }

    /// What the authority says no with (RFC 8555, 6.7).
    fn refused(problem: &Problem) -> Self {
        let kind = kind(problem);
        let code = match kind {
            "rateLimited" => CertificateCode::AcmeRateLimited,
            "accountDoesNotExist"
            | "externalAccountRequired"
            | "userActionRequired"
            | "invalidContact"
            | "unsupportedContact" => CertificateCode::AcmeAccountRefused,
            "serverInternal" | "badNonce" => CertificateCode::AcmeUnreachable,
            _ => CertificateCode::AcmeRefused,
        };
        Self {
            account_unknown: kind == "accountDoesNotExist",
            ..Self::new(code, problem)
        }
    }

    /// What the authority saw when it looked at the name.
    pub(super) fn not_validated(problem: Option<&Problem>) -> Self {
        let code = CertificateCode::AcmeValidationFailed;
        match problem {
            Some(problem) if kind(problem) == "rateLimited" => Self::refused(problem),
            Some(problem) => Self::new(code, problem),
            None => Self::new(code, "the authority gives no reason"),
        }
    }
}

fn kind(problem: &Problem) -> &str {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.rsplit(':').next().unwrap_or_default()
}

/// Most libraries keep what is really wrong in the innermost error.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}

/// Fit for a log line and a terminal.
fn one_line(text: &str) -> String {
    let kept: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_MESSAGE_CHARS)
        .collect();
    if text.chars().nth(MAX_MESSAGE_CHARS).is_some() {
        kept + "…"
    } else {
        kept
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn problem(kind: &str) -> Problem {
        let text = format!(
            r#"{{"type": "urn:ietf:params:acme:error:{kind}", "detail": "no\u001b[31m way"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_an_authority_says_has_a_code() {
        for (kind, code) in [
            ("rateLimited", CertificateCode::AcmeRateLimited),
            ("accountDoesNotExist", CertificateCode::AcmeAccountRefused),
            ("rejectedIdentifier", CertificateCode::AcmeRefused),
            ("serverInternal", CertificateCode::AcmeUnreachable),
            ("ofItsOwn", CertificateCode::AcmeRefused),
        ] {
            let trouble = Trouble::of(Error::Api(problem(kind)));
            assert_eq!(trouble.code, code, "{kind}");
            assert_eq!(trouble.account_unknown, kind == "accountDoesNotExist");
            assert!(trouble.message.contains("way"), "{}", trouble.message);
            assert!(!trouble.message.contains('\u{1b}'), "{}", trouble.message);
        }
        let seen = Trouble::not_validated(Some(&problem("dns")));
        assert_eq!(seen.code, CertificateCode::AcmeValidationFailed);
        let limited = Trouble::not_validated(Some(&problem("rateLimited")));
        assert_eq!(limited.code, CertificateCode::AcmeRateLimited);
    }

    #[test]
    fn a_long_text_is_cut() {
        let trouble = Trouble::new(CertificateCode::AcmeRefused, "ä".repeat(1000));
        assert_eq!(trouble.message.chars().count(), MAX_MESSAGE_CHARS + 1);
    }
}
