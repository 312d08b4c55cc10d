//! The IO shell around the protocol's state machines.
//!
//! One driver per tunnel owns its WebSocket and the sockets of all its flows. It pulls: a
//! socket that becomes readable puts its flow on a ready list, and when the transport takes a
//! message, ready flows are read in turn straight into it. A flow has no task, no channel and
//! no send queue of its own, and the window is the only queue on the way.
//!
//! Drivers are not `Send`. Each runs on one of the single-threaded runtimes of [`Workers`];
//! load is spread by spreading tunnels over them.
//!
//! What is absent: who may do what (the hub decides through [`HubShell`]), where a connector
//! leads (the agent, through [`AgentShell`]), TLS and the upgrade, which come before.

mod agent;
mod detached;
mod driver;
mod flow_io;
mod handle;
mod hub;
mod observer;
mod ready;
mod settings;
mod sockets;
mod workers;

pub use agent::{
    AgentCommands, AgentEvent, AgentShell, AgentTunnelHandle, Dial, DialError, Dialed, ResumeFrom,
    agent_channel, serve_agent,
};
pub use detached::DetachedSession;
pub use flow_io::{FlowIo, FlowStream};
pub use handle::{OpenFlow, Rejected, RejectedOpen, TunnelHandle, TunnelStats};
pub use hub::{HelloVerdict, HubShell, RenewVerdict, Welcome, serve_hub};
pub use observer::{FailedOpen, FlowObserver, FlowProgress};
pub use settings::{TLS_BUFFER_BYTES, TunnelEnd, TunnelSettings, read_ahead, websocket_config};
pub use workers::{WorkerId, Workers, WorkersBusy};

pub use nowconnect_protocol as protocol;
pub use tokio_tungstenite::WebSocketStream;
pub use tokio_tungstenite::tungstenite;
