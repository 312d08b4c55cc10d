//! Codes of the hub's own outside: the admin API, `/readyz` and the command line.

use super::{Entry, Group, Line, Text, text};
use crate::admin::problem::ProblemCode;
use crate::cli::Exit;
use crate::health::ReasonCode;
use crate::telemetry::events;

static PROBLEMS: Group = Group {
    heading: "Why the admin API or the control API refused a call",
    place: "As an answer of the admin or control API",
    intro: "`application/problem+json` of the [admin API](admin-api.md) and of the [control API](control-plane.md);\n\
            what is asked about bundles has the codes above.",
    seen_by: "whoever called, and the commands of `nowconnect` and `nowconnect-agent` that do",
    property: Some("status"),
    metrics: &[],
    lines: &[],
};

static READINESS: Group = Group {
    heading: "Why a hub is degraded",
    place: "As a reason of `/readyz`",
    intro: "`reasons[]` of `/readyz` and of `nowconnect status`. The hub serves, and something is impaired.",
    seen_by: "load balancers and monitors that read `/readyz`, and the hub's operator with what it concerns",
    property: None,
    metrics: &[],
    lines: &[],
};

static EXITS: Group = Group {
    heading: "Exit codes of the programs",
    place: "As an exit code",
    intro: "Of `nowconnect` and `nowconnect-agent`; 0 is done, and for a check that nothing was found.",
    seen_by: "whoever runs the program: a person, a script, systemd",
    property: Some("number"),
    metrics: &[],
    lines: &[],
};

pub(super) fn entries() -> Vec<Entry> {
    let problems = ProblemCode::ALL.into_iter().map(|code| {
        Entry::new(&PROBLEMS, code.as_str(), problem(code)).with(code.status().as_str())
    });
    let reasons = ReasonCode::ALL
        .into_iter()
        .map(|code| Entry::new(&READINESS, code.as_str(), reason(code)));
    let exits = Exit::ALL.into_iter().filter_map(|exit| {
        let (code, text) = ended(exit)?;
        Some(Entry::new(&EXITS, code, text).with(exit.number().to_string()))
    });
    problems.chain(reasons).chain(exits).collect()
}

fn problem(code: ProblemCode) -> Text {
    match code {
        ProblemCode::InvalidRequest => text(
            "the request is malformed or does not make sense",
            "A field is missing, of another kind, or out of its bounds.",
            "`detail` says which",
        ),
        ProblemCode::Unauthenticated => text(
            "no token, or a wrong one",
            "The admin API's TCP port wants the token of `admin.token_file` or a client certificate, the control API a management token that counts; or a tunnel's recreate token has expired or was withdrawn.",
            "send `Authorization: Bearer …`, or use the Unix socket; ask for a new token",
        )
        .logged(&[Line(events::ADMIN_REFUSED, "code")]),
        ProblemCode::Denied => text(
            "policy denies it",
            "No policy permits that caller that action, or one forbids it.",
            "`detail` names the decision; `nowconnect policy explain` shows it",
        )
        .logged(&[Line(events::ADMIN_REFUSED, ""), Line(events::DECISION, "")]),
        ProblemCode::ForeignOrigin => text(
            "`Host` or `Origin` are not those of the admin or control API",
            "A web page asks, or the port is reached by a name that it does not know.",
            "name the host in `admin.allowed_hosts`, or for the control API in `control.public_url` or `control.allowed_hosts`",
        )
        .logged(&[
            Line(events::ADMIN_REFUSED, "code"),
            Line(events::CONTROL_REFUSED, "code"),
        ]),
        ProblemCode::NotFound => text(
            "no such route, flow, agent, tunnel, name or decision",
            "It has ended or was forgotten, or its name is another; outside the default tenant a name has the tenant in front.",
            "look at what there is with `nowconnect status`",
        ),
        ProblemCode::MethodNotAllowed => text(
            "the route has another method",
            "GET was sent where POST is wanted, or the other way round.",
            "the page of the API lists methods and paths",
        ),
        ProblemCode::TooLarge => text(
            "the body is too large",
            "It has more than 64 KiB, at the control API 16 KiB, or as a bundle more than `policy.bundle.max_bytes`.",
            "send less",
        ),
        ProblemCode::NameTaken => text(
            "somebody else has the name",
            "Another tunnel publishes it, another tenant reserved it, a route of the hub's configuration answers to it, or the operator keeps it for himself (`kept_names`).",
            "choose another name, or leave it out for a random one",
        ),
        ProblemCode::IdempotencyConflict => text(
            "the idempotency key stands for another request",
            "The same `Idempotency-Key` came with another body, or while the first request with it was being done.",
            "use a new key for each request, and wait for its answer before sending it again",
        ),
        ProblemCode::QuotaExceeded => text(
            "the tenant has as much as it may have",
            "`max_endpoints_per_tenant`, `max_names_per_tenant` or the tenant's own quota is reached; or a quota was to be set that is larger than what the hub has for all tenants.",
            "delete what is not needed, or raise the quota; `max_endpoints` and `max_names` are for all tenants",
        ),
        ProblemCode::RateLimited => text(
            "too many requests from one address",
            "More than `rate_per_source` of `control` a second; behind a proxy that `control.trusted_proxies` does not name, all callers are one.",
            "ask less often; name the proxy in front, or raise the rate where many callers share an address",
        ),
        ProblemCode::Unavailable => text(
            "it cannot be done now",
            "The hub starts or drains, or what it needs is not there.",
            "try again; `detail` says what is missing",
        ),
        ProblemCode::Timeout => text(
            "no answer within 60 s, at the control API 30 s",
            "The hub is very busy, or what it asks does not answer.",
            "try again, and look at the hub's load",
        ),
    }
}

fn reason(code: ReasonCode) -> Text {
    match code {
        ReasonCode::MeshMissing => text(
            "high availability is active and a peer hub cannot be reached",
            "That hub is away, or the network between the hubs is cut.",
            "look at that hub and the way to it",
        ),
        ReasonCode::RegistryUnhealthy => text(
            "high availability is active and the registry does not answer",
            "Redis is away or slow.",
            "look at Redis; local service goes on meanwhile",
        ),
        ReasonCode::PluginQuarantined => text(
            "a plugin is not called because it failed too often",
            "It trapped, ran out of time or memory, or answered what it must not; its failure mode holds meanwhile.",
            "`nowconnect_plugin_calls_total` says how it failed; roll it back, or report it to its vendor",
        )
        .counted(&["nowconnect_plugin_quarantined"])
        .logged(&[Line(events::PLUGIN_QUARANTINE, "")]),
        ReasonCode::GenerationSkew => text(
            "hubs of the cluster serve different generations",
            "One of them did not take over the newest policies or plugins.",
            "compare `nowconnect policy status` of the hubs",
        )
        .counted(&["nowconnect_generation"]),
        ReasonCode::BundleStale => text(
            "the newest policies or plugins were refused, or the bundle is older than allowed",
            "What is on disk has a mistake; the last good form serves.",
            "`nowconnect reload` prints every error",
        )
        .counted(&["nowconnect_policy_last_reload_failed", "nowconnect_policy_bundle_age_seconds"])
        .logged(&[Line(events::RELOAD_REFUSED, "")]),
        ReasonCode::PolicyBundle => text(
            "something is wrong with the source, the state or the time of policy bundles",
            "The source is away, the disk is full, the state was damaged, or a clock is wrong.",
            "`nowconnect policy status` says what, with a code of its own",
        )
        .counted(&["nowconnect_policy_bundle_problems"])
        .logged(&[Line(events::BUNDLE_TROUBLE, "")]),
        ReasonCode::KeysStale => text(
            "token keys could not be refreshed; cached ones serve for a stated time",
            "The issuer does not answer, or not with keys.",
            "look at the issuer; after `security.jwks_stale_ms` no agent gets in",
        )
        .logged(&[Line(events::JWKS_REFRESH_FAILED, "")]),
        ReasonCode::PdpUnavailable => text(
            "the external decision point does not answer",
            "It is away, slow, or answers what it must not.",
            "look at the decision point",
        )
        .counted(&["nowconnect_pdp_breaker_open", "nowconnect_pdp_errors_total"])
        .logged(&[Line(events::PDP_BREAKER, "")]),
        ReasonCode::ListenerDown => text(
            "a listener of the configuration is not bound",
            "Another program has the port, or the address is not one of this machine's.",
            "free the port, or correct `bind`; the hub's log says why",
        ),
        ReasonCode::IngressStale => text(
            "a file of the HTTP ingress could not be taken over",
            "A file of users, a key or a certificate has a mistake or cannot be read; what was read before stays in force, and where nothing was, the routes of the set are answered 503.",
            "the log line and `nowconnect status` name the file and the line; the file is read again when it changes",
        )
        .counted(&["nowconnect_http_stale_files"])
        .logged(&[Line(events::RELOAD_REFUSED, "")]),
        ReasonCode::StateFailed => text(
            "the state file of the control plane, or of issued certificates, fails",
            "The disk is full or broken, or an entry of the file is damaged: no token and no name is given out until it is well, and tunnels whose tokens end meanwhile end with them; no certificate is renewed.",
            "make room, or look at the disk; the hub opens the file anew every ten seconds by itself. A damaged file is replaced by `nowconnect state restore`",
        )
        .counted(&[
            "nowconnect_control_state_failed",
            "nowconnect_control_state_failures_total",
        ])
        .logged(&[Line(events::CONTROL_STATE_FAILED, "")]),
        ReasonCode::CertificateEnding => text(
            "a certificate ends so soon that its renewal should have happened",
            "Its orders fail, or nobody replaced its file: a sixth of its life is left, or a week where that is less.",
            "`nowconnect certificates list` says why an order failed, and when it is tried again; replace the file of one from a file",
        )
        .counted(&["nowconnect_certificates_ending", "nowconnect_http_certificates_failing"])
        .logged(&[Line(events::CERTIFICATE_FAILED, "")]),
    }
}

/// The name and text of an exit code that is a failure.
fn ended(exit: Exit) -> Option<(&'static str, Text)> {
    match exit {
        Exit::Success => None,
        Exit::Failure => Some((
            "exit_1",
            text(
                "it ran and failed, or a check found something",
                "What it was asked for did not come about, such as a hub that does not answer or a test case that fails.",
                "the last lines on stderr say what",
            ),
        )),
        Exit::Usage => Some((
            "exit_64",
            text(
                "what it was given is wrong; nothing was started",
                "An option that does not exist, a key in the configuration that is wrong or of another kind.",
                "the message names the option or the key, its value and what it may be; `nowconnect config check` lists every mistake",
            ),
        )),
        Exit::Unavailable => Some((
            "exit_69",
            text(
                "a program that it needs is not installed",
                "The solver or the prover, or the toolchain of a plugin's language.",
                "the message says which, and how to get it",
            ),
        )),
    }
}
