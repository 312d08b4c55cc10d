//! The registry of codes: why a flow was reset and why a tunnel ended.

macro_rules! codes {
    (
        $(#[$doc:meta])* $name:ident {
            $( $(#[$vdoc:meta])* $variant:ident = $wire:literal, $text:literal, $extra:expr; )*
        } extra $extra_fn:ident -> $extra_ty:ty
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $( $(#[$vdoc])* $variant, )*
        }

        impl $name {
            /// Every code, in the order of its number on the wire.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// The number that stands for this code on the wire.
            #[must_use]
            pub const fn to_wire(self) -> u16 {
                match self { $( Self::$variant => $wire, )* }
            }

            /// The code that `wire` stands for, or none where this build does not know it.
            #[must_use]
            pub const fn from_wire(wire: u16) -> Option<Self> {
                match wire { $( $wire => Some(Self::$variant), )* _ => None }
            }

            /// The code's stable name, as logs, metrics and answers show it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }

            #[doc = concat!("The property of a code that [`Self::", stringify!($extra_fn), "`] names.")]
            #[must_use]
            pub const fn $extra_fn(self) -> $extra_ty {
                match self { $( Self::$variant => $extra, )* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// Whether the target can have seen anything of a flow that was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetClass {
    /// Nothing reached the target: the flow may be tried on another agent.
    NotStarted,
    /// Something may have reached it: a retry could do it twice.
    Started,
}

codes! {
    /// Why a flow was reset. Carried by RST.
    ResetCode {
        /// The target refused the connection or could not be reached.
        ConnectFailed = 1, "connect_failed", ResetClass::NotStarted;
        /// The target did not answer within the agent's connect timeout.
        ConnectTimeout = 2, "connect_timeout", ResetClass::NotStarted;
        /// TLS to the target failed: its certificate is not trusted, or it speaks none.
        TargetTlsFailed = 3, "target_tls_failed", ResetClass::NotStarted;
        /// The agent has no such connector.
        UnknownConnector = 4, "unknown_connector", ResetClass::NotStarted;
        /// The agent has the connector and is told not to serve it now.
        ConnectorDisabled = 5, "connector_disabled", ResetClass::NotStarted;
        /// The agent carries as many flows as it may.
        AgentBusy = 6, "agent_busy", ResetClass::NotStarted;
        /// The agent or hub is about to leave and takes no new flows.
        Draining = 7, "draining", ResetClass::NotStarted;
        /// The kind of flow asked for is not served.
        UnsupportedKind = 8, "unsupported_kind", ResetClass::NotStarted;
        /// The hub that was asked does not hold the agent: another claim is higher.
        NotOwner = 9, "not_owner", ResetClass::NotStarted;
        /// The hub that holds the agent cannot be reached, or its link takes no more now.
        MeshUnavailable = 10, "mesh_unavailable", ResetClass::NotStarted;

        /// The tunnel broke and the flow could not be resumed.
        WsBroken = 32, "ws_broken", ResetClass::Started;
        /// The far end sent more than its window allowed.
        QueueOverflow = 33, "queue_overflow", ResetClass::Started;
        /// Nothing was sent either way for the idle timeout.
        Idle = 34, "idle", ResetClass::Started;
        /// A reader took nothing of what waited for it for the stall timeout.
        Stalled = 35, "stalled", ResetClass::Started;
        /// The target broke its connection.
        TargetReset = 36, "target_reset", ResetClass::Started;
        /// The client broke its connection.
        ClientReset = 37, "client_reset", ResetClass::Started;
        /// The agent lost the right to the connector.
        ScopeLost = 38, "scope_lost", ResetClass::Started;
        /// A change of policy forbids the flow.
        PolicyDenied = 39, "policy_denied", ResetClass::Started;
        /// The agent's credential was revoked.
        Revoked = 40, "revoked", ResetClass::Started;
        /// The agent's token ran out and was not renewed.
        TokenExpired = 41, "token_expired", ResetClass::Started;
        /// The flow carried as many bytes as it may.
        LimitBytes = 42, "limit_bytes", ResetClass::Started;
        /// The flow lasted as long as it may.
        LimitTime = 43, "limit_time", ResetClass::Started;
        /// The new tunnel's far end no longer knows the flow.
        ResumeLost = 44, "resume_lost", ResetClass::Started;
        /// The far end named a flow that this end does not have.
        UnknownFlow = 45, "unknown_flow", ResetClass::Started;
        /// The hub is shutting down.
        HubShutdown = 46, "hub_shutdown", ResetClass::Started;
        /// The agent is shutting down.
        AgentShutdown = 47, "agent_shutdown", ResetClass::Started;
        /// An operator closed the flow.
        OperatorClosed = 48, "operator_closed", ResetClass::Started;
        /// The far end broke the protocol on this flow.
        ProtocolViolation = 49, "protocol_violation", ResetClass::Started;
        /// A fault of the end that sends the reset.
        Internal = 50, "internal", ResetClass::Started;
    } extra class -> ResetClass
}

codes! {
    /// Why a tunnel ends. Carried by GOODBYE.
    CloseCode {
        /// The process that sends it is shutting down.
        Shutdown = 1, "shutdown", true;
        /// The drain that was asked for is done.
        DrainDone = 2, "drain_done", true;
        /// A newer tunnel of the same agent took over.
        Replaced = 3, "replaced", true;
        /// HELLO names another agent than the token proves.
        AgentIdMismatch = 4, "agent_id_mismatch", false;
        /// Another live instance of the agent is connected.
        AgentIdInUse = 5, "agent_id_in_use", false;
        /// Policies or plugins do not let the agent join.
        Denied = 6, "denied", false;
        /// The token ran out and was not renewed.
        TokenExpired = 7, "token_expired", true;
        /// The credential was revoked.
        Revoked = 8, "revoked", false;
        /// The two ends share no protocol version.
        VersionUnsupported = 9, "version_unsupported", false;
        /// HELLO did not come in time.
        HelloTimeout = 10, "hello_timeout", true;
        /// The far end did not answer a ping in time.
        PingTimeout = 11, "ping_timeout", true;
        /// The far end broke the protocol.
        ProtocolViolation = 12, "protocol_violation", true;
        /// More connectors were announced than are allowed.
        ConnectorLimit = 13, "connector_limit", false;
        /// The hub cannot take another agent now.
        Overloaded = 14, "overloaded", true;
        /// The identity that opened the tunnel no longer holds.
        Unauthenticated = 15, "unauthenticated", true;
        /// Another hub holds a higher claim on the agent.
        EpochLost = 16, "epoch_lost", true;
        /// A fault of the end that sends it.
        Internal = 17, "internal", true;
        /// None of the announced connectors was accepted.
        NoConnectors = 18, "no_connectors", false;
        /// The transport ended without a GOODBYE. Never sent.
        TransportLost = 19, "transport_lost", true;
        /// The agent names its transports, and none of them is served.
        TransportUnsupported = 20, "transport_unsupported", false;
    } extra is_retryable -> bool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_number_and_one_name() {
        for (at, code) in ResetCode::ALL.iter().enumerate() {
            assert_eq!(ResetCode::from_wire(code.to_wire()), Some(*code));
            for other in &ResetCode::ALL[at + 1..] {
                assert_ne!(code.as_str(), other.as_str());
            }
        }
        for (at, code) in CloseCode::ALL.iter().enumerate() {
            assert_eq!(CloseCode::from_wire(code.to_wire()), Some(*code));
            for other in &CloseCode::ALL[at + 1..] {
                assert_ne!(code.as_str(), other.as_str());
            }
        }
    }

    #[test]
    fn only_what_never_reached_a_target_may_be_retried() {
        for code in ResetCode::ALL {
            let not_started = code.to_wire() < 32;
            assert_eq!(
                code.class() == ResetClass::NotStarted,
                not_started,
                "{code}"
            );
        }
    }
}
