//! The names of log events: the value of the field `event`.
//!
//! Names are part of the product's contract; alerts and parsers stand on them. Five come from the
//! product's documents, one of them with a space in it. Write
//! `info!(event = events::LISTENER_STARTED, listener = %name, "…")`.

macro_rules! events {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)*) => {
        $($(#[$doc])* pub const $constant: &str = $name;)*

        /// Every name; a record whose values had to be dropped keeps its event only if it is
        /// one of these.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

events! {
    /// A listener is bound.
    LISTENER_STARTED = "listener_started";
    /// A listener is closed.
    LISTENER_STOPPED = "listener_stopped";
    /// An agent's HELLO was accepted: `agent_id`, `connectors`.
    AGENT_CONNECTED = "agent_connected";
    /// An agent's tunnel ended: `agent_id`, `reason`.
    AGENT_DISCONNECTED = "agent_disconnected";
    /// An agent was refused.
    AGENT_REFUSED = "agent_refused";
    /// A flow is open: `cid`, `agent_id`, `connector`.
    CONNECTION_OPEN = "connection open";
    /// A flow ended: `cid`, `cause`, sizes and timings.
    CONNECTION_CLOSED = "connection closed";
    /// A client got no flow.
    CONNECTION_DENIED = "connection denied";
    /// A request of a viewer has come to its end: `request_id`, `endpoint`, `status`, `code`.
    HTTP_REQUEST = "http_request";
    /// The control API gave out a name: `endpoint`, `tenant`, `host`, `client`, `peer`.
    ENDPOINT_PUBLISHED = "endpoint_published";
    /// A published name was taken back: `endpoint`, `tenant`, `host`.
    ENDPOINT_DELETED = "endpoint_deleted";
    /// The control API refused a call: `code`, `peer`.
    CONTROL_REFUSED = "control_refused";
    /// A tenant got a quota of its own, or has what everybody has.
    QUOTA_CHANGED = "quota_changed";
    /// The public port of a tunnel cannot be bound.
    TUNNEL_PORT_FAILED = "tunnel_port_failed";
    /// The control plane's state file could not be read or written: `error`.
    CONTROL_STATE_FAILED = "control_state_failed";
    /// This hub is in its cluster's registry: `hub`, `healthy`.
    CLUSTER_JOINED = "cluster_joined";
    /// This hub has left its cluster's registry: `hub`.
    CLUSTER_LEFT = "cluster_left";
    /// This hub takes part in its cluster in another way: `before`, `mode`.
    CLUSTER_MODE = "cluster_mode";
    /// The registry does not answer; agents are served at this hub alone: `reason`.
    REGISTRY_AWAY = "registry_away";
    /// The registry answers again.
    REGISTRY_BACK = "registry_back";
    /// A link to another hub stands: `peer`, `dialled`, `version`, `proven`, `replaces`.
    MESH_LINK_ESTABLISHED = "mesh_link_established";
    /// A link to another hub ended: `peer`, `code`.
    MESH_LINK_ENDED = "mesh_link_ended";
    /// Another hub could not be linked: `url`, `code`, `failures`, `pause_ms`.
    MESH_DIAL_FAILED = "mesh_dial_failed";
    /// Somebody at the port of the mesh did not prove to be a hub: `source`, `code`.
    MESH_REFUSED = "mesh_refused";
    /// A hub's certificate is no longer vouched for: `peer`.
    MESH_TRUST_LOST = "mesh_trust_lost";
    /// A claim is lost: `agent_id`, `epoch`, `why`, `mode`. In mode `active` its session ends.
    EPOCH_LOST = "epoch_lost";
    /// An agent that another hub has comes here: `agent_id`, `owner`, `peer`. Again and again it is
    /// one identity used twice.
    AGENT_MOVED = "agent_moved";
    /// A signed upgrade was compared with those of this hub alone, because the registry could not be
    /// asked: `error`.
    REPLAY_UNCHECKED = "replay_unchecked";
    /// A target does not answer: `connector`, `agent_id`, `reason`.
    TARGET_DOWN = "target_down";
    /// It answers again: `connector`, `agent_id`.
    TARGET_UP = "target_up";
    /// A request under way ended because what proved its viewer had ended: `request_id`.
    VIEWER_EXPIRED = "viewer_expired";
    /// No agent offers the connector.
    NO_AGENT_FOR_CONNECTOR = "no_agent_for_connector";
    /// The client's address is not allowed.
    CIDR_BLOCKED = "cidr_blocked";
    /// A PROXY header from an address that is not trusted, or a broken one.
    PROXY_HEADER_REFUSED = "proxy_header_refused";
    /// Decisions could not be written to the decision log: `output`, `error`.
    DECISION_LOG_FAILED = "decision_log_failed";
    /// The decision log is written again: `output`, `failed_ms`.
    DECISION_LOG_WORKS = "decision_log_works";
    /// One decision, see the decision record.
    DECISION = "decision";
    /// A token was refused.
    AUTH_FAILED = "auth_failed";
    /// A handshake did not complete or was shed.
    HANDSHAKE_REFUSED = "handshake_refused";
    /// Something was refused or ended by the revocation list.
    REVOKED = "revoked";
    /// A new generation, configuration or certificate is in force.
    RELOADED = "reloaded";
    /// A reload was refused; the last good form stays.
    RELOAD_REFUSED = "reload_refused";
    /// An account was opened at the certificate authority: `directory`.
    ACME_ACCOUNT_OPENED = "acme_account_opened";
    /// A name has its first certificate: `name`, `not_after`.
    CERTIFICATE_ISSUED = "certificate_issued";
    /// A name has another certificate in the place of its last: `name`, `not_after`.
    CERTIFICATE_RENEWED = "certificate_renewed";
    /// A certificate was not issued, or not kept: `name`, `code`.
    CERTIFICATE_FAILED = "certificate_failed";
    /// A re-check ended running flows.
    RECHECK_CLOSED = "recheck_closed";
    /// The external decision point did not answer as it must: `error`, `failures` since the last
    /// line.
    PDP_FAILED = "pdp_failed";
    /// The external decision point is left alone for a while, or answers again: `state`.
    PDP_BREAKER = "pdp_breaker";
    /// A re-check refused an agent, or some of its connectors.
    AGENT_RECHECKED = "agent_rechecked";
    /// Nobody who is trusted vouches for the bundle in force, so nothing is permitted:
    /// `revision`, `generation`.
    BUNDLE_WITHHELD = "bundle_withheld";
    /// A policy bundle has come: `revision`, `origin`.
    BUNDLE_DELIVERED = "bundle_delivered";
    /// It is verified, compiled and tested, and compared with what is in force: `revision`.
    BUNDLE_STAGED = "bundle_staged";
    /// It is in force: `revision`, `generation`, `signers`.
    BUNDLE_ACTIVE = "bundle_active";
    /// It is refused: `revision`, `code`.
    BUNDLE_REJECTED = "bundle_rejected";
    /// The source, the state or the time of bundles is not as it should be: `code`.
    BUNDLE_TROUBLE = "bundle_trouble";
    /// A plugin is in quarantine, or out of it.
    PLUGIN_QUARANTINE = "plugin_quarantine";
    /// A line that a plugin wrote.
    PLUGIN_LOG = "plugin_log";
    /// A plugin runs that nobody vouched for: unsigned and not pinned.
    PLUGIN_UNSIGNED = "plugin_unsigned";
    /// A plugin is signed as an earlier version than the one that it takes the place of.
    PLUGIN_DOWNGRADED = "plugin_downgraded";
    /// Keys of an issuer could not be refreshed; those at hand stay in use.
    JWKS_REFRESH_FAILED = "jwks_refresh_failed";
    /// A key that a token names could not be fetched.
    JWKS_FETCH_FAILED = "jwks_fetch_failed";
    /// A tunnel's WebSocket is up; its HELLO comes next.
    TUNNEL_UPGRADED = "tunnel_upgraded";
    /// A watched file changed to something that is not taken.
    WATCH_REFUSED = "watch_refused";
    /// Files cannot be watched; they are looked at in intervals.
    WATCH_UNAVAILABLE = "watch_unavailable";
    /// An operator changed something.
    ADMIN_ACTION = "admin_action";
    /// An admin call was refused.
    ADMIN_REFUSED = "admin_refused";
    /// The log level changed.
    LOG_LEVEL_CHANGED = "log_level_changed";
    /// Records are missing here: `dropped`, by reason.
    LOG_GAP = "log_gap";
    /// Mask plugins gave no valid answer.
    LOG_MASK_FAILED = "log_mask_failed";
    /// Spans could not be exported.
    TRACE_EXPORT_FAILED = "trace_export_failed";
    /// A thread panicked.
    PANIC = "panic";
    /// The hub serves.
    HUB_STARTED = "hub_started";
    /// The hub takes nothing new and finishes what runs.
    DRAINING = "draining";
    /// The drain's time is over; what was left is cut.
    DRAIN_DEADLINE = "drain_deadline";
    /// The hub ends.
    HUB_STOPPED = "hub_stopped";
}

/// Target of records about security: written even when the queue is full. Use it as
/// `warn!(target: events::SECURITY, event = events::AUTH_FAILED, …)`.
pub const SECURITY: &str = "nowconnect::security";

/// Target of a plugin's own lines: they get the floor and never go to the mask plugins, which
/// would otherwise be fed with what they write.
pub const PLUGIN: &str = "nowconnect::plugin";

/// Target of spans that go to the trace collector.
pub const TRACE: &str = "nowconnect::trace";
