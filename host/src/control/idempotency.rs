//! Requests that may be sent again: with one `Idempotency-Key` a thing is done once, and every
//! request with the key gets the first one's answer for a day.

use std::collections::BTreeSet;

use http::HeaderMap;
use nowconnect_store::{Answer as Kept, Remembered, Store};
use parking_lot::Mutex;

use super::api::now_ms;
use crate::admin::problem::{Problem as Refusal, ProblemCode as Code};

/// The header.
const HEADER: &str = "idempotency-key";
/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;
/// How long an answer is kept, in milliseconds: a day.
const KEPT_MS: u64 = 86_400_000;
/// Answers that are kept, of some 2 KiB each.
const MAX_KEPT: u64 = 10_000;

/// Who asks for what under which key.
pub(super) struct Once {
    /// Keeps one caller's keys from another's.
    pub(super) caller: String,
    /// `None`: each request is another.
    pub(super) key: Option<String>,
    /// A digest of the request.
    pub(super) request: String,
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
    /// Does the work, or gives the answer that the same request got before. Blocks on the disk.
    /// What was refused is not kept: asked again, it may be allowed.
    ///
    /// # Errors
    /// What the work says, or the key stands for something else.
    pub(super) fn answer(
        &self,
        store: &Store,
        once: Once,
        work: impl FnOnce() -> Result<String, Refusal>,
    ) -> Result<String, Refusal> {
        let Some(key) = once.key else {
            return work();
        };
        let _turn = self.begin(&once.caller, &key)?;
        match store.answer(&once.caller, &key, &once.request, now_ms())? {
            Remembered::Same(kept) => return Ok(kept.body),
            Remembered::Other => {
                return Err(conflict("`Idempotency-Key` was used for another request"));
            }
            Remembered::Nothing => {}
        }
        let body = work()?;
        let kept = Kept {
            request: once.request,
            status: 201,
            body: body.clone(),
            until_ms: now_ms().saturating_add(KEPT_MS),
        };
        store.remember_answer(&once.caller, &key, &kept, now_ms(), MAX_KEPT)?;
        Ok(body)
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

    use super::*;

    fn once(key: &str, request: &str) -> Once {
        Once {
            caller: "client acme ops".to_owned(),
            key: Some(key.to_owned()),
            request: request.to_owned(),
        }
    }

    #[test]
    fn a_thing_is_done_once_for_each_key() {
        let (requests, store) = (Requests::default(), Store::in_memory().unwrap());
        let mut done = 0;
        let mut ask = |once: Once| {
            requests.answer(&store, once, || {
                done += 1;
                Ok(format!("answer {done}"))
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
    fn what_was_refused_may_be_asked_again() {
        let (requests, store) = (Requests::default(), Store::in_memory().unwrap());
        let no = || Err(Refusal::new(Code::Denied, "no"));
        assert_eq!(
            requests
                .answer(&store, once("a", "r"), no)
                .unwrap_err()
                .code,
            "denied"
        );
        let yes = requests.answer(&store, once("a", "r"), || Ok("yes".to_owned()));
        assert_eq!(yes.unwrap(), "yes");
    }

    #[test]
    fn the_same_key_waits_for_nobody() {
        let (requests, store) = (Requests::default(), Store::in_memory().unwrap());
        let answer = requests.answer(&store, once("a", "r"), || {
            let second = requests.answer(&store, once("a", "r"), || Ok(String::new()));
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
