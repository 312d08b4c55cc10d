//! The NowConnect wire and its state machines.
//!
//! Nothing in this crate reads a clock, opens a socket, awaits or locks. A caller hands in
//! bytes and the present time and takes out events, messages to send and the next deadline,
//! so the same machines serve a hub, an agent and a simulation of many of both.
//!
//! # Model
//!
//! A *tunnel* is one transport connection between an agent and a hub. The agent's *session*
//! may outlive it. A *flow* is one proxied connection; its two ends are the hub that holds the
//! client's socket and the agent that holds the target's. Each direction of a flow counts its
//! bytes from zero, and every rule of flow control and of resumption is stated in those
//! offsets (see [`flow`]).
//!
//! # Calling order
//!
//! [`HubEnd`] and [`AgentEnd`] have four kinds of method:
//!
//! * `handle_*` take what came from outside: a message, a verdict, the passing of time;
//! * plain verbs (`open`, `reset`, `delivered`) act on behalf of the local side;
//! * `poll_*` take out what the machine wants: [`HubEnd::poll_event`] until it is empty, then
//!   [`HubEnd::poll_transmit`] while the transport takes messages, then
//!   [`HubEnd::poll_deadline`];
//! * accessors observe.
//!
//! Time never goes backwards between two calls.
//!
//! What is absent: sockets, TLS, WebSockets and their limits (`nowconnect-tunnel`), any
//! decision about who may do what (the hub), HTTP (a user of flows).

mod agent_end;
mod epoch;
pub mod error;
pub mod flow;
mod flow_ref;
pub mod frame;
mod hub_end;
pub mod limits;
mod liveness;
pub mod mesh;
pub mod name;
mod scheduler;
mod tunnel;
mod window_pool;

pub use agent_end::{AgentEnd, AgentEvent};
pub use epoch::Epoch;
pub use error::{ProtocolViolation, TunnelClosed};
pub use flow::{FlowCause, FlowKind, FlowPhase, FlowSummary, FlowTerms};
pub use flow_ref::FlowRef;
pub use frame::{
    CloseCode, DecodeError, Direction, Features, Frame, FrameType, Hello, HelloAck, InstanceId,
    Open, OpenAck, ProxyProtocol, Refusal, Renew, RenewAck, ResetClass, ResetCode, ResumeToken,
    Role,
};
pub use hub_end::{HubEnd, HubEvent, OpenRequest, Welcome};
pub use name::{AgentId, ConnectorName, NameError, ReplicaId, TenantName};
pub use tunnel::{
    DetachedFlow, DetachedFlows, FlowEvent, FlowSource, SourceRead, Tunnel, TunnelConfig,
    TunnelCounters,
};
pub use window_pool::WindowPool;
