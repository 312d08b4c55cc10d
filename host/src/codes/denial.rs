//! Codes of decisions: why an agent, a connector or a client was refused.

use super::{Entry, Group, Line, Text, text};
use crate::telemetry::decisions::Why;
use crate::telemetry::events;

static DENIALS: Group = Group {
    heading: "Why a client got no flow",
    place: "As the refusal of a client, an agent or a connector",
    intro: "In the log, in the decision record, and for clients in `nowconnect_denied_opens_total{code}`. An agent finds\n\
            the codes of its refused connectors in HELLO_ACK.\n\
            \n\
            Beside these, a policy that forbids has the code of its `@error`, and a plugin that denies has codes of\n\
            its own: its README says what they mean. Those of the shipped policies and plugins stand here too.",
    seen_by: "the hub's operator, in the log and with `nowconnect policy explain`; an agent for itself and its connectors; a client of a raw TCP listener is told nothing",
    property: None,
    metrics: &[
        "nowconnect_denied_opens_total{code=\"CODE\"}",
        "nowconnect_policy_decisions_total{result=\"deny\"}",
    ],
    lines: &[
        Line(events::CONNECTION_DENIED, "code"),
        Line(events::DECISION, "code"),
    ],
};

static WHY: Group = Group {
    heading: "Who decided",
    place: "As the kind of a decision",
    intro: "`why` of a decision record and `kind` of `nowconnect_policy_decisions_total`: where the answer came from,\n\
            beside the code, which says what it was.",
    seen_by: "the hub's operator, in decision records and metrics",
    property: Some("answer"),
    metrics: &["nowconnect_policy_decisions_total{kind=\"CODE\"}"],
    lines: &[Line(events::DECISION, "why")],
};

named! {
    /// Why the hub itself, or what it asks, denies something.
    DenialCode {
        CidrBlocked = "cidr_blocked";
        NoAgentForConnector = "no_agent_for_connector";
        RateLimited = "rate_limited";
        ConnectionLimit = "connection_limit";
        DecisionTimeout = "decision_timeout";
        PoliciesChanging = "policies_changing";
        Overloaded = "overloaded";
        TokenExpired = "token_expired";
        Revoked = "revoked";
        AgentIdMismatch = "agent_id_mismatch";
        TunnelOfAnother = "tunnel_of_another";
        NotPermitted = "not_permitted";
        PolicyError = "policy_error";
        PluginFailed = "plugin_failed";
        PluginRefused = "plugin_refused";
        PdpDenied = "pdp_denied";
        PdpUnavailable = "pdp_unavailable";
        PdpObligation = "pdp_obligation";
        Unnamed = "refused";
    }
}

pub(super) fn entries() -> Vec<Entry> {
    let of_hub = DenialCode::ALL
        .iter()
        .map(|code| Entry::new(&DENIALS, code.as_str(), denial(*code)));
    let shipped = SHIPPED
        .iter()
        .map(|(code, text)| Entry::new(&DENIALS, code, *text));
    let why = Why::ALL.into_iter().map(|why| {
        let answer = if why == Why::Permitted {
            "allow"
        } else {
            "deny"
        };
        Entry::new(&WHY, why.as_str(), decided_by(why)).with(answer)
    });
    of_hub.chain(shipped).chain(why).collect()
}

fn denial(code: DenialCode) -> Text {
    match code {
        DenialCode::CidrBlocked => text(
            "the client's address is not in `allow_cidrs`",
            "The listener's or `security.allow_cidrs` leaves it out; behind a load balancer it may be the balancer's address that is seen.",
            "add the network; behind a load balancer set `proxy_protocol` of the listener",
        )
        .logged(&[Line(events::CIDR_BLOCKED, "")]),
        DenialCode::NoAgentForConnector => text(
            "no agent that is connected offers the connector, or none of them took the flow",
            "The agent is away, offers another name, was refused the connector, or the ones that offer it are full.",
            "`nowconnect status` shows who offers what; the agent's log says what it was refused",
        )
        .logged(&[Line(events::NO_AGENT_FOR_CONNECTOR, "")]),
        DenialCode::RateLimited => text(
            "a rate of the listener, the connector, the agent or a plugin was exceeded",
            "More clients come in a second than `rate` or `rate_per_source` allow, or than the plugin `rate-limit` does.",
            "find the client that comes so often, or raise the rate",
        ),
        DenialCode::ConnectionLimit => text(
            "the connector carries as many flows as it may",
            "Its `max_connections`, the listener's or `limits.max_conn_total` is reached.",
            "`nowconnect flows list` shows who holds them; raise the limit, or end what hangs",
        ),
        DenialCode::DecisionTimeout => text(
            "the decision took longer than it may",
            "Plugins together took longer than `plugins.pipeline_timeout_ms`.",
            "`nowconnect_plugin_call_seconds` shows the slow one",
        ),
        DenialCode::PoliciesChanging => text(
            "what the decision rests on changed again and again while it was made",
            "Policies, plugins or the external decision point were swapped four times in a row, each time before the answer was there; no decision mixes what was with what is.",
            "try again; look for what reloads so often in `nowconnect_reloads_total` and `nowconnect_policy_decided_again_total`",
        )
        .counted(&["nowconnect_policy_decided_again_total"]),
        DenialCode::Overloaded => text(
            "too many decisions were waiting",
            "Clients come faster than plugins and the external decision point answer.",
            "look at what is slow in `nowconnect_policy_decision_seconds`, or spread the clients over more hubs",
        ),
        DenialCode::TokenExpired => text(
            "the agent's token has expired",
            "The agent did not renew it in time. The hub says this itself, and so does the shipped policy `hello-token-live`.",
            "look at the issuer and at the agent's log",
        ),
        DenialCode::Revoked => text(
            "the agent's credential was revoked",
            "It is on the revocation list.",
            "intended; `nowconnect agent revoked` shows the list",
        )
        .counted(&["nowconnect_revocations_total"]),
        DenialCode::AgentIdMismatch => text(
            "HELLO names another agent or tenant than the token proves",
            "`agent_id` in the agent's file is not the one in its token, or its tenant is another.",
            "make `agent_id` and the token's claim equal",
        ),
        DenialCode::TunnelOfAnother => text(
            "the connector is a tunnel of the control plane, and the agent's token is not that tunnel's",
            "An agent offers a connector whose name is the id of a tunnel (`tun_…`). Only the agent that holds the tunnel's own token may: requests for its public name would reach another service.",
            "give the connector another name; a tunnel is had with `nowconnect-agent http`",
        ),
        DenialCode::NotPermitted => text(
            "no policy permits it",
            "Everything is forbidden until a policy permits it, and none that would fits.",
            "`nowconnect policy explain` shows the permits that came near, clause by clause",
        ),
        DenialCode::PolicyError => text(
            "a policy could not be evaluated",
            "It reads what is not there in this request, or adds beyond 64 bits; a decision with an error is a deny.",
            "mend the policy that the record names; `nowconnect policy test` with this request shows it",
        )
        .counted(&["nowconnect_policy_evaluation_errors_total"]),
        DenialCode::PluginFailed => text(
            "a plugin that is not `optional` failed, timed out or is in quarantine",
            "It trapped, used up its time or memory, or answered what it must not.",
            "the record says how; `nowconnect_plugin_calls_total` counts it by outcome",
        )
        .counted(&["nowconnect_plugin_calls_total", "nowconnect_plugin_quarantined"])
        .logged(&[Line(events::PLUGIN_QUARANTINE, "")]),
        DenialCode::PluginRefused => text(
            "a plugin does not let the agent offer the connector",
            "A plugin at `hello` left it out of what it accepts; the agent keeps its others.",
            "the record names the plugin; see its configuration",
        ),
        DenialCode::PdpDenied => text(
            "the external decision point does not allow it",
            "Its own rules say no.",
            "`reason_admin` of its answer is in the decision record",
        )
        .counted(&["nowconnect_pdp_deny_total"]),
        DenialCode::PdpUnavailable => text(
            "the external decision point did not give a well-formed answer in time",
            "It is away, slow, answers something else, or the hub leaves it alone for a while after too many failures.",
            "see the event `pdp_failed`, and whether the decision point runs",
        )
        .counted(&["nowconnect_pdp_errors_total", "nowconnect_pdp_breaker_open"])
        .logged(&[Line(events::PDP_FAILED, ""), Line(events::PDP_BREAKER, "")]),
        DenialCode::PdpObligation => text(
            "the external decision point allows it with an obligation that the hub does not know",
            "Its answer has a `context` with more than reasons; to ignore that could let in what it did not mean to.",
            "`pdp.ignore_context` names those that may be ignored",
        ),
        DenialCode::Unnamed => text(
            "a connector was refused, and there was no room to say why",
            "HELLO_ACK has a bounded length, and so many connectors were refused that not each has its code.",
            "the hub's decision log has the code of each; offer fewer connectors that are refused",
        ),
    }
}

/// Codes of the policies in `policies/` and the plugins in `plugins/` that the hub never says
/// itself.
const SHIPPED: [(&str, Text); 6] = [
    (
        "connector_not_in_scope",
        text(
            "the agent's token does not name the connector",
            "`security.require_connector_scopes` is set, and the shipped policy `announce-in-scope` holds agents to it.",
            "add the connector to the token's `connectors` claim, or leave it out of the agent's configuration",
        ),
    ),
    (
        "signal_missing",
        text(
            "an enricher failed, so nobody knows what it would have said",
            "The shipped policy `signals-complete` lets nobody in on half of the signals.",
            "see the plugin's metrics, or mark it `optional` if its signal may be missing",
        )
        .counted(&["nowconnect_plugin_calls_total"]),
    ),
    (
        "tenant_mismatch",
        text(
            "it would cross from one tenant to another",
            "An agent, endpoint or connector of one tenant was asked for by another; the shipped policies never allow that.",
            "correct the tenant of the listener, the endpoint or the token",
        ),
    ),
    (
        "agent_name",
        text(
            "the agent's id follows none of `agent_names`",
            "The shipped plugin `scope-guard` holds agents to naming rules.",
            "rename the agent, or add a pattern to the plugin's configuration",
        ),
    ),
    (
        "connector_name",
        text(
            "a connector has a name that its agent may not offer",
            "The shipped plugin `scope-guard` holds connectors to naming rules, and its `on_bad_connector` is `deny`.",
            "rename the connector, or add a pattern to the plugin's configuration",
        ),
    ),
    (
        "listener_connector",
        text(
            "this listener may not lead to this connector",
            "`listeners` of the shipped plugin `scope-guard` names others for it.",
            "correct the listener's `connector`, or the plugin's configuration",
        ),
    ),
];

fn decided_by(why: Why) -> Text {
    match why {
        Why::Permitted => text(
            "policies permit it and nobody denies",
            "At least one `permit` fits, no `forbid` does, and decision point and plugins agree.",
            "nothing",
        ),
        Why::Forbidden => text(
            "a policy forbids it",
            "A `forbid` fits; it wins over every `permit`.",
            "the record names the policy with its place and advice",
        ),
        Why::NotPermitted => text(
            "no policy permits it",
            "Everything is forbidden until a policy permits it.",
            "`nowconnect policy explain` shows the permits that came near, clause by clause",
        ),
        Why::Error => text(
            "a policy could not be evaluated, or a question not be put",
            "A decision with an error is a deny.",
            "the record's `errors` say which policy and why",
        )
        .counted(&["nowconnect_policy_evaluation_errors_total"]),
        Why::Plugin => text(
            "a plugin denied, or failed where it must not",
            "The record names the plugin.",
            "its code says what; for `plugin_failed` see the plugin's metrics",
        )
        .counted(&["nowconnect_plugin_calls_total"]),
        Why::Pdp => text(
            "the external decision point denied or did not answer",
            "It is asked after the policies and can only narrow.",
            "the record's `pdp` has its answer",
        )
        .counted(&["nowconnect_pdp_decisions_total"]),
        Why::Limit => text(
            "a limit on number or rate",
            "The hub, a listener or a connector takes no more now.",
            "the code says which limit",
        ),
        Why::Address => text(
            "an address rule of the configuration",
            "The client's address is not in `allow_cidrs`.",
            "add the network where it should be let in",
        ),
        Why::Identity => text(
            "the identity has expired or is revoked, or another was claimed",
            "This comes before the policies, so that no policy can leave it out.",
            "the code says which",
        ),
        Why::NoAgent => text(
            "no agent offers the connector, or none that does took the flow",
            "There was nobody to ask the policies about.",
            "`nowconnect status` shows who offers what",
        ),
    }
}
