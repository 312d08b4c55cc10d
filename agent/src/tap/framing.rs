//! Where messages begin in one direction of an HTTP/1.1 connection (RFC 9112, 6 and 7).
//!
//! Heads are gathered, bodies are counted past. Whatever does not read as HTTP/1.1 ends the reading
//! for good.

/// Longest head that is gathered, in bytes: more than hub and services send.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest line before a chunk, in bytes.
const CHUNK_LINE_BYTES_MAX: usize = 1024;

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks up to an empty one, then trailers.
    Chunked,
    /// What is no HTTP, or whatever comes until the end of the connection.
    Rest,
}

/// How far one direction was read.
#[derive(Debug)]
pub(super) enum Place {
    /// In a head, of which this came already.
    Head(Vec<u8>),
    /// In a body or a chunk with so many bytes to come; then goes on as said.
    Within(u64, After),
    /// In the line before a chunk.
    ChunkLine(Vec<u8>),
    /// In the trailers, with so many characters in the line of now.
    Trailers(usize),
    /// Nothing is read any more.
    Rest,
}

/// What comes after bytes that were counted past.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    Message,
    Chunk,
}

impl Place {
    pub(super) fn begin() -> Self {
        Self::Head(Vec::new())
    }

    /// Reads `bytes`; `on_head` is called with each head and says what follows it.
    pub(super) fn read(&mut self, mut bytes: &[u8], on_head: &mut dyn FnMut(&[u8]) -> Body) {
        while !bytes.is_empty() {
            let read = self.step(bytes, on_head);
            if matches!(self, Self::Rest) {
                return;
            }
            bytes = &bytes[read..];
        }
    }

    /// Reads up to the end of the present part; says how much that was, at least a byte.
    fn step(&mut self, bytes: &[u8], on_head: &mut dyn FnMut(&[u8]) -> Body) -> usize {
        match self {
            // Empty lines before a head are none of it (RFC 9112, 2.2).
            Self::Head(head) if head.is_empty() && matches!(bytes[0], b'\r' | b'\n') => {
                let ends = |byte: &u8| !matches!(byte, b'\r' | b'\n');
                bytes.iter().position(ends).unwrap_or(bytes.len())
            }
            Self::Head(head) => {
                let (read, is_whole) = gather(head, bytes, HEAD_BYTES_MAX, ends_head);
                if is_whole {
                    let body = on_head(head);
                    *self = Self::after_head(body);
                } else if head.len() >= HEAD_BYTES_MAX {
                    *self = Self::Rest;
                }
                read
            }
            Self::Within(left, after) => {
                let read = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= read as u64;
                if *left == 0 {
                    *self = match after {
                        After::Message => Self::begin(),
                        After::Chunk => Self::ChunkLine(Vec::new()),
                    };
                }
                read
            }
            Self::ChunkLine(line) => {
                let ends = |line: &[u8]| line.ends_with(b"\n");
                let (read, is_whole) = gather(line, bytes, CHUNK_LINE_BYTES_MAX, ends);
                if is_whole {
                    *self = Self::after_chunk_line(line);
                } else if line.len() >= CHUNK_LINE_BYTES_MAX {
                    *self = Self::Rest;
                }
                read
            }
            Self::Trailers(in_line) => {
                match bytes[0] {
                    b'\n' if *in_line == 0 => *self = Self::begin(),
                    b'\n' => *in_line = 0,
                    b'\r' => {}
                    _ => *in_line += 1,
                }
                1
            }
            Self::Rest => bytes.len(),
        }
    }

    fn after_head(body: Body) -> Self {
        match body {
            Body::Length(0) => Self::begin(),
            Body::Length(length) => Self::Within(length, After::Message),
            Body::Chunked => Self::ChunkLine(Vec::new()),
            Body::Rest => Self::Rest,
        }
    }

    fn after_chunk_line(line: &[u8]) -> Self {
        let size = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.split([';', '\r', '\n']).next())
            .and_then(|size| u64::from_str_radix(size.trim(), 16).ok());
        match size {
            Some(0) => Self::Trailers(0),
            // The chunk and the end of its line.
            Some(size) => size
                .checked_add(2)
                .map_or(Self::Rest, |size| Self::Within(size, After::Chunk)),
            None => Self::Rest,
        }
    }
}

/// Adds bytes to `so_far` until it `ends` or has `most`; says how many those were and whether it
/// ended.
fn gather(
    so_far: &mut Vec<u8>,
    bytes: &[u8],
    most: usize,
    ends: impl Fn(&[u8]) -> bool,
) -> (usize, bool) {
    let mut read = 0;
    while read < bytes.len() && so_far.len() < most {
        // Both kinds of part end with a line.
        let rest = &bytes[read..];
        let line = rest.iter().position(|byte| *byte == b'\n');
        let room = most - so_far.len();
        let take = line.map_or(rest.len(), |at| at + 1).min(room);
        so_far.extend_from_slice(&rest[..take]);
        read += take;
        if ends(so_far) {
            return (read, true);
        }
    }
    (read, false)
}

fn ends_head(head: &[u8]) -> bool {
    head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MESSAGES: &[u8] = b"POST /a HTTP/1.1\r\ncontent-length: 5\r\n\r\nGET /GET /b HTTP/1.1\r\n\r\n\
        POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nGET\r\n10\r\n0123456789abcdef\r\n\
        0\r\ntrailer: x\r\n\r\n\r\nGET /d HTTP/1.1\r\n\r\n";

    proptest! {
        #[test]
        fn heads_are_found_however_the_bytes_come(cuts in prop::collection::vec(1_usize..40, 0..40)) {
            let heads = heads(MESSAGES, &cuts);
            let lines: Vec<&str> = heads
                .iter()
                .map(|head| head.lines().next().unwrap_or_default())
                .collect();
            prop_assert_eq!(lines, [
                "POST /a HTTP/1.1", "GET /b HTTP/1.1", "POST /c HTTP/1.1", "GET /d HTTP/1.1",
            ]);
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1_usize..50) {
            heads(&bytes, &[cut]);
        }
    }

    #[test]
    fn what_is_no_chunk_ends_the_reading() {
        for odd in [
            "x\r\n",
            "ffffffffffffffff\r\nGET / HTTP/1.1\r\n\r\n",
            "-1\r\n\r\n",
        ] {
            let text = format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{odd}");
            let mut place = Place::begin();
            place.read(text.as_bytes(), &mut |_| Body::Chunked);
            assert!(matches!(place, Place::Rest), "{odd}: {place:?}");
        }
    }

    #[test]
    fn a_head_without_end_is_not_gathered_for_ever() {
        let mut place = Place::begin();
        for _ in 0..100 {
            place.read(&[b'a'; 1024], &mut |_| Body::Rest);
        }
        assert!(matches!(place, Place::Rest));
    }

    #[test]
    fn empty_lines_are_not_gathered() {
        let mut place = Place::begin();
        place.read(&[b'\n'; 1_000_000], &mut |_| Body::Rest);
        assert!(
            matches!(&place, Place::Head(head) if head.is_empty()),
            "{place:?}"
        );
    }

    fn heads(bytes: &[u8], cuts: &[usize]) -> Vec<String> {
        let mut place = Place::begin();
        let mut heads = Vec::new();
        let mut read = |bytes: &[u8]| {
            place.read(bytes, &mut |head| {
                let head = String::from_utf8_lossy(head).into_owned();
                let body = if head.contains("chunked") {
                    Body::Chunked
                } else if head.contains("content-length: 5") {
                    Body::Length(5)
                } else {
                    Body::Length(0)
                };
                heads.push(head);
                body
            });
        };
        let mut rest = bytes;
        for cut in cuts.iter().cycle().take(1000) {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            read(now);
            rest = later;
        }
        read(rest);
        heads
    }
}
