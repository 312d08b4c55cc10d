//! Why a link ended, in words that both ends share.

use std::borrow::Cow;
use std::fmt;

use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WsCode;

/// The registry of the mesh's close codes: each is a WebSocket close code of the private range,
/// with its name as the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseCode {
    /// A message that the link's protocol does not know or allow.
    ProtocolError,
    /// No proof of identity, and this hub asks for one.
    Unproven,
    /// A proof of identity that does not hold.
    IdentityRefused,
    /// A certificate that has expired or is not valid yet.
    CertificateExpired,
    /// No version of the protocol that both ends speak.
    VersionMismatch,
    /// The hello took too long.
    HelloTimeout,
    /// There is a link between these two hubs already, and it stays.
    Duplicate,
    /// A newer link took this one's place.
    Replaced,
    /// Both ends are the same hub.
    OwnAddress,
    /// A message beyond the bound.
    TooLarge,
    /// This hub's name is taken by another living hub, so that it must not link.
    NameTaken,
    /// The peer is no longer in the configuration.
    Removed,
    /// The hub is shutting down.
    Leaving,
    /// No answer to a ping.
    Silent,
    /// The policies do not let the hub link.
    PolicyDenied,
    /// A fault of the hub itself.
    Internal,
}

impl CloseCode {
    /// Every code.
    pub const ALL: [Self; 16] = [
        Self::ProtocolError,
        Self::Unproven,
        Self::IdentityRefused,
        Self::CertificateExpired,
        Self::VersionMismatch,
        Self::HelloTimeout,
        Self::Duplicate,
        Self::Replaced,
        Self::OwnAddress,
        Self::TooLarge,
        Self::NameTaken,
        Self::Removed,
        Self::Leaving,
        Self::Silent,
        Self::PolicyDenied,
        Self::Internal,
    ];

    /// The name in logs, metrics and the close frame.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProtocolError => "protocol_error",
            Self::Unproven => "unproven",
            Self::IdentityRefused => "identity_refused",
            Self::CertificateExpired => "certificate_expired",
            Self::VersionMismatch => "version_mismatch",
            Self::HelloTimeout => "hello_timeout",
            Self::Duplicate => "duplicate",
            Self::Replaced => "replaced",
            Self::OwnAddress => "own_address",
            Self::TooLarge => "too_large",
            Self::NameTaken => "name_taken",
            Self::Removed => "removed",
            Self::Leaving => "leaving",
            Self::Silent => "silent",
            Self::PolicyDenied => "policy_denied",
            Self::Internal => "internal",
        }
    }

    /// The WebSocket close code.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::ProtocolError => 4400,
            Self::Unproven => 4401,
            Self::IdentityRefused => 4403,
            Self::CertificateExpired => 4404,
            Self::VersionMismatch => 4406,
            Self::HelloTimeout => 4408,
            Self::Duplicate => 4409,
            Self::Replaced => 4410,
            Self::OwnAddress => 4411,
            Self::TooLarge => 4413,
            Self::NameTaken => 4414,
            Self::Removed => 4415,
            Self::Leaving => 4416,
            Self::Silent => 4417,
            Self::PolicyDenied => 4418,
            Self::Internal => 4500,
        }
    }

    /// The code of this number.
    #[must_use]
    pub fn of_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// Whether the link ended because somebody wanted that, and not through a fault.
    #[must_use]
    pub const fn is_orderly(self) -> bool {
        match self {
            Self::Duplicate | Self::Replaced | Self::OwnAddress | Self::Removed | Self::Leaving => {
                true
            }
            Self::ProtocolError
            | Self::Unproven
            | Self::IdentityRefused
            | Self::CertificateExpired
            | Self::VersionMismatch
            | Self::HelloTimeout
            | Self::TooLarge
            | Self::NameTaken
            | Self::Silent
            | Self::PolicyDenied
            | Self::Internal => false,
        }
    }

    /// The close frame that says it.
    #[must_use]
    pub fn frame(self) -> CloseFrame {
        CloseFrame {
            code: WsCode::Library(self.number()),
            reason: self.as_str().into(),
        }
    }

    /// What a close frame of the other end says. A code that only a newer release knows, or that
    /// the WebSocket library made, is [`Self::ProtocolError`].
    #[must_use]
    pub fn of_frame(frame: Option<&CloseFrame>) -> Self {
        frame
            .and_then(|frame| match u16::from(frame.code) {
                1000 | 1001 => Some(Self::Leaving),
                1009 => Some(Self::TooLarge),
                number => Self::of_number(number),
            })
            .unwrap_or(Self::ProtocolError)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// This hub closed it.
    ByUs(CloseCode),
    /// The other hub closed it.
    ByPeer(CloseCode),
    /// The transport broke.
    Broken(Cow<'static, str>),
}

impl LinkEnd {
    /// A stable name for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ByUs(code) | Self::ByPeer(code) => code.as_str(),
            Self::Broken(_) => "broken",
        }
    }

    /// Whether somebody wanted it to end.
    #[must_use]
    pub const fn is_orderly(&self) -> bool {
        match self {
            Self::ByUs(code) | Self::ByPeer(code) => code.is_orderly(),
            Self::Broken(_) => false,
        }
    }
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByUs(code) => write!(f, "closed by this hub: {code}"),
            Self::ByPeer(code) => write!(f, "closed by the other hub: {code}"),
            Self::Broken(why) => write!(f, "the connection broke: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_a_number_and_a_name_of_its_own() {
        let numbers: BTreeSet<_> = CloseCode::ALL.iter().map(|code| code.number()).collect();
        let names: BTreeSet<_> = CloseCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(numbers.len(), CloseCode::ALL.len());
        assert_eq!(names.len(), CloseCode::ALL.len());
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::of_frame(Some(&code.frame())), code);
        }
    }

    #[test]
    fn the_document_has_every_code() {
        let document = include_str!("../../../docs/protocols/mesh-link.md");
        let rows: Vec<_> = document
            .lines()
            .filter(|row| row.starts_with("| 4"))
            .collect();
        let expected: Vec<_> = CloseCode::ALL
            .iter()
            .map(|code| format!("| {} | `{code}` | ", code.number()))
            .collect();
        assert_eq!(rows.len(), expected.len());
        for (row, expected) in rows.iter().zip(expected) {
            assert!(row.starts_with(&expected), "{row}: {expected}");
        }
    }

    #[test]
    fn an_unknown_code_is_no_orderly_end() {
        let mut frame = CloseCode::Leaving.frame();
        frame.code = WsCode::Library(4999);
        assert!(!CloseCode::of_frame(Some(&frame)).is_orderly());
        assert!(!CloseCode::of_frame(None).is_orderly());
    }
}
