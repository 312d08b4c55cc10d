//! What an upgrade shows to the hub: the token alone, or signed with a secret that only this agent
//! and the hub have.
//!
//! The form is in `docs/protocols/signed-upgrade.md`. Each dial of each hub makes a request of its
//! own, with its own time and nonce.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use nowconnect_protocol::AgentId;

use crate::config::{AgentConfig, SigningSecret};
use crate::secret::{self, Secret};

/// The scheme's name, and the first line of what is signed.
const SCHEME: &str = "NowConnect-HMAC-SHA256";
/// The hub takes no shorter secret.
const SECRET_CHARS_MIN: usize = 32;
/// Random bytes of a nonce: 24 characters, of the 16 to 64 that the hub takes.
const NONCE_BYTES: usize = 18;

/// Why nothing can be shown to the hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SigningError {
    #[error("secret file `{path}` cannot be used to sign the upgrade: {reason}")]
    SecretFile { path: String, reason: String },
    #[error("the secret of `NC_HMAC_SECRET` cannot be used to sign the upgrade: {0}")]
    Secret(String),
    #[error("the token cannot be sent in a header")]
    Header,
    #[error("the system gives no random bytes for a signed upgrade: {0}")]
    NoRandomness(String),
}

impl SigningError {
    /// What a person can do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::SecretFile { .. } | Self::Secret(_) => {
                "`tunnel.auth.hmac_secret_file` (`NC_HMAC_SECRET_FILE`) names the secret that the hub has for this agent, alone in a file that this user may read"
            }
            Self::Header => "the token is one line without blanks, commas and quotes",
            Self::NoRandomness(_) => "look at `/dev/urandom` and at what this process may call",
        }
    }
}

/// Signs in the name of one agent.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    agent: AgentId,
    secret: SigningSecret,
}

impl Signer {
    /// `None` where the configuration has no secret.
    pub(crate) fn of(config: &AgentConfig) -> Option<Self> {
        Some(Self {
            agent: config.agent_id.clone(),
            secret: config.signing_secret.clone()?,
        })
    }

    /// Whether the secret is here and long enough; nothing is signed.
    pub(crate) fn check(&self) -> Result<(), SigningError> {
        self.read().map(drop)
    }

    fn read(&self) -> Result<Secret, SigningError> {
        match &self.secret {
            SigningSecret::File(path) => {
                read_file(path).map_err(|reason| SigningError::SecretFile {
                    path: path.display().to_string(),
                    reason,
                })
            }
            SigningSecret::Fixed(secret) => check_secret(secret.expose())
                .map(|()| secret.clone())
                .map_err(SigningError::Secret),
        }
    }

    fn header(&self, token: &Secret, now: SystemTime) -> Result<String, SigningError> {
        let token = token.expose();
        let secret = self.read()?;
        let mut random = [0_u8; NONCE_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| SigningError::NoRandomness(error.to_string()))?;
        let nonce = URL_SAFE_NO_PAD.encode(random);
        // A clock before 1970 is wrong by far more than any hub allows, which it then says.
        let timestamp = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let agent = self.agent.as_str();
        let signature = sign(secret.expose(), agent, timestamp, &nonce, token);
        Ok(format!(
            "{SCHEME} agent={agent}, timestamp={timestamp}, nonce={nonce}, \
             signature={signature}, token={token}"
        ))
    }
}

/// `Authorization` of one upgrade that is asked for `now`.
pub(crate) fn authorization(
    token: &Secret,
    signer: Option<&Signer>,
    now: SystemTime,
) -> Result<HeaderValue, SigningError> {
    let text = match signer {
        Some(signer) => signer.header(token, now)?,
        None => format!("Bearer {}", token.expose()),
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| SigningError::Header)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether a text is long enough to sign with.
///
/// # Errors
/// A sentence that says how long it has to be.
pub(crate) fn check_secret(text: &str) -> Result<(), String> {
    if text.chars().count() < SECRET_CHARS_MIN {
        return Err(format!(
            "it needs at least {SECRET_CHARS_MIN} characters, such as from `openssl rand -hex 32`, \
             and the hub the same in its `security.signed_agents`"
        ));
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Secret, String> {
    let secret = secret::read_file(path)?;
    check_secret(secret.expose()).map(|()| secret)
}

/// No field can hold a line feed, so no two requests have one text.
fn sign(secret: &str, agent: &str, timestamp: u64, nonce: &str, token: &str) -> String {
    let text = format!("{SCHEME}\n{agent}\n{timestamp}\n{nonce}\n{token}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    const SECRET: &str = "4f9d2a7c1e8b5063f7a1c9e2d4b6a8f0";

    /// The example of `docs/protocols/signed-upgrade.md`, which the hub's own tests check as well.
    #[test]
    fn the_documented_example_is_what_is_signed() {
        let document = include_str!("../../docs/protocols/signed-upgrade.md");
        let signature = sign(SECRET, "site-1", 1_795_291_200, "4mJ0c2Zp8yVt1QxR", "e.y.J");
        assert!(document.contains(SECRET));
        assert!(
            document.contains(&format!("signature={signature}")),
            "the document should show {signature}"
        );
    }

    #[test]
    fn each_request_has_a_nonce_of_its_own_and_the_time_of_now() {
        let signer = signer(SigningSecret::Fixed(Secret::new(SECRET)));
        let now = UNIX_EPOCH + Duration::from_millis(1_795_291_200_900);
        let nonces: BTreeSet<String> = (0..64)
            .map(|_| {
                let header = shown(&signer, now);
                assert!(
                    header.starts_with(
                        "NowConnect-HMAC-SHA256 agent=site-1, timestamp=1795291200, nonce="
                    ),
                    "{header}"
                );
                assert!(header.ends_with(", token=e.y.J"), "{header}");
                assert!(!header.contains(SECRET));
                let (_, rest) = header.split_once("nonce=").unwrap();
                rest.split_once(',').unwrap().0.to_owned()
            })
            .collect();
        assert_eq!(nonces.len(), 64);
        assert!(nonces.iter().all(|nonce| nonce.len() == 24));
    }

    #[test]
    fn a_secret_is_read_anew_each_time_and_must_be_long_enough() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site-1.secret");
        let signer = signer(SigningSecret::File(path.clone()));
        let missing = signer.check().unwrap_err().to_string();
        assert!(missing.contains("site-1.secret"), "{missing}");
        std::fs::write(&path, "short\n").unwrap();
        let short = signer.check().unwrap_err().to_string();
        assert!(short.contains("at least 32 characters"), "{short}");
        assert!(!short.contains("short"), "{short}");
        std::fs::write(&path, format!("{SECRET}\n")).unwrap();
        assert_eq!(signer.check(), Ok(()));
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let signer = signer(SigningSecret::Fixed(Secret::new(SECRET)));
        assert!(!format!("{signer:?}").contains(SECRET));
        let header = authorization(&Secret::new("e.y.J"), Some(&signer), SystemTime::now());
        assert_eq!(format!("{:?}", header.unwrap()), "Sensitive");
    }

    fn signer(secret: SigningSecret) -> Signer {
        Signer {
            agent: AgentId::parse("site-1").unwrap(),
            secret,
        }
    }

    fn shown(signer: &Signer, now: SystemTime) -> String {
        let header = authorization(&Secret::new("e.y.J"), Some(signer), now).unwrap();
        header.to_str().unwrap().to_owned()
    }
}
