//! Requests and their responses on one connection.

use std::collections::VecDeque;
use std::time::Instant;

use super::framing::{Body, Place};
use super::{Seen, Tap};

/// Fields of a head that are looked at: more than hubs let through.
const FIELDS_MAX: usize = 160;
/// Requests that wait for their responses: a hub sends the next one after a response.
const WAITING_MAX: usize = 16;
/// A method or path is shown up to this many characters.
const SHOWN_CHARS_MAX: usize = 200;

/// A request without a response so far.
#[derive(Debug)]
struct Asked {
    method: String,
    path: String,
    at: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Conversation {
    requests: Place,
    responses: Place,
    waiting: VecDeque<Asked>,
    tap: Tap,
}

impl Conversation {
    pub(super) fn new(tap: Tap) -> Self {
        Self {
            requests: Place::begin(),
            responses: Place::begin(),
            waiting: VecDeque::new(),
            tap,
        }
    }

    /// These bytes went to the service.
    pub(super) fn asked(&mut self, bytes: &[u8]) {
        let waiting = &mut self.waiting;
        self.requests.read(bytes, &mut |head| {
            let Some((asked, body)) = request(head) else {
                return Body::Rest;
            };
            if waiting.len() >= WAITING_MAX {
                return Body::Rest;
            }
            waiting.push_back(asked);
            body
        });
    }

    /// These bytes came from the service.
    pub(super) fn answered(&mut self, bytes: &[u8]) {
        let Self {
            requests,
            responses,
            waiting,
            tap,
        } = self;
        responses.read(bytes, &mut |head| {
            let Some((status, body)) = response(head) else {
                return Body::Rest;
            };
            // An interim response: the one that counts is still to come.
            if (100..200).contains(&status) && status != 101 {
                return Body::Length(0);
            }
            let Some(asked) = waiting.pop_front() else {
                return Body::Rest;
            };
            let has_no_body = asked.method == "HEAD" || matches!(status, 204 | 304);
            tap.tell(asked.answered(Some(status)));
            if status == 101 {
                *requests = Place::Rest;
                Body::Rest
            } else if has_no_body {
                Body::Length(0)
            } else {
                body
            }
        });
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        for asked in self.waiting.drain(..) {
            self.tap.tell(asked.answered(None));
        }
    }
}

impl Asked {
    fn answered(self, status: Option<u16>) -> Seen {
        Seen::Request {
            method: self.method,
            path: self.path,
            status,
            took: self.at.elapsed(),
        }
    }
}

fn request(head: &[u8]) -> Option<(Asked, Body)> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let whole = parsed.parse(head).is_ok_and(|status| status.is_complete());
    if !whole {
        return None;
    }
    let (path, _) = parsed.path?.split_once('?').unwrap_or((parsed.path?, ""));
    let asked = Asked {
        method: shown(parsed.method?),
        path: shown(path),
        at: Instant::now(),
    };
    let body = body(parsed.headers).unwrap_or(Body::Length(0));
    Some((asked, body))
}

fn response(head: &[u8]) -> Option<(u16, Body)> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    let whole = parsed.parse(head).is_ok_and(|status| status.is_complete());
    if !whole {
        return None;
    }
    Some((parsed.code?, body(parsed.headers).unwrap_or(Body::Rest)))
}

/// What the fields say about the body; nothing where they do not.
fn body(fields: &[httparse::Header<'_>]) -> Option<Body> {
    let values = |name: &'static str| {
        fields
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| String::from_utf8_lossy(field.value).trim().to_owned())
    };
    if let Some(coding) = values("transfer-encoding").next_back() {
        let is_chunked = coding
            .rsplit(',')
            .next()
            .is_some_and(|last| last.trim().eq_ignore_ascii_case("chunked"));
        return Some(if is_chunked {
            Body::Chunked
        } else {
            Body::Rest
        });
    }
    let length = values("content-length").next()?;
    Some(length.parse().map_or(Body::Rest, Body::Length))
}

/// What somebody else wrote, fit for a terminal.
fn shown(text: &str) -> String {
    let plain = text.chars().map(|letter| {
        if letter.is_ascii_graphic() {
            letter
        } else {
            '?'
        }
    });
    plain.take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::publish::Protocol;

    /// What goes to the service, and what comes from it.
    enum Part {
        To(&'static str),
        From(&'static str),
    }
    use Part::{From, To};

    #[test]
    fn requests_are_shown_with_their_status_and_without_their_query() {
        let seen = watch(&[
            To("POST /buy?token=secret HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"),
            From("HTTP/1.1 100 Continue\r\n\r\n"),
            To("5\r\nGET /\r\n0\r\n\r\n"),
            From("HTTP/1.1 201 Created\r\ncontent-length: 4\r\n\r\nHTTP"),
            To("HEAD /pic HTTP/1.1\r\nhost: a\r\n\r\n"),
            From("HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n"),
            To("GET /gone HTTP/1.1\r\nhost: a\r\n\r\n"),
            From("HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            To("GET /last HTTP/1.1\r\nhost: a\r\n\r\n"),
        ]);
        assert_eq!(
            seen,
            [
                "POST /buy 201",
                "HEAD /pic 200",
                "GET /gone 404",
                "GET /last -"
            ]
        );
    }

    #[test]
    fn nothing_is_read_of_a_websocket() {
        let seen = watch(&[
            To("GET /chat HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n"),
            From("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n"),
            To("GET /in-a-frame HTTP/1.1\r\n\r\n"),
            From("HTTP/1.1 500 In A Frame\r\n\r\n"),
        ]);
        assert_eq!(seen, ["GET /chat 101"]);
    }

    #[test]
    fn what_is_no_http_shows_nothing() {
        let seen = watch(&[To("SSH-2.0-client\r\n\r\n"), From("SSH-2.0-server\r\n\r\n")]);
        assert!(seen.is_empty(), "{seen:?}");
    }

    #[test]
    fn no_path_reaches_the_terminal_as_more_than_letters() {
        assert_eq!(shown("/a\u{1b}[31mb\u{7}\u{202e}"), "/a?[31mb??");
        assert_eq!(shown(&"x".repeat(1000)).len(), SHOWN_CHARS_MAX);
    }

    fn watch(parts: &[Part]) -> Vec<String> {
        let (watcher, mut seen) = mpsc::channel(64);
        let mut conversation = Conversation::new(Tap::new(Protocol::Http, watcher, Arc::default()));
        for part in parts {
            match part {
                To(text) => conversation.asked(text.as_bytes()),
                From(text) => conversation.answered(text.as_bytes()),
            }
        }
        drop(conversation);
        let mut lines = Vec::new();
        while let Ok(seen) = seen.try_recv() {
            if let Seen::Request {
                method,
                path,
                status,
                ..
            } = seen
            {
                let status = status.map_or("-".to_owned(), |status| status.to_string());
                lines.push(format!("{method} {path} {status}"));
            }
        }
        lines
    }
}
