//! An origin for large bodies and for WebSockets.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::failure::Failure;

/// What is read and written at once.
const CHUNK: usize = 256 * 1024;

/// Starts an origin that answers `GET /zeros/N` with N bytes and any `PUT` once it has read the
/// body; it goes with the process.
pub(super) fn start_large() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is seen by who asked.
            thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

fn serve(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(CHUNK, stream.try_clone()?);
    let mut writer = stream;
    let chunk = vec![0; CHUNK];
    loop {
        let Some(head) = Head::read(&mut reader)? else {
            return Ok(());
        };
        io::copy(&mut reader.by_ref().take(head.length), &mut io::sink())?;
        let mut left = head.wanted;
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {left}\r\n\r\n")?;
        while left > 0 {
            let next = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            writer.write_all(&chunk[..next])?;
            left -= next as u64;
        }
    }
}

/// What of a request's head matters here.
struct Head {
    /// Bytes of its body.
    length: u64,
    /// Bytes that it wants.
    wanted: u64,
}

impl Head {
    /// `None` at the connection's end.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let path = line.split(' ').nth(1).unwrap_or_default();
        let wanted = path.strip_prefix("/zeros/").map_or(0, number);
        let mut length = 0;
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 || line == "\r\n" {
                return Ok(Some(Self { length, wanted }));
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = number(value);
            }
        }
    }
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}
