//! What a plugin is told instead of an answer.

use std::fmt;

/// Why a plugin's HTTP request got no answer; the codes are those of contract 0.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FetchCode {
    /// No grant names that scheme, host and port.
    NotGranted,
    /// The URL, the method or a field is not possible.
    BadRequest,
    /// Too many requests of the plugin are under way.
    Busy,
    /// The name has no address.
    ResolveFailed,
    /// The name leads to an address that is not public and not granted.
    AddressRefused,
    /// Nobody answers there.
    ConnectFailed,
    /// The certificate does not hold.
    TlsFailed,
    /// No answer in the request's own time.
    Timeout,
    /// The answer is larger than a plugin may get.
    TooLarge,
    /// The answer is not HTTP, or stopped midway.
    Broken,
}

impl FetchCode {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::NotGranted,
        Self::BadRequest,
        Self::Busy,
        Self::ResolveFailed,
        Self::AddressRefused,
        Self::ConnectFailed,
        Self::TlsFailed,
        Self::Timeout,
        Self::TooLarge,
        Self::Broken,
    ];

    /// As the plugin and the metrics see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotGranted => "not_granted",
            Self::BadRequest => "bad_request",
            Self::Busy => "busy",
            Self::ResolveFailed => "resolve_failed",
            Self::AddressRefused => "address_refused",
            Self::ConnectFailed => "connect_failed",
            Self::TlsFailed => "tls_failed",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Broken => "broken",
        }
    }
}

impl fmt::Display for FetchCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
