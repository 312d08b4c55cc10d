//! A TCP proxy that is far away, and can be cut.
//!
//! Each direction holds bytes back for half of the round trip. What a direction may hold is
//! the path's window: bytes count from when they are read until the acknowledgement of their
//! delivery would be back, half a round trip after they were written. With the default, the
//! kernel's largest send buffer (`tcp_wmem[2]`, 4 MiB here), one connection reaches
//! window ÷ round trip, as it would on a real path with nothing else in the way; there is no
//! other cap. Sockets of the proxy have receive buffers of 256 KiB, so that a sender sees the
//! window and not megabytes of slack behind it. Not imitated: slow start, loss, jitter, and
//! the round trip of the handshake itself, which the kernel answers for the proxy.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Context, Failure};

/// Bytes per read: small enough that a window is made of many.
const CHUNK_BYTES: usize = 64 * 1024;

/// Receive buffer of the proxy's sockets.
const RECEIVE_BUFFER_BYTES: usize = 256 * 1024;

/// How the far end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DelaySettings {
    pub(crate) round_trip: Duration,
    /// Bytes on the way per connection and direction; `None` for no bound but memory.
    pub(crate) window_bytes: Option<usize>,
}

impl DelaySettings {
    /// A path of this round trip, with the window of this kernel.
    pub(crate) fn of_kernel(round_trip: Duration) -> Self {
        Self {
            round_trip,
            window_bytes: Some(kernel_window_bytes()),
        }
    }
}

/// The largest send buffer that the kernel gives a socket by itself.
pub(crate) fn kernel_window_bytes() -> usize {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem")
        .ok()
        .and_then(|text| text.split_whitespace().nth(2)?.parse().ok())
        .unwrap_or(4 * 1024 * 1024)
}

/// A running proxy. Connections outlive it; [`DelayProxy::cut`] ends them.
#[derive(Debug)]
pub(crate) struct DelayProxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Weak<Pair>>>>,
}

#[derive(Debug)]
struct Pair {
    near: TcpStream,
    far: TcpStream,
}

impl DelayProxy {
    /// Listens on loopback at `port` (0: any) and connects to `target`.
    pub(crate) fn start(
        port: u16,
        target: SocketAddr,
        settings: DelaySettings,
    ) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .context(|| format!("listen on port {port}"))?;
        socket2::SockRef::from(&listener).set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        let address = listener.local_addr()?;
        let connections = Arc::new(Mutex::new(Vec::new()));
        let accepted = Arc::clone(&connections);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if let Ok(pair) = connect_pair(near, target) {
                    let mut connections = lock(&accepted);
                    connections.retain(|pair: &Weak<Pair>| pair.strong_count() > 0);
                    connections.push(Arc::downgrade(&pair));
                    drop(connections);
                    let _ = carry(&pair, settings);
                }
            }
        });
        Ok(Self {
            address,
            connections,
        })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Severs every connection, each end seeing a reset or an early end. New ones are taken.
    pub(crate) fn cut(&self) -> usize {
        let mut cut = 0;
        for pair in lock(&self.connections).drain(..) {
            if let Some(pair) = pair.upgrade() {
                let _ = pair.near.shutdown(Shutdown::Both);
                let _ = pair.far.shutdown(Shutdown::Both);
                cut += 1;
            }
        }
        cut
    }
}

fn connect_pair(near: TcpStream, target: SocketAddr) -> io::Result<Arc<Pair>> {
    let far = TcpStream::connect(target)?;
    socket2::SockRef::from(&far).set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok(Arc::new(Pair { near, far }))
}

fn carry(pair: &Arc<Pair>, settings: DelaySettings) -> io::Result<()> {
    for (from, to) in [(&pair.near, &pair.far), (&pair.far, &pair.near)] {
        let path = Arc::new(Path::new(settings));
        let (reader, reading, kept) = (from.try_clone()?, Arc::clone(&path), Arc::clone(pair));
        thread::spawn(move || {
            reading.fill(reader);
            drop(kept);
        });
        let (writer, kept) = (to.try_clone()?, Arc::clone(pair));
        thread::spawn(move || {
            if path.empty(writer).is_err() {
                // The far end is gone: the near end must learn it too.
                let _ = kept.near.shutdown(Shutdown::Both);
                let _ = kept.far.shutdown(Shutdown::Both);
                path.close();
            }
        });
    }
    Ok(())
}

/// One direction of one connection.
#[derive(Debug)]
struct Path {
    one_way: Duration,
    window_bytes: usize,
    state: Mutex<PathState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PathState {
    /// What is on the way, with the moment it arrives. An empty chunk is the end of input.
    travelling: VecDeque<(Instant, Vec<u8>)>,
    /// Delivered bytes whose acknowledgement arrives at the moment given.
    acknowledging: VecDeque<(Instant, usize)>,
    in_flight: usize,
    closed: bool,
}

impl Path {
    fn new(settings: DelaySettings) -> Self {
        Self {
            one_way: settings.round_trip / 2,
            window_bytes: settings.window_bytes.unwrap_or(usize::MAX),
            state: Mutex::new(PathState::default()),
            changed: Condvar::new(),
        }
    }

    /// Reads until the end of input, as far as the window allows.
    fn fill(&self, mut from: TcpStream) {
        loop {
            if !self.wait_for_window() {
                return;
            }
            let mut chunk = vec![0u8; CHUNK_BYTES];
            let length = from.read(&mut chunk).unwrap_or(0);
            chunk.truncate(length);
            let mut state = lock(&self.state);
            state.in_flight += length;
            state
                .travelling
                .push_back((Instant::now() + self.one_way, chunk));
            drop(state);
            self.changed.notify_all();
            if length == 0 {
                return;
            }
        }
    }

    fn wait_for_window(&self) -> bool {
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            while let Some((_, length)) = state.acknowledging.pop_front_if(|(due, _)| *due <= now) {
                state.in_flight -= length;
            }
            if state.closed {
                return false;
            }
            if state.in_flight < self.window_bytes {
                return true;
            }
            let wait = state
                .acknowledging
                .front()
                .map_or(self.one_way, |(due, _)| due.saturating_duration_since(now));
            let wait = wait.max(Duration::from_micros(50));
            state = self
                .changed
                .wait_timeout(state, wait)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }

    /// Writes what has arrived until the end of input.
    fn empty(&self, mut to: TcpStream) -> io::Result<()> {
        loop {
            let (due, chunk) = self.next_chunk();
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                thread::sleep(wait);
            }
            if chunk.is_empty() {
                return to.shutdown(Shutdown::Write);
            }
            to.write_all(&chunk)?;
            let acknowledged = Instant::now() + self.one_way;
            lock(&self.state)
                .acknowledging
                .push_back((acknowledged, chunk.len()));
            self.changed.notify_all();
        }
    }

    fn next_chunk(&self) -> (Instant, Vec<u8>) {
        let mut state = lock(&self.state);
        loop {
            if let Some(chunk) = state.travelling.pop_front() {
                return chunk;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }
}

/// No code panics while it holds one of these, so a poisoned lock is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::backend;

    #[test]
    fn a_round_trip_takes_at_least_as_long_as_set() {
        let mut client = connect(backend::tests::start(), Duration::from_millis(60), None);
        client.write_all(b"E!").unwrap();
        let started = Instant::now();
        client.read_exact(&mut [0u8; 1]).unwrap();
        assert!(started.elapsed() >= Duration::from_millis(55));
    }

    #[test]
    fn bytes_arrive_whole_and_in_order_through_a_small_window() {
        let address = backend::tests::start();
        let mut client = connect(address, Duration::from_millis(4), Some(100_000));
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 253) as u8).collect();
        let mut writer = client.try_clone().unwrap();
        let copy = sent.clone();
        let writing = thread::spawn(move || {
            writer.write_all(b"E").unwrap();
            writer.write_all(&copy).unwrap();
        });
        let mut received = vec![0u8; sent.len()];
        client.read_exact(&mut received).unwrap();
        writing.join().unwrap();
        assert!(received == sent);
    }

    #[test]
    fn an_end_of_input_passes() {
        let mut client = connect(backend::tests::start(), Duration::from_millis(2), None);
        client.write_all(b"Sab").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut count = [0u8; 8];
        client.read_exact(&mut count).unwrap();
        assert_eq!(u64::from_be_bytes(count), 2);
    }

    #[test]
    fn a_cut_ends_running_connections_and_takes_new_ones() {
        let settings = DelaySettings {
            round_trip: Duration::ZERO,
            window_bytes: None,
        };
        let proxy = DelayProxy::start(0, backend::tests::start(), settings).unwrap();
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        client.write_all(b"E!").unwrap();
        client.read_exact(&mut [0u8; 1]).unwrap();

        assert_eq!(proxy.cut(), 1);
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        assert_eq!(client.read(&mut [0u8; 1]).unwrap_or(0), 0);

        let mut again = TcpStream::connect(proxy.address()).unwrap();
        again.write_all(b"E!").unwrap();
        again.read_exact(&mut [0u8; 1]).unwrap();
    }

    fn connect(target: SocketAddr, round_trip: Duration, window: Option<usize>) -> TcpStream {
        let settings = DelaySettings {
            round_trip,
            window_bytes: window,
        };
        let proxy = DelayProxy::start(0, target, settings).unwrap();
        TcpStream::connect(proxy.address()).unwrap()
    }
}
