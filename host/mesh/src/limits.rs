//! Every bound of the mesh's links, its unit and its reason.

use std::time::Duration;

use nowconnect_protocol::limits::MAX_MESSAGE_BYTES;

/// Hubs that one hub dials, configured and discovered. A full mesh of more would spend its time
/// on pings: 256 hubs have 32,640 links.
pub const MAX_PEERS: usize = 256;

/// One message of the hello. A chain of eight certificates with large RSA keys has about 16 KiB.
pub const MAX_HELLO_BYTES: usize = 32_768;

/// Certificates in a chain.
pub const MAX_CHAIN: usize = nowconnect_protocol::limits::MAX_PROOF_CERTIFICATES;

/// The certificates of a chain together; what is left of [`MAX_HELLO_BYTES`] holds a signature.
pub const MAX_CHAIN_BYTES: usize = 30_720;

/// A signature. RSA with 8192 bits has 1024 bytes.
pub const MAX_SIGNATURE_BYTES: usize = 1_024;

/// Hubs at a port of the mesh that have not proven who they are, at once. Each may hold a WebSocket
/// buffer and two messages of the hello, so 64 hold about 8 MiB.
pub const MAX_HANDSHAKES: usize = 64;

/// The same from one address, an IPv6 /64 counting as one. Hubs behind one address dial together
/// after a restart of the hub that they dial.
pub const MAX_HANDSHAKES_PER_SOURCE: usize = 16;

/// Time from the first byte at the port, or from the dial, to a proven link. It covers name
/// resolution, TCP, TLS, the upgrade and the hello.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bound of the first pause between two dials.
pub const BACKOFF_BASE: Duration = Duration::from_millis(250);

/// A link that lived this long makes the next failure count as the first. A peer whose links
/// break at once is dialled less and less.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Time after which an address that led back to this hub is dialled again: behind a load balancer
/// it may lead elsewhere then.
pub const OWN_ADDRESS_PAUSE: Duration = Duration::from_secs(600);

/// Time that a link has to end once it was told to; then it is cut.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// How long before the end of a certificate its links are renewed, where their life is long
/// enough; else at half of what is left of it.
pub const RENEW_BEFORE: Duration = Duration::from_secs(3_600);

/// Least pause between two attempts at renewing a link.
pub const RENEW_PAUSE: Duration = Duration::from_secs(1);

/// Longest time between two looks at the wall clock, which may be set.
pub const CLOCK_INTERVAL: Duration = Duration::from_secs(30);

/// How long a peer that nobody dials stays in the view after its link ended.
pub const FORGET_AFTER: Duration = Duration::from_secs(600);

/// A PEM file.
pub const MAX_PEM_BYTES: u64 = 1 << 20;

const _: () = assert!(MAX_HELLO_BYTES < MAX_MESSAGE_BYTES);
const _: () = assert!(MAX_HELLO_BYTES <= nowconnect_protocol::limits::MAX_PROOF_BODY_BYTES);
const _: () = assert!(MAX_CHAIN_BYTES + MAX_SIGNATURE_BYTES + 64 <= MAX_HELLO_BYTES);
