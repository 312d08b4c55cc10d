//! A hub that answers the upgrade with an error.

use std::fmt;
use std::time::Duration;

/// An HTTP answer other than 101.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpgradeRefused {
    pub(crate) status: u16,
    /// The hub's stable code, where the answer has one.
    pub(crate) code: Option<String>,
    /// The hub's words, shortened.
    pub(crate) reason: String,
    pub(crate) retry_after: Option<Duration>,
}

impl UpgradeRefused {
    /// What a person can do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match (self.status, self.code.as_deref().unwrap_or_default()) {
            (_, "revoked") => {
                "the hub's operator has revoked this agent or token; `nowconnect agent revoked` there shows it"
            }
            (_, "token_expired" | "token_not_yet_valid") => {
                "the token is not valid now: check what renews it, and both machines' clocks"
            }
            (_, "token_audience") => {
                "the token is for somebody else: its `aud` must contain the hub's `security.audience`"
            }
            (
                _,
                "token_issuer" | "token_issuer_unknown" | "token_key_unknown" | "token_signature",
            ) => {
                "the hub does not trust the token's signer: compare `iss` with the hub's `security.issuers`"
            }
            (_, "signature_missing") => {
                "the hub wants this agent's upgrades signed: set `tunnel.auth.hmac_secret_file` (`NC_HMAC_SECRET_FILE`) to the secret of its `security.signed_agents`"
            }
            (_, "signature_wrong") => {
                "the secret here is not the one that the hub has for this agent, or it has none: compare `tunnel.auth.hmac_secret_file` and `tunnel.agent_id` with its `security.signed_agents`"
            }
            (_, "signature_stale") => {
                "one of the two clocks is wrong: let both machines set theirs by NTP; the hub allows `security.signed_window_sec` between them"
            }
            (_, "signature_replayed") => {
                "the hub has seen this very request before: whatever stands in front of it repeats requests, or somebody on the way does; the next dial signs another one"
            }
            (_, "keys_unavailable") => {
                "the hub cannot fetch its issuer's keys; that is for the hub's operator to mend"
            }
            (401, _) => {
                "the hub does not accept the token: check that it is current, that its `aud` and `iss` are the hub's, and that the hub trusts its signer"
            }
            (403, _) => {
                "the hub knows the token but does not let this agent in: check the agent's id, revocation and the hub's policies"
            }
            (404, _) => {
                "nothing answers tunnels at this path: check the path of `tunnel.url` (usually `/tunnel`)"
            }
            (429 | 503, _) => "the hub is busy or about to leave; the agent tries again by itself",
            (300..=399, _) => "the address leads elsewhere; set `tunnel.url` to the final address",
            (502 | 504, _) => "an ingress or proxy in front of the hub does not reach it",
            _ => {
                "check that `tunnel.url` leads to a hub and that whatever stands in front of it lets WebSockets through"
            }
        }
    }

    /// Whether only a person can mend it.
    pub(crate) fn needs_a_person(&self) -> bool {
        // The next dial has a nonce of its own.
        if self.code.as_deref() == Some("signature_replayed") {
            return false;
        }
        matches!(self.status, 300..=399 | 400 | 401 | 403 | 404 | 405 | 426)
    }
}

impl fmt::Display for UpgradeRefused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.status)?;
        if let Some(code) = &self.code {
            write!(formatter, " `{code}`")?;
        }
        if !self.reason.is_empty() {
            write!(formatter, " ({})", self.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(status: u16, code: &str) -> &'static str {
        UpgradeRefused {
            status,
            code: Some(code.to_owned()),
            reason: String::new(),
            retry_after: None,
        }
        .advice()
    }

    #[test]
    fn advice_goes_by_the_hubs_code_where_it_tells_one() {
        for (status, code, part) in [
            (401, "revoked", "agent revoked"),
            (401, "token_expired", "clocks"),
            (401, "token_audience", "security.audience"),
            (401, "token_issuer_unknown", "security.issuers"),
            (401, "token_claims", "does not accept the token"),
            (401, "signature_missing", "tunnel.auth.hmac_secret_file"),
            (401, "signature_wrong", "security.signed_agents"),
            (401, "signature_stale", "NTP"),
            (401, "signature_replayed", "repeats requests"),
            (503, "keys_unavailable", "issuer's keys"),
            (503, "draining", "busy or about to leave"),
        ] {
            let advice = advice(status, code);
            assert!(advice.contains(part), "{status} {code}: {advice}");
        }
    }
}
