#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::{Value, json};

use super::{Question, read_cases};
use crate::hook::Hook;

#[test]
fn every_hook_has_an_ordinary_question_and_hostile_ones() {
    for hook in Hook::ALL {
        assert_eq!(Question::ordinary(hook).hook(), hook);
        let asked = super::hostile::questions(hook);
        assert!(asked.len() >= 5, "{hook}: {}", asked.len());
        assert!(asked.iter().all(|(_, question)| question.hook() == hook));
    }
}

#[test]
fn an_input_says_only_what_it_is_about() {
    let input = json!({"peer": {"ip": "198.51.100.7"}, "viewer": {"attributes": {"team": "a"}}});
    let Question::Open(open) = Question::parse(Hook::Open, input).unwrap() else {
        panic!("it is an open");
    };
    assert_eq!(
        (open.peer.ip.as_str(), open.peer.port),
        ("198.51.100.7", 50_000)
    );
    assert_eq!(
        open.viewer.attributes,
        [("team".to_owned(), "a".to_owned())]
    );
    assert_eq!(open.connector, "db");
}

#[test]
fn headers_are_an_object_or_pairs_and_may_be_bytes() {
    for headers in [
        json!({"x-a": {"base64": "/w=="}}),
        json!([["x-a", {"base64": "/w=="}]]),
    ] {
        let input = json!({ "headers": headers });
        let Question::HttpRequest(request) = Question::parse(Hook::HttpRequest, input).unwrap()
        else {
            panic!("it is a request");
        };
        assert_eq!(request.headers, [("x-a".to_owned(), vec![0xff])]);
    }
}

#[test]
fn a_key_that_is_not_known_is_refused() {
    for input in [json!({"conector": "db"}), json!({"peer": {"adress": ""}})] {
        let error = Question::parse(Hook::Open, input).unwrap_err().to_string();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn case_files_hold_one_case_or_a_list() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, value: Value| {
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    };
    let error = read_cases(folder.path(), None).unwrap_err();
    assert!(error.to_string().contains("no case"), "{error}");
    write(
        "b.json",
        json!([{"hook": "close"}, {"name": "second", "hook": "open"}]),
    );
    write("a.json", json!({"name": "first", "hook": "open"}));
    let cases = read_cases(folder.path(), None).unwrap();
    let names: Vec<&str> = cases.iter().map(|(_, case)| case.name.as_str()).collect();
    assert_eq!(names, ["first", "0", "second"]);

    write("c.json", json!({"name": "typo", "hok": "open"}));
    let error = read_cases(folder.path(), None).unwrap_err().to_string();
    assert!(
        error.contains("`typo`") && error.contains("`hok`"),
        "{error}"
    );
    write("c.json", json!({"hook": "opens"}));
    let error = read_cases(folder.path(), None).unwrap_err().to_string();
    assert!(
        error.contains("`opens`") && error.contains("http_request"),
        "{error}"
    );
}
