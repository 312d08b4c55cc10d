#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use nowconnect_protocol::limits::MAX_MESSAGE_BYTES;
use nowconnect_protocol::{ConnectorName, TunnelConfig};
use tokio::io::DuplexStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::flow_io::FlowIo;

/// Far beyond two looks, and before any other deadline of a tunnel that waits for its HELLO.
const TWO_LOOKS: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_tunnel_that_went_quiet_gives_its_buffers_back_by_itself() {
    let mut core = core().await;
    core.out = BytesMut::with_capacity(MAX_MESSAGE_BYTES);
    for _ in 0..RECYCLE_MESSAGES {
        core.keep_for_later(&Bytes::from(vec![0; MAX_MESSAGE_BYTES]));
    }
    assert_eq!(core.recycle.len(), RECYCLE_MESSAGES);
    core.sent_since_tidy = true;
    until(&mut core, |core| {
        core.recycle.is_empty() && core.out.capacity() <= IDLE_BUFFER_BYTES
    })
    .await;
    assert!(!core.holds_spare_memory(), "it would wake for nothing");
}

#[tokio::test]
async fn bytes_that_wait_for_a_stalled_reader_leave_the_messages_they_came_in() {
    let mut core = core().await;
    // Nobody reads at the far side, and it takes less than the first piece.
    let (near, _far) = tokio::io::duplex(1_000);
    let connector = ConnectorName::parse("echo").unwrap();
    let io = FlowIo::Boxed(Box::new(near));
    let socket = FlowSocket::new(1, connector, Some(io), None, &core.ready);
    core.add_socket(1, socket);
    let pieces = 4;
    let piece = 32 * 1024;
    let messages: Vec<Bytes> = (0..pieces)
        .map(|_| Bytes::from(vec![7; MAX_MESSAGE_BYTES]))
        .collect();
    for message in &messages {
        let socket = core.sockets.by_cid.get_mut(&1).unwrap();
        let _ = socket.push(message.slice(..piece));
    }
    core.scattered = true;
    assert!(messages.iter().all(|message| !message.is_unique()));
    until(&mut core, |_| messages.iter().all(Bytes::is_unique)).await;
    let socket = core.sockets.by_cid.get_mut(&1).unwrap();
    let waiting: usize = socket.pending.iter().map(Bytes::len).sum();
    assert_eq!(waiting, pieces * piece - 1_000);
    assert!(socket.pending.iter().flatten().all(|byte| *byte == 7));
    // Once more into the room that the messages left, and then there is nothing to wake for.
    let first = socket.pending[0].as_ptr();
    until(&mut core, |core| !core.holds_spare_memory()).await;
    let socket = core.sockets.by_cid.get_mut(&1).unwrap();
    assert_ne!(socket.pending[0].as_ptr(), first);
    assert!(socket.pending.iter().flatten().all(|byte| *byte == 7));
}

/// Each piece has some hundred bytes of its own beside what it holds: a far end that sends byte by
/// byte must not cost more than what its window counts.
#[tokio::test]
async fn bytes_that_come_one_by_one_wait_in_few_pieces() {
    let core = core().await;
    let (near, _far) = tokio::io::duplex(1);
    let connector = ConnectorName::parse("echo").unwrap();
    let io = FlowIo::Boxed(Box::new(near));
    let mut socket = FlowSocket::new(1, connector, Some(io), None, &core.ready);
    let bytes: Vec<u8> = (0..40_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for byte in &bytes {
        let _ = socket.push(Bytes::copy_from_slice(&[*byte]));
    }
    assert!(socket.pending.len() <= 3, "{} pieces", socket.pending.len());
    let waiting: Vec<u8> = socket.pending.iter().flatten().copied().collect();
    // The socket took the first.
    assert_eq!(waiting, bytes[1..]);
}

async fn core() -> Core<HubEnd, DuplexStream> {
    let (near, far) = tokio::io::duplex(1_000);
    // Kept open, and silent, to the end of the test's process.
    std::mem::forget(far);
    let ws = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
    Core::new(HubEnd::new(Instant::now(), TunnelConfig::default()), ws)
}

/// Polls only when a timer that the driver itself has set says so.
async fn until(
    core: &mut Core<HubEnd, DuplexStream>,
    holds: impl Fn(&Core<HubEnd, DuplexStream>) -> bool,
) {
    let quiet = std::future::poll_fn(|cx| {
        core.tick(cx, Instant::now());
        if holds(core) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    tokio::time::timeout(TWO_LOOKS, quiet)
        .await
        .expect("the driver should have woken itself");
}
