//! Codes of the wire: why a flow was reset and why a tunnel ended.

use nowconnect_protocol::{CloseCode, ResetClass, ResetCode};

use super::{Entry, Group, Line, Text, text, yes_or_no};
use crate::telemetry::events;

static RESETS: Group = Group {
    heading: "Why a flow was reset",
    place: "As the end of a flow",
    intro: "*Retried* means that the target can have seen nothing, so the hub tries another agent that offers the\n\
            connector before it gives up.",
    seen_by: "operators of hub and agent, and plugins at `close`; the client only sees its connection end",
    property: Some("retried"),
    metrics: &["nowconnect_flow_ends_total{cause=\"CODE\"}"],
    lines: &[Line(events::CONNECTION_CLOSED, "cause")],
};

static CLOSES: Group = Group {
    heading: "Why a tunnel ended",
    place: "As the end of a tunnel",
    intro: "*Again* says whether the agent dials again by itself.",
    seen_by: "operators of hub and agent: both ends log it; before an agent is let in as `agent_refused`, later as `agent_disconnected`",
    property: Some("again"),
    metrics: &[
        "nowconnect_handshakes_total{result=\"CODE\"}",
        "nowconnect_tunnel_reconnects_total{reason=\"CODE\"}",
    ],
    lines: &[
        Line(events::AGENT_REFUSED, "code"),
        Line(events::AGENT_DISCONNECTED, "reason"),
    ],
};

pub(super) fn entries() -> Vec<Entry> {
    let resets = ResetCode::ALL.iter().map(|code| {
        let retried = yes_or_no(code.class() == ResetClass::NotStarted);
        Entry::new(&RESETS, code.as_str(), reset(*code)).with(retried)
    });
    let closes = CloseCode::ALL.iter().map(|code| {
        Entry::new(&CLOSES, code.as_str(), close(*code)).with(yes_or_no(code.is_retryable()))
    });
    resets.chain(closes).collect()
}

fn reset(code: ResetCode) -> Text {
    match code {
        ResetCode::ConnectFailed => text(
            "the target refused the connection or could not be reached",
            "Nothing listens at the target's address, a route is missing, or its name has no address where the agent runs.",
            "is the service up? `nowconnect-agent diagnose` dials each target",
        ),
        ResetCode::ConnectTimeout => text(
            "the target did not answer within `connect_timeout_ms`",
            "Packets are dropped on the way from the agent to the target, or the target's queue of new connections is full.",
            "look for a firewall between agent and target, and at the target's load",
        ),
        ResetCode::TargetTlsFailed => text(
            "TLS from the agent to the target failed",
            "The target's certificate is not signed by an authority that the agent trusts, is for another name, has ended, or the target speaks no TLS on that port.",
            "check `tls.ca_bundle` and `tls.server_name` of the target",
        ),
        ResetCode::UnknownConnector => text(
            "the agent has no such connector",
            "The agent's file changed after it announced the connector, or another name is meant.",
            "add it under `targets`, or correct the listener's `connector`",
        ),
        ResetCode::ConnectorDisabled => text(
            "the agent has the connector and is told not to serve it now",
            "The agent's operator took the connector out of service.",
            "an operator's choice: ask the agent's operator",
        ),
        ResetCode::AgentBusy => text(
            "the agent carries as many flows as it may",
            "More clients are connected at once than `max_inflight_cids` of the agent allows, or the hub's tunnel to it has no room.",
            "raise `max_inflight_cids` or add an agent",
        ),
        ResetCode::Draining => text(
            "agent or hub is about to leave",
            "It was told to stop and takes nothing new while it finishes what runs.",
            "nothing: another one takes over",
        ),
        ResetCode::UnsupportedKind => text(
            "the kind of flow is not served by that version",
            "The hub is newer than the agent and asked for something that the agent does not know.",
            "upgrade the agent",
        ),
        ResetCode::NotOwner => text(
            "the hub that was asked does not hold the agent",
            "The agent has moved to another hub, and the one that holds the client had not heard of it yet.",
            "nothing: the registry is read again and the flow is tried where the agent is",
        ),
        ResetCode::MeshUnavailable => text(
            "the hub that holds the agent cannot be reached, or its link takes no more now",
            "The link between the two hubs is down, is being made anew, or has `send_queue_depth` frames waiting.",
            "look at the mesh's links: their state, their errors and their queues",
        ),
        ResetCode::WsBroken => text(
            "the tunnel broke and the flow could not be resumed",
            "The connection between agent and hub was lost, and no new tunnel came within the grace time.",
            "look at the network between agent and hub; `tunnel.resume_grace_ms` says how long it may be away",
        ),
        ResetCode::QueueOverflow => text(
            "the far end sent more than its window allowed",
            "It does not keep to flow control.",
            "a faulty or hostile peer: find its version, and report it where it is ours",
        )
        .counted(&["nowconnect_queue_overflow_total"]),
        ResetCode::Idle => text(
            "no byte in either direction for `idle_timeout_ms`",
            "The protocol is silent for longer than that, or both ends forgot the connection.",
            "override it on the connector where silence is normal",
        ),
        ResetCode::Stalled => text(
            "a reader took nothing of what waited for it for `stall_timeout_ms`",
            "The client or the target does not read, but did not close either.",
            "the client or the target hangs: look at both",
        ),
        ResetCode::TargetReset => text(
            "the target broke its connection",
            "The service crashed, was restarted, or refused what the client sent.",
            "see the target's own log",
        ),
        ResetCode::ClientReset => text(
            "the client broke its connection",
            "It was killed, gave up waiting, or closed without reading what was on its way.",
            "see the client",
        ),
        ResetCode::ScopeLost => text(
            "the agent lost the right to the connector",
            "Its renewed token names fewer connectors, or policies no longer let it offer this one.",
            "compare the new token's connectors and the policies with what the agent offers",
        )
        .counted(&["nowconnect_recheck_lost_connectors_total"]),
        ResetCode::PolicyDenied => text(
            "a change of policies or plugins forbids the flow",
            "A new generation came into force and running flows are re-checked.",
            "intended, or roll the change back",
        )
        .counted(&["nowconnect_recheck_closed_flows_total"])
        .logged(&[Line(events::RECHECK_CLOSED, "")]),
        ResetCode::Revoked => text(
            "the agent's credential was revoked",
            "It is on the revocation list.",
            "intended; `nowconnect agent revoked` shows the list",
        )
        .counted(&["nowconnect_revocations_total"]),
        ResetCode::TokenExpired => text(
            "the agent's token ran out and was not renewed",
            "The agent got no fresh token from its issuer in time, and `security.on_expiry` closes.",
            "look at the issuer and at the agent's log",
        ),
        ResetCode::LimitBytes => text(
            "the flow carried as many bytes as a plugin allows",
            "A plugin let the client in with a limit on bytes.",
            "see the plugin's configuration",
        ),
        ResetCode::LimitTime => text(
            "the flow lasted as long as a plugin allows",
            "A plugin let the client in with a limit on time.",
            "see the plugin's configuration",
        ),
        ResetCode::ResumeLost => text(
            "after a break the far end no longer knew the flow",
            "It was away longer than `tunnel.resume_grace_ms`, or its process was restarted.",
            "raise `tunnel.resume_grace_ms` where breaks last longer; a restart cannot be resumed",
        ),
        ResetCode::UnknownFlow => text(
            "the far end named a flow that this end does not have",
            "The two ends disagree about which flows there are.",
            "a fault: report it with the log of both ends",
        ),
        ResetCode::HubShutdown => text(
            "the hub ended before the flow did",
            "The drain's time was over while the flow still ran.",
            "raise `tunnel.drain_timeout_ms`",
        ),
        ResetCode::AgentShutdown => text(
            "the agent ended before the flow did",
            "The agent was stopped, and the flow outlived the time that it waits.",
            "raise `shutdown_timeout_sec`",
        ),
        ResetCode::OperatorClosed => text(
            "an operator closed it",
            "`nowconnect flows close`, or the admin API.",
            "intended; the event `admin_action` says who",
        )
        .logged(&[Line(events::ADMIN_ACTION, "")]),
        ResetCode::ProtocolViolation => text(
            "the far end broke the protocol on this flow",
            "It sent data after its end, beyond a final offset, or the like.",
            "a faulty or hostile peer: find its version, and report it where it is ours",
        ),
        ResetCode::Internal => text(
            "a fault of the end that sent the reset",
            "Something failed there that should not.",
            "report it with the log around it",
        ),
    }
}

fn close(code: CloseCode) -> Text {
    match code {
        CloseCode::Shutdown => text(
            "the far end is shutting down",
            "Its process was told to stop.",
            "nothing",
        ),
        CloseCode::DrainDone => text(
            "the drain that was asked for is done",
            "The hub asked the agent to go elsewhere, and nothing is left on this tunnel.",
            "nothing",
        ),
        CloseCode::Replaced => text(
            "a newer tunnel of the same agent took over",
            "The agent dialled again before the hub had noticed that the old tunnel was dead.",
            "nothing after a break; otherwise two agents share an identity",
        )
        .counted(&["nowconnect_duplicate_agents_total"]),
        CloseCode::AgentIdMismatch => text(
            "HELLO names another agent than the token proves",
            "`agent_id` in the agent's file is not the one in its token, or its tenant is another.",
            "make `agent_id` and the token's claim equal",
        ),
        CloseCode::AgentIdInUse => text(
            "another live instance has this identity",
            "Two processes run with the same identity, and `security.duplicate_agent` refuses the second.",
            "stop it, or give this one its own",
        )
        .counted(&["nowconnect_duplicate_agents_total"]),
        CloseCode::Denied => text(
            "policies or plugins do not let the agent join",
            "No policy permits `hello` for it, one forbids it, or a plugin said no.",
            "the hub's log names the policy; `nowconnect policy explain` shows it",
        )
        .counted(&["nowconnect_policy_decisions_total{action=\"hello\"}"]),
        CloseCode::TokenExpired => text(
            "the token ran out and was not renewed",
            "The agent got no fresh token from its issuer in time.",
            "a fresh token: look at the issuer and at the agent's log",
        ),
        CloseCode::Revoked => text(
            "the credential was revoked",
            "It is on the revocation list.",
            "a new credential, if that was a mistake",
        )
        .counted(&["nowconnect_revocations_total"]),
        CloseCode::VersionUnsupported => text(
            "the two ends share no protocol version",
            "One of them is much older than the other.",
            "upgrade the older one",
        ),
        CloseCode::TransportUnsupported => text(
            "the agent names its transports in HELLO, and `wss` is not among them",
            "The agent is of a release that speaks transports which this hub does not serve, and was told to use only those.",
            "upgrade the hub, or let the agent use `wss`; candidates of `POST /tunnels/create` say what a hub speaks",
        ),
        CloseCode::HelloTimeout => text(
            "HELLO did not come in time",
            "A very slow network, or no agent of ours.",
            "see who dials: the log names the address",
        ),
        CloseCode::PingTimeout => text(
            "the far end did not answer a ping in time",
            "The network drops packets without a word, or the far end hangs.",
            "look at the network, and at idle timeouts of what stands between",
        ),
        CloseCode::ProtocolViolation => text(
            "the far end broke the protocol",
            "It sent a frame that cannot be read, or one that must not come now.",
            "a faulty or hostile peer: find its version, and report it where it is ours",
        ),
        CloseCode::ConnectorLimit => text(
            "more connectors were announced than are allowed",
            "The agent offers more than `limits.max_connectors_per_agent`.",
            "raise `limits.max_connectors_per_agent`, or name the needed ones in `tunnel.exported_connectors`",
        ),
        CloseCode::Overloaded => text(
            "the hub cannot take another agent now",
            "`limits.max_agents` is reached, or too many decisions wait.",
            "raise `limits.max_agents`, or use another hub",
        ),
        CloseCode::Unauthenticated => text(
            "the identity that opened the tunnel no longer holds",
            "The issuer's keys or the rules for tokens changed since.",
            "a fresh token",
        ),
        CloseCode::EpochLost => text(
            "another hub holds a newer claim on the agent",
            "The agent moved to another hub of the cluster.",
            "nothing",
        ),
        CloseCode::Internal => text(
            "a fault of the end that sent it",
            "Something failed there that should not.",
            "report it with the log around it",
        ),
        CloseCode::NoConnectors => text(
            "none of the announced connectors was accepted",
            "Each was refused by policies, plugins or the token's scopes.",
            "HELLO_ACK in the agent's log says why for each",
        ),
        CloseCode::TransportLost => text(
            "the connection ended without a word",
            "A process was killed, or something on the way cut the connection.",
            "look at the network, and whether the far end runs",
        ),
    }
}
