//! Answers to requests that are sent again.

use super::*;

fn keyed(caller: &str, key: &str, request: &str, until_ms: u64) -> Keyed {
    Keyed {
        caller: caller.to_owned(),
        key: key.to_owned(),
        answer: Answer {
            request: request.to_owned(),
            status: 201,
            body: "{}".to_owned(),
            until_ms,
        },
        limit: 2,
    }
}

/// Claims one more endpoint, with an answer about it.
fn answered(store: &Store, id: &str, keyed: &Keyed) -> Result<Endpoint, ClaimRefused> {
    let new = new_endpoint(&endpoint(id, &format!("n{id}"), id), false);
    let limits = Limits {
        total: 100,
        ..LIMITS
    };
    store.claim_endpoint(&new, 0, limits, nobody_is_here, Some(keyed))
}

#[test]
fn an_answer_is_for_its_caller_and_request() {
    let store = Store::in_memory().unwrap();
    answered(&store, "1", &keyed("a", "b:c", "r", 10)).unwrap();
    let look = |caller, key, request, now_ms| store.answer(caller, key, request, now_ms).unwrap();
    assert!(matches!(look("a", "b:c", "r", 9), Remembered::Same(_)));
    assert_eq!(look("a", "b:c", "other", 9), Remembered::Other);
    assert_eq!(look("a:b", "c", "r", 9), Remembered::Nothing);
    assert_eq!(look("a", "b:c", "r", 10), Remembered::Nothing);
}

#[test]
fn an_answer_is_kept_with_what_it_tells_of_or_not_at_all() {
    let store = Store::in_memory().unwrap();
    answered(&store, "1", &keyed("a", "k1", "r", 10)).unwrap();
    answered(&store, "1", &keyed("a", "k2", "r", 10)).unwrap_err();
    let nothing = store.answer("a", "k2", "r", 0).unwrap();
    assert_eq!(nothing, Remembered::Nothing);
}

#[test]
fn a_caller_with_many_answers_pushes_out_its_own() {
    let store = Store::in_memory().unwrap();
    answered(&store, "0", &keyed("other", "k", "r", 1)).unwrap();
    for (id, until) in [("1", 50), ("2", 60), ("3", 70)] {
        answered(&store, id, &keyed("a", id, "r", until)).unwrap();
    }
    let look = |caller: &str, key: &str| store.answer(caller, key, "r", 0).unwrap();
    assert_eq!(look("a", "1"), Remembered::Nothing, "the earliest end");
    for (caller, key) in [("a", "2"), ("a", "3"), ("other", "k")] {
        assert!(matches!(look(caller, key), Remembered::Same(_)), "{key}");
    }
}

#[test]
fn answers_whose_time_is_over_leave_the_file() {
    let store = Store::in_memory().unwrap();
    answered(&store, "1", &keyed("a", "k", "r", 10)).unwrap();
    answered(&store, "2", &keyed("a", "l", "r", 20)).unwrap();
    assert_eq!(store.forget_answers(9, 10).unwrap(), 0);
    assert_eq!(store.forget_answers(10, 10).unwrap(), 1);
    let left = |table: schema::Json| {
        let mut left = 0;
        let each = |_: &str, _: serde_json::Value| {
            left += 1;
            true
        };
        store
            .read(|transaction| table.each(transaction, None, each))
            .unwrap();
        left
    };
    assert_eq!((left(schema::ANSWERS), left(schema::ANSWER_ENDS)), (1, 1));
}
