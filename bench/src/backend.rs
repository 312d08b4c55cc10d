//! The private service behind every peer.
//!
//! One port serves every kind of load: a connection's first byte names the [`Service`], so
//! that a peer has one port to forward whatever is measured. Echo connections, of which
//! there may be thousands, share one event loop; a bulk connection moves to a thread of its
//! own, where a blocking loop costs least.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream as BlockingStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// Bytes per call of a bulk loop; larger calls were not seen to cost less.
pub(crate) const BULK_BYTES: usize = 256 * 1024;

/// Bytes an echo connection is read by. Echo load is small messages; a longer one is
/// echoed in pieces.
const ECHO_BYTES: usize = 16 * 1024;

const LISTENER: Token = Token(usize::MAX);

/// What a connection's first byte asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Everything after the first byte comes back.
    Echo,
    /// Bytes are counted and dropped; at the end of input the count comes back, 8 bytes.
    Sink,
    /// Bytes without end.
    Source,
    /// Nothing is ever read.
    Stall,
    /// Each further byte is answered by the total of all sinks, 8 bytes.
    Count,
}

impl Service {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Echo => b'E',
            Self::Sink => b'S',
            Self::Source => b'D',
            Self::Stall => b'H',
            Self::Count => b'C',
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'E' => Some(Self::Echo),
            b'S' => Some(Self::Sink),
            b'D' => Some(Self::Source),
            b'H' => Some(Self::Stall),
            b'C' => Some(Self::Count),
            _ => None,
        }
    }
}

/// A connection of the event loop.
struct Connection {
    stream: TcpStream,
    /// Unknown until the first byte is here.
    service: Option<Service>,
    /// Echo bytes the socket would not take; while there are any, nothing more is read.
    unsent: Vec<u8>,
}

/// What becomes of a connection after an event.
enum Fate {
    Keep,
    End,
    /// Continue on a thread with these bytes already read.
    Bulk(Service, Vec<u8>),
}

/// The backend's listening socket and connections.
pub(crate) struct Backend {
    poll: Poll,
    listener: TcpListener,
    address: SocketAddr,
    connections: HashMap<usize, Connection>,
    next: usize,
    sunk: Arc<AtomicU64>,
    buffer: Vec<u8>,
}

impl Backend {
    pub(crate) fn bind(port: u16) -> io::Result<Self> {
        let poll = Poll::new()?;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        // Openings at full rate come in bursts; the kernel cuts this to somaxconn.
        socket.listen(4096)?;
        let mut listener = TcpListener::from_std(socket.into());
        let address = listener.local_addr()?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            address,
            connections: HashMap::new(),
            next: 0,
            sunk: Arc::new(AtomicU64::new(0)),
            buffer: vec![0; ECHO_BYTES],
        })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the process ends.
    pub(crate) fn serve(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept();
                } else {
                    let gone = event.is_error() || event.is_write_closed();
                    self.advance(event.token().0, gone, event.is_read_closed());
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            let id = self.next;
            self.next += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered = self
                .poll
                .registry()
                .register(&mut stream, Token(id), interest);
            if registered.is_ok() && stream.set_nodelay(true).is_ok() {
                let connection = Connection {
                    stream,
                    service: None,
                    unsent: Vec::new(),
                };
                self.connections.insert(id, connection);
            }
        }
    }

    fn advance(&mut self, id: usize, gone: bool, read_closed: bool) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let stalled = connection.service == Some(Service::Stall);
        let fate = if gone || (stalled && read_closed) {
            Fate::End
        } else {
            connection.step(&mut self.buffer).unwrap_or(Fate::End)
        };
        match fate {
            Fate::Keep => {}
            Fate::End => {
                self.connections.remove(&id);
            }
            Fate::Bulk(service, early) => {
                if let Some(mut connection) = self.connections.remove(&id) {
                    let _ = self.poll.registry().deregister(&mut connection.stream);
                    let stream = BlockingStream::from(connection.stream);
                    let sunk = Arc::clone(&self.sunk);
                    thread::spawn(move || {
                        // The client decides when a bulk connection ends; how is its business.
                        let _ = serve_bulk(stream, service, &early, &sunk);
                    });
                }
            }
        }
    }
}

impl Connection {
    fn step(&mut self, buffer: &mut [u8]) -> io::Result<Fate> {
        loop {
            if !self.flush()? {
                return Ok(Fate::Keep);
            }
            if self.service == Some(Service::Stall) {
                return Ok(Fate::Keep);
            }
            let length = match self.stream.read(buffer) {
                Ok(0) => return Ok(Fate::End),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Fate::Keep),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let whole = length == buffer.len();
            let mut bytes = &buffer[..length];
            if self.service.is_none() {
                let service = Service::from_byte(bytes[0])
                    .ok_or_else(|| io::Error::other("unknown service"))?;
                self.service = Some(service);
                bytes = &bytes[1..];
                match service {
                    Service::Echo | Service::Stall => {}
                    Service::Sink | Service::Source | Service::Count => {
                        return Ok(Fate::Bulk(service, bytes.to_vec()));
                    }
                }
            }
            self.unsent.extend_from_slice(bytes);
            // A short read emptied the socket; the next bytes are a new event.
            if !self.flush()? || !whole {
                return Ok(Fate::Keep);
            }
        }
    }

    /// Whether everything echoed so far is with the socket.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => {
                    self.unsent.drain(..length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn serve_bulk(
    mut stream: BlockingStream,
    service: Service,
    early: &[u8],
    sunk: &AtomicU64,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    match service {
        Service::Sink => serve_sink(stream, early.len(), sunk),
        Service::Source => {
            let zeros = vec![0u8; BULK_BYTES];
            loop {
                stream.write_all(&zeros)?;
            }
        }
        Service::Count => {
            for _ in early {
                stream.write_all(&sunk.load(Ordering::Relaxed).to_be_bytes())?;
            }
            let mut byte = [0u8; 1];
            while stream.read(&mut byte)? != 0 {
                stream.write_all(&sunk.load(Ordering::Relaxed).to_be_bytes())?;
            }
            Ok(())
        }
        Service::Echo | Service::Stall => Ok(()),
    }
}

fn serve_sink(mut stream: BlockingStream, early: usize, sunk: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0u8; BULK_BYTES];
    let mut total = early as u64;
    sunk.fetch_add(total, Ordering::Relaxed);
    loop {
        let length = stream.read(&mut buffer)? as u64;
        if length == 0 {
            return stream.write_all(&total.to_be_bytes());
        }
        total += length;
        sunk.fetch_add(length, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn echo_returns_what_follows_the_first_byte() {
        let mut client = BlockingStream::connect(start()).unwrap();
        client.write_all(b"Ehello").unwrap();
        let mut answer = [0u8; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    }

    #[test]
    fn echo_of_more_than_the_sockets_hold_arrives_whole() {
        let mut client = BlockingStream::connect(start()).unwrap();
        let mut reader = client.try_clone().unwrap();
        let sent: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writer = thread::spawn(move || {
            client.write_all(b"E").unwrap();
            client.write_all(&sent).unwrap();
            client
        });
        let mut received = vec![0u8; expected.len()];
        reader.read_exact(&mut received).unwrap();
        writer.join().unwrap();
        assert!(received == expected);
    }

    #[test]
    fn a_sink_counts_to_the_end_of_input() {
        let address = start();
        let mut client = BlockingStream::connect(address).unwrap();
        client.write_all(b"Sabc").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut count = [0u8; 8];
        client.read_exact(&mut count).unwrap();
        assert_eq!(u64::from_be_bytes(count), 3);

        let mut counter = BlockingStream::connect(address).unwrap();
        counter.write_all(b"C?").unwrap();
        counter.read_exact(&mut count).unwrap();
        assert_eq!(u64::from_be_bytes(count), 3);
    }

    #[test]
    fn an_unknown_first_byte_closes() {
        let mut client = BlockingStream::connect(start()).unwrap();
        client.write_all(b"?").unwrap();
        let mut rest = Vec::new();
        assert_eq!(client.read_to_end(&mut rest).unwrap_or(0), 0);
    }

    /// A backend on a thread that ends with the test process.
    pub(crate) fn start() -> SocketAddr {
        let backend = Backend::bind(0).unwrap();
        let address = backend.address();
        thread::spawn(move || backend.serve());
        address
    }
}
