//! Requests that an agent signs with a secret it shares with the hub, beside its token.
//!
//! ```text
//! Authorization: NowConnect-HMAC-SHA256 agent=…, timestamp=…, nonce=…, signature=…, token=…
//!
//! signature = base64url(HMAC-SHA256(secret, text))
//! text      = "NowConnect-HMAC-SHA256\n" agent "\n" timestamp "\n" nonce "\n" token
//! ```
//! A stolen token is then not enough, and neither is a request that somebody has seen: its time
//! must be near the hub's and its nonce new.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The scheme's name in `Authorization`, and the first line of what is signed.
pub const SCHEME: &str = "NowConnect-HMAC-SHA256";

/// Fewest characters of a nonce: of base64url these are 96 random bits.
pub const NONCE_MIN_BYTES: usize = 16;

/// Most characters of a nonce.
pub const MAX_NONCE_BYTES: usize = 64;

/// What such a header says, nothing of it proven.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedRequest {
    /// The agent's id, by which the hub finds the secret.
    pub agent: String,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// What makes this request unlike any other.
    pub nonce: String,
    /// The agent's token.
    pub token: String,
    signature: Vec<u8>,
}

impl std::fmt::Debug for SignedRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedRequest")
            .field("agent", &self.agent)
            .field("timestamp", &self.timestamp)
            .finish_non_exhaustive()
    }
}

/// Why a signed request does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// The header is not what it has to be.
    #[error("the signed request is malformed: {0}")]
    Malformed(&'static str),
    /// The signature is not the secret's, or the agent has none here: it is not told which.
    #[error("the signature does not fit")]
    BadSignature,
    /// The time is too far from the hub's.
    #[error(
        "the request's time is {} s away from the hub's; check the agent's clock",
        .sent_at.abs_diff(*.now)
    )]
    Stale {
        /// What the request says, in seconds since 1970.
        sent_at: u64,
        /// What the hub's clock says.
        now: u64,
    },
    /// The nonce was seen before.
    #[error("the request was used before")]
    Replayed,
    /// As many nonces are remembered as may be.
    #[error("too many signed requests at once; try again")]
    Overloaded,
}

impl SignedRequest {
    /// Reads what follows the scheme in `Authorization`. Each field must be there once.
    ///
    /// # Errors
    /// A field is missing, there twice, unknown or out of bounds.
    pub fn parse(parameters: &str) -> Result<Self, SignedError> {
        use SignedError::Malformed;
        let mut fields = [None; 5];
        const NAMES: [&str; 5] = ["agent", "timestamp", "nonce", "signature", "token"];
        for part in parameters.split(',') {
            let (name, value) = part
                .trim()
                .split_once('=')
                .ok_or(Malformed("each field is `name=value`"))?;
            let slot = NAMES
                .iter()
                .position(|known| *known == name)
                .ok_or(Malformed("it has an unknown field"))?;
            let value = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'))
                .unwrap_or(value);
            if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(Malformed("a field holds white space or other letters"));
            }
            if fields[slot].replace(value).is_some() {
                return Err(Malformed("a field is there twice"));
            }
        }
        let [
            Some(agent),
            Some(timestamp),
            Some(nonce),
            Some(signature),
            Some(token),
        ] = fields
        else {
            return Err(Malformed(
                "it needs agent, timestamp, nonce, signature and token",
            ));
        };
        if !(NONCE_MIN_BYTES..=MAX_NONCE_BYTES).contains(&nonce.len())
            || !nonce
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        {
            return Err(Malformed(
                "the nonce has 16 to 64 letters, digits, `-` or `_`",
            ));
        }
        Ok(Self {
            agent: agent.to_owned(),
            timestamp: timestamp
                .parse()
                .map_err(|_| Malformed("the timestamp is in whole seconds since 1970"))?,
            nonce: nonce.to_owned(),
            token: token.to_owned(),
            signature: URL_SAFE_NO_PAD
                .decode(signature)
                .map_err(|_| Malformed("the signature is base64url"))?,
        })
    }

    /// Checks signature and time; the caller then uses the nonce up. Without a secret the same
    /// work is done in vain.
    ///
    /// # Errors
    /// The signature does not fit, or the time is further than `window_seconds` from ours.
    pub fn check(
        &self,
        secret: Option<&[u8]>,
        now_seconds: u64,
        window_seconds: u64,
    ) -> Result<(), SignedError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.unwrap_or_default());
        let text = text(&self.agent, self.timestamp, &self.nonce, &self.token);
        let fits = hmac::verify(&key, text.as_bytes(), &self.signature).is_ok();
        if !fits || secret.is_none() {
            return Err(SignedError::BadSignature);
        }
        if self.timestamp.abs_diff(now_seconds) > window_seconds {
            return Err(SignedError::Stale {
                sent_at: self.timestamp,
                now: now_seconds,
            });
        }
        Ok(())
    }
}

/// The signature of a request, as it stands in the header.
#[must_use]
pub fn sign(secret: &[u8], agent: &str, timestamp: u64, nonce: &str, token: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, text(agent, timestamp, nonce, token).as_bytes());
    URL_SAFE_NO_PAD.encode(tag.as_ref())
}

/// No field can hold a line feed, so no two requests have one text.
fn text(agent: &str, timestamp: u64, nonce: &str, token: &str) -> String {
    format!("{SCHEME}\n{agent}\n{timestamp}\n{nonce}\n{token}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    const NONCE: &str = "0123456789abcdef";
    const SECRET: &[u8] = b"a secret of the two";

    fn header(timestamp: u64, nonce: &str, token: &str) -> String {
        let signature = sign(SECRET, "edge-1", timestamp, nonce, token);
        format!(
            "agent=edge-1, timestamp={timestamp}, nonce=\"{nonce}\", signature={signature}, \
             token={token}"
        )
    }

    #[test]
    fn a_request_counts_within_its_window_only() {
        let request = SignedRequest::parse(&header(1000, NONCE, "t.o.k")).unwrap();
        for now in [940, 1000, 1060] {
            assert_eq!(request.check(Some(SECRET), now, 60), Ok(()));
        }
        for now in [939, 1061] {
            let stale = request.check(Some(SECRET), now, 60).unwrap_err();
            assert_eq!(stale, SignedError::Stale { sent_at: 1000, now });
        }
    }

    /// The agent's tests check the same one.
    #[test]
    fn the_documented_example_counts() {
        let document = include_str!("../../../docs/protocols/signed-upgrade.md");
        let headers = document.lines().filter_map(|line| {
            let (_, parameters) = line.split_once("Authorization: NowConnect-HMAC-SHA256 ")?;
            SignedRequest::parse(parameters).ok()
        });
        let secret = "4f9d2a7c1e8b5063f7a1c9e2d4b6a8f0";
        assert!(document.contains(secret));
        let counted = headers
            .filter(|request| request.check(Some(secret.as_bytes()), 1_795_291_200, 60) == Ok(()));
        assert_eq!(counted.count(), 1);
    }

    #[test]
    fn every_field_is_signed() {
        let good = header(1000, NONCE, "t.o.k");
        for (from, to) in [
            ("edge-1", "edge-2"),
            ("timestamp=1000", "timestamp=1001"),
            (NONCE, "0123456789abcdeF"),
            ("t.o.k", "t.o.K"),
        ] {
            let request = SignedRequest::parse(&good.replace(from, to)).unwrap();
            let refused = request.check(Some(SECRET), 1000, 60);
            assert_eq!(refused, Err(SignedError::BadSignature), "{to}");
        }
        let request = SignedRequest::parse(&good).unwrap();
        for secret in [None, Some(&b""[..]), Some(&b"another"[..])] {
            assert_eq!(
                request.check(secret, 1000, 60),
                Err(SignedError::BadSignature)
            );
        }
    }

    #[test]
    fn an_agent_without_a_secret_cannot_be_signed_for_with_an_empty_one() {
        let signature = sign(b"", "edge-1", 1000, NONCE, "t");
        let forged =
            format!("agent=edge-1,timestamp=1000,nonce={NONCE},signature={signature},token=t");
        let request = SignedRequest::parse(&forged).unwrap();
        assert_eq!(
            request.check(None, 1000, 60),
            Err(SignedError::BadSignature)
        );
    }

    #[test]
    fn what_is_not_the_form_is_refused() {
        let good = header(1000, NONCE, "t.o.k");
        for bad in [
            String::new(),
            good.replace("agent=edge-1, ", ""),
            format!("{good}, agent=edge-2"),
            format!("{good}, more=1"),
            good.replace("1000", "soon"),
            good.replace("1000", "-1"),
            good.replace(NONCE, "short"),
            good.replace(NONCE, &"n".repeat(65)),
            good.replace(NONCE, "0123456789abcde/"),
            good.replace("signature=", "signature=*"),
        ] {
            assert!(
                matches!(SignedRequest::parse(&bad), Err(SignedError::Malformed(_))),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,200}") {
            let _ = SignedRequest::parse(&text);
        }
    }
}
