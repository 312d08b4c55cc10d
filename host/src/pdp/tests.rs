#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

pub(crate) mod server;

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::config::CloudConfig;
use server::{Reply, Seen, Server, serve};

/// The timeout of questions that are expected to fail.
const SHORT: Duration = Duration::from_millis(300);

const ALLOW: &str = "{\"decision\":true}";
const DENY: &str = "{\"decision\":false}";

#[tokio::test]
async fn an_allow_is_kept_for_the_same_question_and_generation_only() {
    let server = serve(|_, _| Reply::Json(ALLOW.to_owned())).await;
    let pdp = pdp(&server, |_| {});
    let first = one(&pdp, 1, question("a")).await;
    assert!(first.allow && !first.cached);
    let second = one(&pdp, 1, question("a")).await;
    assert!(second.allow && second.cached);
    assert!(!one(&pdp, 1, question("b")).await.cached);
    assert!(!one(&pdp, 2, question("a")).await.cached);
    assert_eq!(server.seen().len(), 3);
    assert_eq!(server.seen()[0].path(), "/access/v1/evaluation");
}

#[tokio::test]
async fn a_deny_is_asked_for_each_time() {
    let server = serve(|_, _| Reply::Json(DENY.to_owned())).await;
    let pdp = pdp(&server, |_| {});
    for _ in 0..2 {
        let answer = one(&pdp, 1, question("a")).await;
        assert_eq!((answer.allow, answer.code), (false, DENIED));
    }
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn whatever_is_no_answer_denies_in_time() {
    let giant = format!("{{\"decision\":true,\"x\":\"{}\"}}", "x".repeat(1 << 20));
    let raw = |text: &str| text.as_bytes().to_vec();
    type Make = Box<dyn Fn() -> Reply + Send + Sync>;
    let bad: Vec<(&str, Make)> = vec![
        ("never a byte", Box::new(|| Reply::Stall(Vec::new()))),
        (
            "half an answer",
            Box::new(move || {
                Reply::Stall(raw(
                    "HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{\"decision\":",
                ))
            }),
        ),
        (
            "a length that is too long",
            Box::new(move || {
                Reply::Raw(raw(
                    "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"decision\":true}",
                ))
            }),
        ),
        (
            "a length that is too short",
            Box::new(move || {
                Reply::Raw(raw(
                    "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"decision\":true}",
                ))
            }),
        ),
        (
            "a giant length",
            Box::new(move || {
                Reply::Stall(raw(
                    "HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n{",
                ))
            }),
        ),
        (
            "two lengths",
            Box::new(move || {
                Reply::Raw(raw(
                    "HTTP/1.1 200 OK\r\ncontent-length: 17\r\ncontent-length: 2\r\n\r\n{\"decision\":true}",
                ))
            }),
        ),
        ("a giant body", Box::new(move || Reply::Json(giant.clone()))),
        ("a body without end", Box::new(|| Reply::Endless)),
        (
            "garbage",
            Box::new(|| Reply::Json("<html>ok</html>".to_owned())),
        ),
        ("an empty body", Box::new(|| Reply::Json(String::new()))),
        ("a closed connection", Box::new(|| Reply::Raw(Vec::new()))),
        (
            "no HTTP",
            Box::new(move || Reply::Raw(raw("{\"decision\":true}\r\n\r\n"))),
        ),
        (
            "an error that says allow",
            Box::new(move || {
                Reply::Raw(raw(
                    "HTTP/1.1 500 No\r\ncontent-length: 17\r\n\r\n{\"decision\":true}",
                ))
            }),
        ),
        (
            "nothing to say",
            Box::new(move || Reply::Raw(raw("HTTP/1.1 204 No Content\r\n\r\n"))),
        ),
        (
            "the answer to another request",
            Box::new(move || {
                Reply::Raw(raw(
                    "HTTP/1.1 200 OK\r\nx-request-id: 7-7\r\ncontent-length: 17\r\n\r\n{\"decision\":true}",
                ))
            }),
        ),
    ];
    for (what, make) in bad {
        let server = serve(move |_, _| make()).await;
        let started = Instant::now();
        let answer = one(&pdp(&server, |_| {}), 1, question("a")).await;
        assert_eq!((answer.allow, answer.code), (false, UNAVAILABLE), "{what}");
        assert!(answer.failed, "{what}");
        assert!(started.elapsed() < 10 * SHORT, "{what}");
        // The same fault with the operator's leave to go on.
        let answer = one(
            &pdp(&server, |config| config.on_error = PdpOnError::Allow),
            1,
            question("a"),
        )
        .await;
        assert!(answer.allow && answer.failed, "{what}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = serve(|_, _| Reply::Json(ALLOW.to_owned())).await;
    let to = other.url.clone();
    let server = serve(move |_, _| {
        let head = format!(
            "HTTP/1.1 307 Go\r\nlocation: {to}/access/v1/evaluation\r\ncontent-length: 0\r\n\r\n"
        );
        Reply::Raw(head.into_bytes())
    })
    .await;
    let answer = one(&pdp(&server, |_| {}), 1, question("a")).await;
    assert!(!answer.allow);
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn nobody_there_denies() {
    let server = serve(|_, _| Reply::Json(ALLOW.to_owned())).await;
    let pdp = pdp(&server, |_| {});
    server.task_ends().await;
    let answer = one(&pdp, 1, question("a")).await;
    assert_eq!((answer.allow, answer.code), (false, UNAVAILABLE));
}

#[tokio::test]
async fn one_that_flaps_admits_only_what_it_allows_just_then() {
    let server = serve(|number, _| match number % 3 {
        0 => Reply::Json(ALLOW.to_owned()),
        1 => Reply::Raw(Vec::new()),
        _ => Reply::Json("nonsense".to_owned()),
    })
    .await;
    let pdp = pdp(&server, |config| config.cache_ttl = Duration::ZERO);
    for number in 0..12 {
        let before = server.seen().len();
        let answer = one(&pdp, 1, question("a")).await;
        // A lost connection may be tried again by the client, so the server's count decides.
        let said_allow = (before..server.seen().len()).any(|number| number % 3 == 0);
        assert!(!answer.allow || said_allow, "question {number}");
    }
}

#[tokio::test]
async fn an_older_allow_serves_in_trouble_only_where_that_is_wanted_and_never_after_a_deny() {
    let script = |number: usize, _: &Seen| match number {
        0 | 2 => Reply::Json("{\"allow\":true,\"ttl_sec\":0}".to_owned()),
        4 => Reply::Json("{\"allow\":false}".to_owned()),
        _ => Reply::Json("trouble".to_owned()),
    };
    let server = serve(script).await;
    let change = |config: &mut PdpConfig| {
        config.kind = PdpKind::Simple;
        config.on_error = PdpOnError::AllowIfCached;
        config.breaker_failures = 100;
    };
    let pdp = pdp(&server, change);
    let asked = || one(&pdp, 1, simple("a"));
    assert!(!asked().await.cached, "0: allow");
    let stale = asked().await;
    assert!(stale.allow && stale.cached && stale.failed, "1: trouble");
    assert!(asked().await.allow, "2: allow");
    let other = one(&pdp, 1, simple("b")).await;
    assert!(
        !other.allow,
        "3: trouble, and nothing kept of this question"
    );
    assert!(!asked().await.allow, "4: deny");
    assert!(!asked().await.allow, "5: trouble after a deny");
}

#[tokio::test]
async fn one_that_fails_is_left_alone_and_tried_again() {
    let server = serve(|number, _| match number {
        0..3 => Reply::Json("trouble".to_owned()),
        _ => Reply::Json(ALLOW.to_owned()),
    })
    .await;
    let pdp = pdp(&server, |config| {
        config.breaker_failures = 3;
        config.breaker_pause = Duration::from_millis(100);
    });
    for number in 0..20 {
        let answer = one(&pdp, 1, question(&number.to_string())).await;
        if number < 4 {
            assert!(!answer.allow);
        }
        if answer.allow {
            assert!(pdp.is_available());
            return;
        }
        if !pdp.is_available() {
            assert_eq!(server.seen().len(), 3, "it was asked while left alone");
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }
    panic!("it was never tried again");
}

#[tokio::test]
async fn many_who_ask_the_same_at_once_are_one_question() {
    let server = serve(|_, _| Reply::Late(Duration::from_millis(100), ALLOW.to_owned())).await;
    let pdp = pdp(&server, |config| config.timeout = Duration::from_secs(10));
    let asked = (0..20).map(|_| one(&pdp, 1, question("a")));
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().all(|answer| answer.allow));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn who_gives_up_does_not_take_the_answer_from_others() {
    let server = serve(|_, _| Reply::Late(Duration::from_millis(100), ALLOW.to_owned())).await;
    let pdp = pdp(&server, |config| config.timeout = Duration::from_secs(10));
    let first = tokio::time::timeout(Duration::from_millis(20), one(&pdp, 1, question("a")));
    let second = one(&pdp, 1, question("a"));
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_err() && second.allow);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_hello_is_one_batch_and_a_batch_that_does_not_fit_denies_all() {
    let server = serve(|number, _| match number {
        0 => Reply::Json(format!("{{\"evaluations\":[{ALLOW},{DENY},{ALLOW}]}}")),
        _ => Reply::Json(format!("{{\"evaluations\":[{ALLOW},{ALLOW}]}}")),
    })
    .await;
    let pdp = pdp(&server, |_| {});
    let three = || ["a", "b", "c"].map(question).to_vec();
    let allowed: Vec<bool> = pdp
        .ask(1, "1-1", three())
        .await
        .iter()
        .map(|answer| answer.allow)
        .collect();
    assert_eq!(allowed, [true, false, true]);
    let seen = &server.seen()[0];
    assert_eq!(seen.path(), "/access/v1/evaluations");
    let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(body["options"]["evaluations_semantic"], "execute_all");
    assert_eq!(body["evaluations"].as_array().unwrap().len(), 3);
    // One answer of the first batch was a deny, so one question is left, and two answers come.
    let again = pdp.ask(2, "1-2", three()).await;
    assert!(again.iter().all(|answer| !answer.allow && answer.failed));
}

#[tokio::test]
async fn a_deny_counts_whatever_happens_to_the_other_questions() {
    // By its question: an allow, a deny, garbage, silence.
    let script = |_: usize, seen: &Seen| match seen.path() {
        "/.well-known/authzen-configuration" => {
            let url = format!("http://{}", seen.header("host").unwrap());
            let document = json!({"policy_decision_point": url,
                "access_evaluation_endpoint": format!("{url}/eval")});
            Reply::Json(document.to_string())
        }
        _ if seen.body.contains("\"denied\"") => Reply::Json(DENY.to_owned()),
        _ if seen.body.contains("\"garbage\"") => Reply::Json("garbage".to_owned()),
        _ if seen.body.contains("\"silence\"") => Reply::Stall(Vec::new()),
        _ => Reply::Json(ALLOW.to_owned()),
    };
    for on_error in [PdpOnError::Deny, PdpOnError::Allow] {
        let server = serve(script).await;
        let pdp = pdp(&server, |config| {
            config.discovery = true;
            config.on_error = on_error;
        });
        let questions = ["silence", "denied", "garbage", "allowed"].map(question);
        let answers = pdp.ask(1, "1-1", questions.to_vec()).await;
        let said: Vec<(bool, bool)> = answers
            .iter()
            .map(|answer| (answer.allow, answer.failed))
            .collect();
        let by_error = on_error == PdpOnError::Allow;
        assert_eq!(
            said,
            [
                (by_error, true),
                (false, false),
                (by_error, true),
                (true, false)
            ],
            "{on_error:?}"
        );
        assert_eq!(answers[1].code, DENIED);
        assert!(one(&pdp, 1, question("allowed")).await.cached);
    }
}

#[tokio::test]
async fn a_deny_beside_trouble_takes_a_kept_allow_away() {
    let both =
        |first: &str, second: &str| Reply::Json(format!("{{\"evaluations\":[{first},{second}]}}"));
    let server = serve(move |number, _| match number {
        0 => both(ALLOW, ALLOW),
        1 => both(DENY, "{\"decision\":1}"),
        _ => Reply::Json("trouble".to_owned()),
    })
    .await;
    let pdp = pdp(&server, |config| {
        config.cache_ttl = Duration::ZERO;
        config.on_error = PdpOnError::AllowIfCached;
        config.breaker_failures = 100;
    });
    let two = || ["a", "b"].map(question).to_vec();
    let allowed = async || {
        let answers = pdp.ask(1, "1-1", two()).await;
        [answers[0].allow, answers[1].allow]
    };
    assert_eq!(allowed().await, [true, true]);
    assert_eq!(
        allowed().await,
        [false, true],
        "one denied, one as it was allowed before"
    );
    assert_eq!(
        allowed().await,
        [false, true],
        "the deny is remembered by what is not kept"
    );
}

#[tokio::test]
async fn what_cannot_be_answered_for_one_does_not_keep_others_from_being_asked() {
    for bad in [
        Ok("{\"decision\":1}"),
        Err("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
        Err("HTTP/1.1 422 Unprocessable Content\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let server = serve(move |_, seen: &Seen| match bad {
            _ if !seen.body.contains("\"odd\"") => Reply::Json(ALLOW.to_owned()),
            Ok(json) => Reply::Json(json.to_owned()),
            Err(raw) => Reply::Raw(raw.as_bytes().to_vec()),
        })
        .await;
        let pdp = pdp(&server, |config| {
            config.breaker_failures = 2;
            config.timeout = Duration::from_secs(10);
        });
        for _ in 0..4 {
            let answer = one(&pdp, 1, question("odd")).await;
            assert!(!answer.allow && answer.failed, "{bad:?}");
        }
        assert!(pdp.is_available(), "{bad:?}");
        assert!(one(&pdp, 1, question("a")).await.allow, "{bad:?}");
    }
}

#[tokio::test]
async fn one_answer_of_a_batch_shows_that_it_is_there() {
    let server = serve(|_, _| {
        let answers = format!("{{\"evaluations\":[{ALLOW},{{\"decision\":1}}]}}");
        Reply::Json(answers)
    })
    .await;
    let pdp = pdp(&server, |config| {
        config.breaker_failures = 1;
        config.cache_ttl = Duration::ZERO;
        config.timeout = Duration::from_secs(10);
    });
    for _ in 0..2 {
        let two = ["a", "odd"].map(question).to_vec();
        let answers = pdp.ask(1, "1-1", two).await;
        assert!(answers[0].allow && answers[1].failed);
        assert!(pdp.is_available());
    }
}

#[tokio::test]
async fn discovery_must_name_the_same_identifier_and_stay_at_its_origin() {
    type Document = fn(&str) -> serde_json::Value;
    let documents: [(&str, Document, bool); 4] = [
        (
            "right",
            |url| {
                json!({"policy_decision_point": url,
            "access_evaluation_endpoint": format!("{url}/eval")})
            },
            true,
        ),
        (
            "another identifier",
            |url| {
                json!({"policy_decision_point": "https://pdp.example",
            "access_evaluation_endpoint": format!("{url}/eval")})
            },
            false,
        ),
        (
            "another origin",
            |url| {
                json!({"policy_decision_point": url,
            "access_evaluation_endpoint": "http://127.0.0.1:1/eval"})
            },
            false,
        ),
        (
            "no endpoint",
            |url| json!({"policy_decision_point": url}),
            false,
        ),
    ];
    for (what, document, right) in documents {
        let server = serve(move |_, seen| match seen.path() {
            "/.well-known/authzen-configuration" => {
                let url = format!("http://{}", seen.header("host").unwrap());
                Reply::Json(document(&url).to_string())
            }
            "/eval" => Reply::Json(ALLOW.to_owned()),
            path => panic!("{path}"),
        })
        .await;
        let pdp = pdp(&server, |config| config.discovery = true);
        let answer = one(&pdp, 1, question("a")).await;
        assert_eq!(answer.allow, right, "{what}: {answer:?}");
        if right {
            // It names no endpoint for batches, so each question is asked by itself.
            let answers = pdp.ask(1, "1-1", ["b", "c"].map(question).to_vec()).await;
            assert!(answers.iter().all(|answer| answer.allow));
            let paths: Vec<String> = server
                .seen()
                .iter()
                .map(|seen| seen.path().to_owned())
                .collect();
            assert_eq!(paths[1..], ["/eval", "/eval", "/eval"]);
        }
    }
}

#[tokio::test]
async fn the_token_is_read_from_its_file_and_sent_with_the_decision_id() {
    let server = serve(|_, _| Reply::Json(ALLOW.to_owned())).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pdp.token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let with_token = pdp(&server, |config| config.token_file = Some(file.clone()));
    assert!(one(&with_token, 1, question("a")).await.allow);
    let seen = &server.seen()[0];
    assert_eq!(seen.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(seen.header("x-request-id"), Some("1-1"));
    assert!(!format!("{with_token:?}").contains("s3cret"));
    std::fs::write(&file, "").unwrap();
    let mut config = config(&server);
    config.pdp.token_file = Some(file);
    assert!(Pdp::new(&config.pdp, &Metrics::new()).is_err());
}

#[tokio::test]
async fn a_certificate_counts_only_under_the_configured_roots() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let pem = dir.path().join("ca.pem");
    std::fs::write(&pem, made.cert.pem()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                let allow = |_: usize, _: &Seen| Reply::Json(ALLOW.to_owned());
                server::answer(stream, &allow, &Mutex::default()).await;
            }
        }
    });
    let ask = async |roots: Option<std::path::PathBuf>| {
        let mut config = CloudConfig::default();
        config.pdp.url = Some(format!("https://localhost:{port}").parse().unwrap());
        config.pdp.ca_bundle = roots;
        config.pdp.timeout = Duration::from_secs(10);
        let pdp = Pdp::new(&config.pdp, &Metrics::new()).unwrap().unwrap();
        one(&pdp, 1, question("a")).await
    };
    assert!(!ask(None).await.allow);
    let answer = ask(Some(pem)).await;
    assert!(answer.allow, "{answer:?}");
    task.abort();
}

fn config(server: &Server) -> CloudConfig {
    let mut config = CloudConfig::default();
    config.pdp.url = Some(server.url.parse().unwrap());
    config.pdp.identifier.clone_from(&server.url);
    config.pdp.timeout = SHORT;
    config
}

fn pdp(server: &Server, change: impl FnOnce(&mut PdpConfig)) -> Pdp {
    let mut config = config(server);
    change(&mut config.pdp);
    Pdp::new(&config.pdp, &Metrics::new()).unwrap().unwrap()
}

fn question(about: &str) -> Evaluation {
    Evaluation::of(json!({"subject": {"type": "Agent", "id": about}}))
}

fn simple(agent: &str) -> Evaluation {
    Evaluation::simple(agent, "ldap", "hub", "nowconnect")
}

async fn one(pdp: &Pdp, generation: u64, question: Evaluation) -> Answer {
    pdp.ask(generation, "1-1", vec![question]).await.remove(0)
}
