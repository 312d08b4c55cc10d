//! Requests that may be sent again: with one `Idempotency-Key` a thing is done once, and every
//! request with the key gets the first one's answer for a day.
//!
//! The answer is written in one step with what it tells of, so that also after a crash either both
//! are there or neither. It holds tokens, so whoever can send the same request with the same key
//! must be the same caller: a client proves it, and anonymous callers, who may share an address,
//! have to choose a key that nobody guesses.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use http::HeaderMap;
use nowconnect_control::Maker;
use nowconnect_store::{Answer as Kept, Keyed, Remembered, Store};
use parking_lot::Mutex;

use super::api::now_ms;
use crate::admin::problem::{Problem as Refusal, ProblemCode as Code};

/// The header.
const HEADER: &str = "idempotency-key";
/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;
/// How long an answer is kept, in milliseconds: a day.
const KEPT_MS: u64 = 86_400_000;
/// Answers that are kept for one client, of some 2 KiB each.
const MAX_KEPT: usize = 1000;
/// Answers that are kept for all anonymous callers together.
const MAX_KEPT_ANONYMOUS: usize = 10_000;
/// Shortest key of an anonymous caller: that of a UUID without its hyphens.
const MIN_SECRET_KEY_BYTES: usize = 32;

/// Who asks for what under which key.
pub(super) struct Once {
    /// Keeps one caller's keys from another's.
    pub(super) caller: String,
    /// `None`: each request is another.
    pub(super) key: Option<String>,
    /// A digest of the request.
    pub(super) request: String,
    /// How many answers are kept for the caller.
    limit: usize,
}

impl Once {
    /// A request of a client or, from an address, of somebody unknown.
    ///
    /// # Errors
    /// A key that an anonymous caller shows could be guessed.
    pub(super) fn new(
        maker: &Maker,
        from: SocketAddr,
        key: Option<String>,
        request: String,
    ) -> Result<Self, Refusal> {
        match maker {
            Maker::Client(client) => Ok(Self {
                caller: format!("client {} {}", client.tenant, client.sub),
                key,
                request,
                limit: MAX_KEPT,
            }),
            Maker::Anonymous => {
                if key
                    .as_ref()
                    .is_some_and(|key| key.len() < MIN_SECRET_KEY_BYTES)
                {
                    let detail = "without a token the answer goes to whoever has the \
                                  `Idempotency-Key`: choose a random one of at least 32 \
                                  characters, such as a UUID";
                    return Err(Refusal::new(Code::InvalidRequest, detail));
                }
                Ok(Self {
                    caller: "anonymous".to_owned(),
                    key: key.map(|key| format!("{} {key}", from.ip().to_canonical())),
                    request,
                    limit: MAX_KEPT_ANONYMOUS,
                })
            }
        }
    }
}

/// How an answer is remembered, to be written with what it tells of.
pub(super) struct Keep(Option<Once>);

impl Keep {
    /// The answer with this body; nothing where the request has no key.
    pub(super) fn answer(&self, body: &str) -> Option<Keyed> {
        let once = self.0.as_ref()?;
        Some(Keyed {
            caller: once.caller.clone(),
            key: once.key.clone()?,
            answer: Kept {
                request: once.request.clone(),
                status: 201,
                body: body.to_owned(),
                until_ms: now_ms().saturating_add(KEPT_MS),
            },
            limit: once.limit,
        })
    }
}

/// Requests with a key that are being done.
#[derive(Debug, Default)]
pub(super) struct Requests {
    under_way: Mutex<BTreeSet<(String, String)>>,
}

/// The key of a request, if it has one.
pub(super) fn key_of(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut keys = headers.get_all(HEADER).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let key = key.to_str().ok().filter(|key| {
        (1..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
    });
    match (key, keys.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => {
            let detail = "`Idempotency-Key` is one text of 1 to 255 letters, digits and signs";
            Err(Refusal::new(Code::InvalidRequest, detail))
        }
    }
}

impl Requests {
    /// Does the work, which writes its own answer, or gives the answer that the same request got
    /// before. Blocks on the disk. What was refused is not kept: asked again, it may be allowed.
    ///
    /// # Errors
    /// What the work says, or the key stands for something else.
    pub(super) fn answer(
        &self,
        store: &Store,
        once: Once,
        work: impl FnOnce(&Keep) -> Result<String, Refusal>,
    ) -> Result<String, Refusal> {
        let Some(key) = once.key.clone() else {
            return work(&Keep(None));
        };
        let _turn = self.begin(&once.caller, &key)?;
        match store.answer(&once.caller, &key, &once.request, now_ms())? {
            Remembered::Same(kept) => return Ok(kept.body),
            Remembered::Other => {
                return Err(conflict("`Idempotency-Key` was used for another request"));
            }
            Remembered::Nothing => {}
        }
        work(&Keep(Some(once)))
    }

    fn begin(&self, caller: &str, key: &str) -> Result<Turn<'_>, Refusal> {
        let name = (caller.to_owned(), key.to_owned());
        if !self.under_way.lock().insert(name.clone()) {
            return Err(conflict(
                "a request with this `Idempotency-Key` is being done; send it again in a moment",
            ));
        }
        Ok(Turn {
            requests: self,
            name,
        })
    }
}

/// A request under way; over when dropped.
struct Turn<'a> {
    requests: &'a Requests,
    name: (String, String),
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.requests.under_way.lock().remove(&self.name);
    }
}

fn conflict(detail: &str) -> Refusal {
    Refusal::new(Code::IdempotencyConflict, detail)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use nowconnect_store::{Endpoint, Limits, NewEndpoint};

    use super::*;

    fn once(key: &str, request: &str) -> Once {
        Once {
            caller: "client acme ops".to_owned(),
            key: Some(key.to_owned()),
            request: request.to_owned(),
            limit: MAX_KEPT,
        }
    }

    /// Does something that leaves a trace, with its answer.
    fn done(store: &Store, number: u32, keep: &Keep) -> Result<String, Refusal> {
        const LIMITS: Limits = Limits {
            per_tenant: 100,
            total: 100,
            deleted_per_tenant: 100,
            deleted_per_source: 100,
        };
        let body = format!("answer {number}");
        let new = NewEndpoint {
            endpoint: Endpoint {
                id: format!("tun_{number}"),
                name: format!("n{number}"),
                tenant: "acme".to_owned(),
                agent: String::new(),
                made_by: "ops".to_owned(),
                source: String::new(),
                protocol: "http".to_owned(),
                made_ms: 0,
                kept_until_ms: u64::MAX,
                was_held: false,
                token_id: None,
                port: None,
            },
            again: false,
            others: None,
        };
        let answered = keep.answer(&body);
        store.claim_endpoint(&new, 0, LIMITS, |_| false, answered.as_ref())?;
        Ok(body)
    }

    #[test]
    fn a_thing_is_done_once_for_each_key() {
        let (requests, store) = (Requests::default(), Store::in_memory().unwrap());
        let mut number = 0;
        let mut ask = |once: Once| {
            requests.answer(&store, once, |keep| {
                number += 1;
                done(&store, number, keep)
            })
        };
        assert_eq!(ask(once("a", "r")).unwrap(), "answer 1");
        assert_eq!(ask(once("a", "r")).unwrap(), "answer 1");
        let other = ask(once("a", "s")).unwrap_err();
        assert_eq!(other.code, "idempotency_conflict");
        assert_eq!(ask(once("b", "r")).unwrap(), "answer 2");
        let somebody = Once {
            caller: "client acme dev".to_owned(),
            ..once("a", "r")
        };
        assert_eq!(ask(somebody).unwrap(), "answer 3");
        let none = Once {
            key: None,
            ..once("", "r")
        };
        assert_eq!(ask(none).unwrap(), "answer 4");
    }

    #[test]
    fn callers_that_share_an_address_cannot_guess_each_others_keys() {
        let from: SocketAddr = "192.0.2.7:1234".parse().unwrap();
        let ask =
            |key: &str| Once::new(&Maker::Anonymous, from, Some(key.to_owned()), String::new());
        for guessed in ["1", "create", "ci-job-20261121"] {
            assert_eq!(ask(guessed).err().unwrap().code, "invalid_request");
        }
        assert!(ask("9f3c1a52-7d0e-4e6b-8a53-0b1f2c3d4e5f").is_ok());
        assert!(Once::new(&Maker::Anonymous, from, None, String::new()).is_ok());
    }

    #[test]
    fn what_was_refused_may_be_asked_again() {
        let (requests, store) = (Requests::default(), Store::in_memory().unwrap());
        let no = |_: &Keep| Err(Refusal::new(Code::Denied, "no"));
        assert_eq!(
            requests
                .answer(&store, once("a", "r"), no)
                .unwrap_err()
                .code,
            "denied"
        );
        let yes = requests.answer(&store, once("a", "r"), |_| Ok("yes".to_owned()));
        assert_eq!(yes.unwrap(), "yes");
    }

    #[test]
    fn the_same_key_waits_for_nobody() {
        let (requests, store) = (Requests::default(), Store::in_memory().unwrap());
        let answer = requests.answer(&store, once("a", "r"), |_| {
            let second = requests.answer(&store, once("a", "r"), |_| Ok(String::new()));
            assert_eq!(second.unwrap_err().code, "idempotency_conflict");
            Ok("first".to_owned())
        });
        assert_eq!(answer.unwrap(), "first");
    }

    #[test]
    fn a_key_is_one_short_text() {
        let mut headers = HeaderMap::new();
        assert_eq!(key_of(&headers).unwrap(), None);
        headers.append(HEADER, "k-1".parse().unwrap());
        assert_eq!(key_of(&headers).unwrap().as_deref(), Some("k-1"));
        headers.append(HEADER, "k-2".parse().unwrap());
        assert!(key_of(&headers).is_err());
        for bad in [String::new(), "a b".to_owned(), "k".repeat(256)] {
            let headers = [(HEADER.parse().unwrap(), bad.parse().unwrap())];
            assert!(key_of(&headers.into_iter().collect()).is_err(), "{bad}");
        }
    }
}
