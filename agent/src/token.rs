//! The token that proves who this agent is: where it comes from and when it must be renewed.
//!
//! The agent never checks a token's signature, which only the hub can do with meaning. It reads
//! the claims for two reasons: to renew before `exp`, and to tell a person in `diagnose` what the
//! token says. A token that is not a JWT is sent as it is and renewed only when its file changes.

mod asked;
mod claims;
mod file;
mod oidc;

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

pub use self::asked::{TokenAsk, TokenAsker, TokenAsks};
pub(crate) use self::claims::Claims;
pub(crate) use self::file::FileStamp;
use self::file::TokenFile;
use self::oidc::OidcClient;
use crate::config::{Auth, Outbound};
use crate::secret::Secret;

/// Longer tokens are refused: RENEW and request heads hold no more.
const TOKEN_BYTES_MAX: usize = nowconnect_protocol::limits::MAX_TOKEN_BYTES;
/// Waits longer than this are as good as never, and keep clock arithmetic in range.
const LIFETIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// A token in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) secret: Secret,
    pub(crate) claims: Option<Claims>,
    pub(crate) expires_at: Option<SystemTime>,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("token file `{path}` cannot be read: {reason}")]
    Unreadable { path: String, reason: String },
    #[error("token file `{path}` is empty")]
    Empty { path: String },
    #[error("{origin} is no token: {reason}")]
    Malformed { origin: String, reason: String },
    #[error("client secret file `{path}` cannot be read: {reason}")]
    ClientSecret { path: String, reason: String },
    #[error("issuer `{url}`: {reason}")]
    Issuer { url: String, reason: String },
    #[error("no token: {reason}")]
    NotGiven {
        reason: String,
        /// Asking earlier is of no use.
        retry_after: Option<Duration>,
    },
}

impl Token {
    /// Takes `text` as a token from `origin`, which is named in errors.
    fn parse(text: &str, origin: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let malformed = |reason: &str| TokenError::Malformed {
            origin: origin.to_owned(),
            reason: reason.to_owned(),
        };
        let text = text.strip_prefix("Bearer ").unwrap_or(text);
        if text.len() > TOKEN_BYTES_MAX {
            return Err(malformed("it is longer than 16384 bytes"));
        }
        // What a header may hold, and a signed upgrade's fields beside each other.
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b',' && byte != b'"';
        if !text.bytes().all(fits) {
            return Err(malformed(
                "it holds white space, `,`, `\"` or other bytes that no token has",
            ));
        }
        let claims = Claims::decode(text);
        Ok(Self {
            secret: Secret::new(text),
            expires_at: claims.as_ref().and_then(Claims::expires_at),
            claims,
        })
    }

    /// How long it still lives; `None` where nobody says.
    pub(crate) fn lifetime(&self, now: SystemTime) -> Option<Duration> {
        self.expires_at.map(|end| {
            end.duration_since(now)
                .unwrap_or(Duration::ZERO)
                .min(LIFETIME_MAX)
        })
    }
}

/// When to fetch the next token, for one that lives for `lifetime` more: `before` its end, or at
/// half its life where that is shorter.
pub(crate) fn renew_after(lifetime: Duration, before: Duration) -> Duration {
    if lifetime > before.saturating_mul(2) {
        lifetime - before
    } else {
        lifetime / 2
    }
}

/// Where tokens come from, with what it remembers between them.
#[derive(Debug)]
pub(crate) enum TokenSource {
    Fixed(Secret),
    File(TokenFile),
    Oidc(Box<OidcClient>),
    Asked(TokenAsker),
}

impl TokenSource {
    pub(crate) fn new(auth: &Auth, outbound: &Outbound) -> Self {
        match auth {
            Auth::Fixed(secret) => Self::Fixed(secret.clone()),
            Auth::Asked(asker) => Self::Asked(asker.clone()),
            Auth::TokenFile(path) => Self::File(TokenFile::new(path.clone())),
            Auth::Oidc(oidc) => {
                Self::Oidc(Box::new(OidcClient::new(oidc.clone(), outbound.clone())))
            }
        }
    }

    /// A token, fetched now.
    pub(crate) async fn fetch(&mut self, deadline: Instant) -> Result<Token, TokenError> {
        match self {
            Self::Fixed(secret) => Token::parse(secret.expose(), "the configured text"),
            Self::File(file) => file.read(),
            Self::Oidc(client) => client.fetch(deadline).await,
            Self::Asked(asker) => asker.fetch(deadline).await,
        }
    }

    /// Whether what it is read from is here and well formed; nobody is asked for a token.
    pub(crate) fn check(&mut self) -> Result<(), TokenError> {
        match self {
            Self::Fixed(secret) => Token::parse(secret.expose(), "the configured text").map(drop),
            Self::File(file) => file.read().map(drop),
            Self::Oidc(client) => client.client_secret().map(drop),
            Self::Asked(_) => Ok(()),
        }
    }

    /// Whether the file changed since the last [`fetch`](Self::fetch).
    pub(crate) fn changed(&self) -> bool {
        match self {
            Self::File(file) => file.changed(),
            Self::Fixed(_) | Self::Oidc(_) | Self::Asked(_) => false,
        }
    }

    /// The hub did not take the last token, or a fresher one is wanted: the next fetch asks anew.
    pub(crate) fn forget(&mut self) {
        match self {
            Self::Oidc(client) => client.forget(),
            Self::File(_) | Self::Fixed(_) | Self::Asked(_) => {}
        }
    }

    /// Whether each of its tokens counts once.
    pub(crate) fn counts_once(&self) -> bool {
        matches!(self, Self::Asked(_))
    }

    /// Where it comes from, for people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Fixed(_) => "a fixed token".to_owned(),
            Self::File(file) => format!("file `{}`", file.path().display()),
            Self::Oidc(client) => format!("OIDC client credentials from {}", client.describe()),
            Self::Asked(_) => "whoever started the agent".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn white_space_around_a_token_is_dropped_and_inside_refused() {
        let token = Token::parse("  abc.def.ghi\n", "file").unwrap();
        assert_eq!(token.secret.expose(), "abc.def.ghi");
        assert_eq!(
            Token::parse("Bearer abc", "file").unwrap().secret.expose(),
            "abc"
        );
        for bad in ["abc\ndef", "abc,agent=other", "\"abc\"", "ab\u{e4}"] {
            assert!(Token::parse(bad, "file").is_err(), "{bad}");
        }
        assert!(Token::parse(&"a".repeat(TOKEN_BYTES_MAX + 1), "file").is_err());
    }

    #[test]
    fn a_token_shows_itself_nowhere() {
        let token = Token::parse("abc.def.ghi", "file").unwrap();
        assert!(!format!("{token:?}").contains("abc"));
        let error = Token::parse("abc def", "file").unwrap_err();
        assert!(!error.to_string().contains("abc"));
    }

    #[test]
    fn renewal_comes_a_minute_early_or_at_half_life() {
        let minute = Duration::from_secs(60);
        assert_eq!(renew_after(minute * 10, minute), minute * 9);
        assert_eq!(renew_after(minute, minute), minute / 2);
        assert_eq!(renew_after(Duration::ZERO, minute), Duration::ZERO);
    }
}
