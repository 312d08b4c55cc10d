//! Why a viewer is not let in, and what he could show instead.

use http::HeaderValue;
use http::header::InvalidHeaderValue;

use super::ViewerAuth;
use crate::codes::RequestCode;
use crate::config::ViewerWay;

/// What a request shows does not count, or it shows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    /// For the log only; nothing of what was shown is in it.
    pub(crate) detail: Option<String>,
}

/// Why. The registry of codes says more of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    Ambiguous,
    NothingShown,
    TokenRefused,
    TokenExpired,
    PasswordWrong,
    CertificateRefused,
    UrlRefused,
    UrlExpired,
    Unavailable,
}

impl RefusalKind {
    pub(crate) fn code(self) -> RequestCode {
        match self {
            Self::Ambiguous => RequestCode::BadCredentials,
            Self::NothingShown => RequestCode::SignInRequired,
            Self::TokenRefused => RequestCode::ViewerTokenRefused,
            Self::TokenExpired => RequestCode::ViewerTokenExpired,
            Self::PasswordWrong => RequestCode::ViewerPasswordWrong,
            Self::CertificateRefused => RequestCode::ViewerCertificateRefused,
            Self::UrlRefused => RequestCode::SignedUrlRefused,
            Self::UrlExpired => RequestCode::SignedUrlExpired,
            Self::Unavailable => RequestCode::SignInUnavailable,
        }
    }

    /// For the viewer. One sentence.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Ambiguous => "it is not clear what the request proves",
            Self::NothingShown => "sign in first",
            Self::TokenRefused => "the token does not count here",
            Self::TokenExpired => "the token has expired",
            Self::PasswordWrong => "name and password do not fit",
            Self::CertificateRefused => "the certificate does not count here",
            Self::UrlRefused => "this link does not count here",
            Self::UrlExpired => "this link has ended",
            Self::Unavailable => "who asks cannot be found out at the moment",
        }
    }
}

/// What `WWW-Authenticate` says, one value for each way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenges(pub(crate) Vec<HeaderValue>);

impl Refusal {
    pub(super) fn new(kind: RefusalKind, detail: impl ToString) -> Self {
        Self {
            kind,
            detail: Some(detail.to_string()),
        }
    }

    pub(crate) fn nothing_shown() -> Self {
        Self {
            kind: RefusalKind::NothingShown,
            detail: None,
        }
    }

    /// What proved the viewer by this way, as [`SignedIn::method`](super::SignedIn::method) names it,
    /// has ended since.
    pub(crate) fn ended(method: Option<&str>) -> Self {
        let kind = match method {
            Some("mtls") => RefusalKind::CertificateRefused,
            Some("signed_url") => RefusalKind::UrlExpired,
            Some(_) | None => RefusalKind::TokenExpired,
        };
        Self::new(kind, "it has ended while the request was under way")
    }

    /// It could be read in more than one way, or in none.
    pub(super) fn ambiguous(detail: &'static str) -> Self {
        Self::new(RefusalKind::Ambiguous, detail)
    }

    /// It could not be looked at now.
    pub(super) fn unavailable(detail: impl ToString) -> Self {
        Self::new(RefusalKind::Unavailable, detail)
    }
}

impl ViewerAuth {
    /// What a viewer who is refused so is told that he can show.
    pub(crate) fn challenges(&self, kind: RefusalKind) -> Challenges {
        let realm = &self.config.realm;
        let challenge = |way: &ViewerWay| match way {
            // RFC 6750, 3: without a token nothing is said about its fault.
            ViewerWay::Bearer(_) if kind == RefusalKind::TokenExpired => format!(
                "Bearer realm=\"{realm}\", error=\"invalid_token\", \
                 error_description=\"{}\"",
                kind.message()
            ),
            ViewerWay::Bearer(_) if kind == RefusalKind::TokenRefused => {
                format!("Bearer realm=\"{realm}\", error=\"invalid_token\"")
            }
            ViewerWay::Bearer(_) => format!("Bearer realm=\"{realm}\""),
            ViewerWay::Basic(_) => format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
            // Names of our own: for these there is none that clients know.
            ViewerWay::Mtls(_) => format!("ClientCertificate realm=\"{realm}\""),
            ViewerWay::SignedUrl(_) => format!("SignedUrl realm=\"{realm}\""),
        };
        let values: Result<Vec<HeaderValue>, InvalidHeaderValue> = self
            .config
            .ways
            .iter()
            .map(|way| HeaderValue::try_from(challenge(way)))
            .collect();
        // The configuration lets no realm through that no field can have.
        Challenges(values.unwrap_or_default())
    }
}
