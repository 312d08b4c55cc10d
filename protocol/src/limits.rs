//! Every bound of the protocol, with its unit and reason.
//!
//! A bound that an operator may change is a default here and travels in
//! [`TunnelConfig`](crate::TunnelConfig); the others are what both ends rely on.

use std::time::Duration;

/// Bytes of a frame's header: one of tag, three of body length.
pub const FRAME_HEADER_BYTES: usize = 4;

/// Bytes of a DATA frame before its payload: header, cid and offset.
pub const DATA_HEADER_BYTES: usize = FRAME_HEADER_BYTES + 4 + 8;

/// Bytes of an M_DATA frame before its payload: header, epoch, cid and offset.
pub const MESH_DATA_HEADER_BYTES: usize = DATA_HEADER_BYTES + 8;

/// Largest WebSocket message that an end sends or takes, in bytes.
///
/// Two full DATA frames fit, so a message is worth its TLS records; more would only lengthen
/// the time for which a small frame waits behind it.
pub const MAX_MESSAGE_BYTES: usize = 262_144;

/// Least bound on a WebSocket message that an operator may set, in bytes.
///
/// The longest frame of control fits, and so does the longest DATA frame.
pub const MIN_MESSAGE_BYTES: usize = 139_264;

/// Size up to which an end fills a message, in bytes: with the header of its WebSocket frame it
/// fills sixteen TLS records, where a larger one would need a seventeenth for the rest.
pub const FULL_MESSAGE_BYTES: usize = MAX_MESSAGE_BYTES - 14;

/// Largest payload of one DATA frame, in bytes, between two native ends.
pub const MAX_DATA_PAYLOAD_BYTES: u32 = 131_072;

/// Smallest negotiable payload of a DATA frame, in bytes.
pub const MIN_DATA_PAYLOAD_BYTES: u32 = 1_024;

/// Payload of one DATA frame while a small flow waits, in bytes: what the link carries in
/// well under a millisecond.
pub const INTERACTIVE_DATA_PAYLOAD_BYTES: u32 = 32_768;

/// Size at which a message is closed while a small flow waits, in bytes.
pub const INTERACTIVE_MESSAGE_BYTES: usize = 65_536;

/// Bytes of one flow on their way at once while a small flow waits, on a short path.
///
/// It stays above [`WINDOW_UPDATE_BYTES`], the most that a receiver keeps to itself before it
/// answers: below that, both ends would wait for ever.
pub const INTERACTIVE_FLOW_INFLIGHT_BYTES: u64 = 147_456;

/// How long a small frame keeps its tunnel in the interactive mode.
pub const INTERACTIVE_HOLD: Duration = Duration::from_millis(20);

/// A DATA frame up to this payload, in bytes, counts as small.
pub const SMALL_FRAME_BYTES: usize = 4_096;

/// Round trip, at the least seen, below which a path counts as short.
pub const SHORT_PATH_RTT: Duration = Duration::from_millis(5);

/// Window that every flow is sure of in each direction, in bytes.
pub const FLOW_WINDOW_MIN_BYTES: u32 = 32_768;

/// Window up to which a flow grows on a short path as soon as its reader drains, in bytes.
pub const FLOW_WINDOW_SHORT_PATH_BYTES: u32 = 262_144;

/// Window up to which a flow grows on a short path once it has carried
/// [`FLOW_WINDOW_GATE_BYTES`], in bytes. A larger one only adds queue.
pub const FLOW_WINDOW_SHORT_PATH_LATE_BYTES: u32 = 524_288;

/// Bytes that a flow carries on a short path before its window grows past
/// [`FLOW_WINDOW_SHORT_PATH_BYTES`].
pub const FLOW_WINDOW_GATE_BYTES: u64 = 16 * 1024 * 1024;

/// Window up to which a flow grows on a long path, in bytes: 1 Gbit/s over 250 ms.
pub const FLOW_WINDOW_MAX_BYTES: u32 = 32 * 1024 * 1024;

/// Bytes that an end has received and not answered for before it sends WINDOW.
pub const WINDOW_UPDATE_BYTES: u64 = 65_536;

/// Longest time for which an end keeps received bytes to itself before it sends WINDOW.
///
/// The sender holds its copy of them until then; the figure is well below the second after
/// which unanswered bytes make an end probe.
pub const WINDOW_UPDATE_DELAY: Duration = Duration::from_millis(100);

/// Bytes written to one tunnel or link and not yet received by its far side.
pub const HOP_INFLIGHT_BYTES: u64 = 8 * 1024 * 1024;

/// Memory for windows beyond each flow's sure one, over all flows of a process, in bytes.
pub const WINDOW_POOL_BYTES: u64 = 256 * 1024 * 1024;

/// Flows that one tunnel carries at once.
pub const MAX_FLOWS_PER_TUNNEL: u32 = 20_000;

/// Connectors that one agent announces.
pub const MAX_CONNECTORS: usize = 1_024;

/// Flows that an agent reset and of which it remembers that their target was reached, so that
/// a hub that never heard of it does not reach the target a second time.
pub const MAX_TOMBSTONES: usize = 4_096;

/// Bytes of the body of a HELLO, HELLO_ACK, RENEW or RENEW_ACK.
pub const MAX_CONTROL_BODY_BYTES: usize = 131_072;

/// Bytes of the body of an OPEN: names, addresses and what policies and plugins attached.
pub const MAX_OPEN_BODY_BYTES: usize = 16_384;

/// Bytes of a text in a frame: a reason, a version, a label.
pub const MAX_TEXT_BYTES: usize = 4_096;

/// Bytes of a token in RENEW; the same as a request head may hold.
pub const MAX_TOKEN_BYTES: usize = 16_384;

/// Pairs of labels in HELLO, and of metadata in OPEN.
pub const MAX_PAIRS: usize = 64;

/// Bytes of a claim on a link: three names with their lengths, and the epoch's counter.
pub const MAX_CLAIM_BYTES: usize = 64 + 128 + 64 + 3 * 2 + 8;

/// Bytes of the body of an M_PROOF: a chain of certificates and a signature.
pub const MAX_PROOF_BODY_BYTES: usize = 65_536;

/// Certificates in an M_PROOF.
pub const MAX_PROOF_CERTIFICATES: usize = 8;

/// Frames and pieces of flows that wait to be written to one link. Beyond it no flow is opened
/// over it.
pub const MESH_SEND_QUEUE: u32 = 1_000;

/// Largest flow window that a hub may name in M_HELLO, in bytes: its peers take that much of
/// each new flow.
pub const MESH_FLOW_WINDOW_MAX_BYTES: u32 = 1024 * 1024;

/// Agents of which a link remembers the highest epoch. One that falls out of memory is fenced
/// again by the next frame that names it.
pub const MAX_FENCED_AGENTS: usize = 65_536;

/// Flows of a link that it remembers to have fenced, so that what still comes for them is
/// counted.
pub const MAX_FENCED_FLOWS: usize = 4_096;

/// Size up to which a relay gathers small pieces of a flow, in bytes: each piece costs memory
/// beyond its bytes.
pub const RELAY_GATHER_BYTES: usize = 16 * 1024;

/// Time from the upgrade to a whole HELLO.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for which an idle tunnel sends nothing before it pings.
pub const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Time without an answer after which a tunnel is given up.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Least time that sent bytes stay unanswered before an end probes; four round trips where
/// that is longer.
pub const PROBE_AFTER: Duration = Duration::from_secs(1);

/// Time without an answer to a probe after which an agent dials a replacement.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(2);

/// Time between measurements of the round trip while a tunnel carries data.
pub const RTT_PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// Time for which no byte is accepted from either end of a flow before it is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for which a reader takes none of the bytes that wait for it before its flow is reset.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(300);

/// Time for which an idle flow, once told to end, waits for the far side's FIN.
pub const LINGER: Duration = Duration::from_secs(10);

/// Longest time between two looks at the timers of flows.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Time for which the flows of a broken tunnel wait for a new one.
pub const RESUME_GRACE: Duration = Duration::from_secs(30);

/// Frames of control that wait to be sent on one tunnel. They are answers to frames of the
/// far side or to acts of this one, so a tunnel over it has a peer that does not read.
pub const MAX_CONTROL_QUEUE: usize = 65_536;

const _: () = assert!(INTERACTIVE_FLOW_INFLIGHT_BYTES > WINDOW_UPDATE_BYTES);
const _: () = assert!(MAX_DATA_PAYLOAD_BYTES as usize + DATA_HEADER_BYTES <= MIN_MESSAGE_BYTES);
const _: () = assert!(INTERACTIVE_MESSAGE_BYTES <= MIN_MESSAGE_BYTES);
const _: () = assert!(MIN_MESSAGE_BYTES <= MAX_MESSAGE_BYTES);
const _: () =
    assert!(MAX_DATA_PAYLOAD_BYTES as usize + MESH_DATA_HEADER_BYTES <= MIN_MESSAGE_BYTES);
const _: () = assert!(MAX_PROOF_BODY_BYTES + FRAME_HEADER_BYTES <= MIN_MESSAGE_BYTES);
const _: () = assert!(FLOW_WINDOW_MIN_BYTES <= FLOW_WINDOW_SHORT_PATH_BYTES);
const _: () = assert!(MAX_CONTROL_BODY_BYTES + FRAME_HEADER_BYTES <= MIN_MESSAGE_BYTES);
