//! Codes of the tunnel port, before an agent's HELLO.

use http::StatusCode;

use super::{Entry, Group, Line, Text, text};
use crate::telemetry::events;

static UPGRADES: Group = Group {
    heading: "Why the hub answered the upgrade with an error",
    place: "As the answer to an agent's upgrade",
    intro: "The answer's body is JSON with `code` and `message`; a 503 carries Retry-After. The same codes are in\n\
            `nowconnect_handshakes_total{result}`, those of 401 also in `nowconnect_auth_failures_total{reason}`.",
    seen_by: "the agent, which logs the answer and shows it in `nowconnect-agent diagnose`, and the hub's operator",
    property: Some("status"),
    metrics: &["nowconnect_handshakes_total{result=\"CODE\"}"],
    lines: &[],
};

static HANDSHAKES: Group = Group {
    heading: "Why a handshake got no answer",
    place: "As a handshake that was not answered",
    intro: "Only in `nowconnect_handshakes_total{result}`: there are too many of these to log each, or nobody to tell.\n\
            Without TLS on the port, those that are too many get a 503 with `overloaded`.",
    seen_by: "the hub's operator, in the metrics; the agent sees its connection close",
    property: None,
    metrics: &["nowconnect_handshakes_total{result=\"CODE\"}"],
    lines: &[],
};

named! {
    /// Why an upgrade was refused.
    UpgradeCode {
        TokenMissing = "token_missing";
        TokenAmbiguous = "token_ambiguous";
        TokenMalformed = "token_malformed";
        TokenAlgorithm = "token_algorithm";
        TokenIssuerUnknown = "token_issuer_unknown";
        TokenIssuer = "token_issuer";
        TokenKeyUnknown = "token_key_unknown";
        TokenSignature = "token_signature";
        TokenAudience = "token_audience";
        TokenExpired = "token_expired";
        TokenNotYetValid = "token_not_yet_valid";
        TokenLifetime = "token_lifetime";
        TokenClaims = "token_claims";
        TokenTenant = "token_tenant";
        TokenUsed = "token_used";
        SignatureMissing = "signature_missing";
        SignatureWrong = "signature_wrong";
        SignatureStale = "signature_stale";
        SignatureReplayed = "signature_replayed";
        Revoked = "revoked";
        KeysUnavailable = "keys_unavailable";
        Overloaded = "overloaded";
        Draining = "draining";
        BadUpgrade = "bad_upgrade";
        UnsupportedVersion = "unsupported_version";
        UnsupportedSubprotocol = "unsupported_subprotocol";
        MethodNotAllowed = "method_not_allowed";
        UpgradeRequired = "upgrade_required";
    }
}

impl UpgradeCode {
    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::TokenMissing
            | Self::TokenAmbiguous
            | Self::TokenMalformed
            | Self::TokenAlgorithm
            | Self::TokenIssuerUnknown
            | Self::TokenIssuer
            | Self::TokenKeyUnknown
            | Self::TokenSignature
            | Self::TokenAudience
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::TokenLifetime
            | Self::TokenClaims
            | Self::TokenTenant
            | Self::TokenUsed
            | Self::SignatureMissing
            | Self::SignatureWrong
            | Self::SignatureStale
            | Self::SignatureReplayed
            | Self::Revoked => StatusCode::UNAUTHORIZED,
            Self::KeysUnavailable | Self::Overloaded | Self::Draining => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::BadUpgrade | Self::UnsupportedVersion | Self::UnsupportedSubprotocol => {
                StatusCode::BAD_REQUEST
            }
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
        }
    }
}

pub(super) fn entries() -> Vec<Entry> {
    let upgrades = UpgradeCode::ALL.iter().map(|code| {
        let text = upgrade(*code);
        let text = if code.status() == StatusCode::UNAUTHORIZED {
            text.counted(&["nowconnect_auth_failures_total{reason=\"CODE\"}"])
                .logged(&[Line(events::AUTH_FAILED, "code")])
        } else {
            text.logged(&[Line(events::HANDSHAKE_REFUSED, "code")])
        };
        Entry::new(&UPGRADES, code.as_str(), text).with(code.status().as_str())
    });
    let handshakes = HANDSHAKE_RESULTS
        .iter()
        .map(|(code, text)| Entry::new(&HANDSHAKES, code, *text));
    upgrades.chain(handshakes).collect()
}

/// Results of handshakes that never came to a request.
const HANDSHAKE_RESULTS: [(&str, Text); 5] = [
    (
        "at_once",
        text(
            "too many peers that have not proven who they are",
            "`tunnel.handshake.max_concurrent` handshakes are under way: many agents come back at once, or somebody floods the port.",
            "agents come back by themselves; raise the bound where that takes too long",
        ),
    ),
    (
        "per_source",
        text(
            "too many of them from one address",
            "`tunnel.handshake.max_per_source` handshakes of that address are under way.",
            "where many agents share an address, raise the bound, or name their ingress in `tunnel.trusted_ingress`",
        ),
    ),
    (
        "rate",
        text(
            "too many handshakes of one address in a second",
            "`tunnel.handshake.rate_per_source` is used up: an agent that dials in a loop, or many behind one address.",
            "find the agent that fails again and again; where many share an address, raise the rate",
        ),
    ),
    (
        "timeout",
        text(
            "the upgrade was not complete in time",
            "The peer did not send its request within `tunnel.handshake.timeout_ms`: a port scanner, or a very slow network.",
            "nothing, where the numbers are small",
        ),
    ),
    (
        "tls_failed",
        text(
            "the TLS handshake failed",
            "The peer does not trust the hub's certificate, speaks no TLS, or left.",
            "`nowconnect-agent diagnose` says what the agent thinks of the certificate",
        ),
    ),
];

fn upgrade(code: UpgradeCode) -> Text {
    match code {
        UpgradeCode::TokenMissing => text(
            "no bearer token, subprotocol token or query token",
            "The agent has no token, or something on the way took the header out.",
            "name the token in `tunnel.auth` of the agent; look at the ingress",
        ),
        UpgradeCode::TokenAmbiguous => text(
            "two different tokens were sent",
            "Agent and ingress each add one.",
            "send it in one place only",
        ),
        UpgradeCode::TokenMalformed => text(
            "what was sent is no token",
            "It is not three parts in base64url, is too long, or its header names something critical that the hub does not know.",
            "see what the agent's token file or issuer gives",
        ),
        UpgradeCode::TokenAlgorithm => text(
            "signed with an algorithm that the issuer may not use",
            "`alg` is not among the issuer's `algorithms`; `none` never is, a shared secret only for the control plane's own tokens.",
            "let the issuer sign with one that is, or add its own",
        ),
        UpgradeCode::TokenIssuerUnknown => text(
            "`iss` is none of `security.issuers` and not the control plane's",
            "The token is from an issuer that this hub does not trust.",
            "add the issuer, or get the token from the right one",
        ),
        UpgradeCode::TokenIssuer => text(
            "`iss` is not the one of the key",
            "The token was signed by one issuer and names another.",
            "look at the issuer: no honest one does that",
        ),
        UpgradeCode::TokenKeyUnknown => text(
            "the issuer publishes no key with that `kid`",
            "The issuer changed its keys, and its published set lacks the one that signed; or the token is not its own.",
            "look at the issuer's set of keys; the hub asks for it again by itself",
        ),
        UpgradeCode::TokenSignature => text(
            "the signature is wrong",
            "The token was changed, or signed with another key than it names.",
            "a fresh token; where it comes again, somebody forges them",
        ),
        UpgradeCode::TokenAudience => text(
            "`aud` does not contain `security.audience`",
            "The token was made for another service.",
            "ask the issuer for a token with the hub's audience",
        ),
        UpgradeCode::TokenExpired => text(
            "`exp` is past, with `security.clock_skew_ms` allowed",
            "The agent's token is old, or a clock is wrong.",
            "a fresh token; compare the clocks",
        ),
        UpgradeCode::TokenNotYetValid => text(
            "`nbf` is to come, with `security.clock_skew_ms` allowed",
            "The issuer's clock is ahead of the hub's, or the token is for later.",
            "compare the clocks",
        ),
        UpgradeCode::TokenLifetime => text(
            "it lives longer than `security.max_token_lifetime_ms`",
            "The issuer gives tokens for longer than this hub takes.",
            "let the issuer give shorter ones",
        ),
        UpgradeCode::TokenClaims => text(
            "the claim with the agent's id is missing, or a claim is of the wrong kind",
            "The issuer does not put the claims in that this hub reads.",
            "add the claim at the issuer, or name another one in `security.issuers`",
        ),
        UpgradeCode::TokenTenant => text(
            "the issuer may not speak for that tenant",
            "The tenant in the token is not among those of the issuer.",
            "a token for the right tenant, or add the tenant to the issuer",
        ),
        UpgradeCode::TokenUsed => text(
            "the tunnel's token was used before, or its tunnel is gone",
            "A token of the control API opens one tunnel connection; a newer one was given since, the tunnel was deleted, or somebody replays the token.",
            "agents ask for a new one by themselves; where it comes from an address that is not the agent's, the token was stolen",
        ),
        UpgradeCode::SignatureMissing => text(
            "the agent has to sign its upgrade and did not",
            "It is among `security.signed_agents`; its own configuration lacks the secret, or somebody shows its token who has nothing else.",
            "give the agent its secret, `tunnel.auth.hmac_secret_file`; where the address is not the agent's, revoke the token",
        ),
        UpgradeCode::SignatureWrong => text(
            "the upgrade's signature does not fit",
            "The secrets of agent and hub differ, the hub has none for the agent, or something on the way changed the request.",
            "compare the files of both sides",
        ),
        UpgradeCode::SignatureStale => text(
            "the time of a signed upgrade is too far from the hub's",
            "A clock is wrong by more than `security.signed_window_sec`, or the request was kept and sent later.",
            "compare the clocks; the answer names both times",
        ),
        UpgradeCode::SignatureReplayed => text(
            "a signed upgrade was sent a second time",
            "Somebody who saw the request sends it again, or what stands in front of the hub repeats requests.",
            "look at the address that it came from",
        ),
        UpgradeCode::Revoked => text(
            "the token or its agent was revoked",
            "It is on the revocation list.",
            "a new credential, if that was a mistake",
        ),
        UpgradeCode::KeysUnavailable => text(
            "the issuer's keys were never fetched, or are stale for too long",
            "The issuer has not answered since the hub started, or for `security.jwks_stale_ms`.",
            "look at the way from the hub to the issuer; the hub tries on",
        ),
        UpgradeCode::Overloaded => text(
            "too many handshakes at once, or from this address",
            "A bound of `tunnel.handshake` is reached.",
            "nothing: agents come back by themselves; raise the bound where that takes too long",
        ),
        UpgradeCode::Draining => text(
            "the hub starts or drains",
            "It does not serve yet, or was told to stop.",
            "nothing: agents come back by themselves, or go to another hub",
        ),
        UpgradeCode::BadUpgrade => text(
            "the WebSocket key is missing or malformed",
            "The peer is no WebSocket client, or something on the way rewrote its headers.",
            "look at what stands between agent and hub",
        ),
        UpgradeCode::UnsupportedVersion => text(
            "`Sec-WebSocket-Version` is not 13",
            "The peer is no WebSocket client of today.",
            "look at what stands between agent and hub",
        ),
        UpgradeCode::UnsupportedSubprotocol => text(
            "the agent speaks none of our protocols",
            "It does not offer the subprotocol that this hub serves; it may be far too new, or no agent of ours.",
            "compare the versions of agent and hub",
        ),
        UpgradeCode::MethodNotAllowed => text(
            "the request has another method than GET",
            "Whoever asks is no agent.",
            "nothing",
        ),
        UpgradeCode::UpgradeRequired => text(
            "the request does not ask for a WebSocket",
            "A browser or a probe asks for the tunnel's path, or a proxy on the way takes the upgrade out.",
            "let the proxy pass `Connection` and `Upgrade`; let probes ask for `/healthz`",
        ),
    }
}
