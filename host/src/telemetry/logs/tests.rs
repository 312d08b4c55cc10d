#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use nowconnect_plugins::{LogEntry, Masked};
use parking_lot::Mutex;
use tracing::{Dispatch, error, info, info_span, warn};

use super::super::decisions::{DecisionAction, DecisionIds, PluginAnswer, Why};
use super::super::events;
use super::super::mask::MaskFailure;
use super::super::metrics::Metrics;
use super::super::{Settings, Telemetry, build};
use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn a_json_line_has_its_event_and_fields() {
    let log = Log::start(LogSettings::default());
    log.run(|| {
        let _span = info_span!("session", agent_id = "dc1", attempt = 2_u64).entered();
        info!(
            event = events::LISTENER_STARTED,
            listener = "ldaps",
            port = 6361_u64,
            attempt = 3_u64,
            ratio = 0.5,
            "listening"
        );
    });
    let line = &log.json()[0];
    assert_eq!(line["event"], "listener_started");
    assert_eq!(line["level"], "info");
    assert_eq!(line["message"], "listening");
    assert_eq!(line["port"], 6361);
    assert_eq!(line["agent_id"], "dc1", "a span's field stands on the line");
    assert_eq!(line["attempt"], 3, "the event's own field wins");
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn text_lines_are_for_people() {
    let log = Log::start(LogSettings {
        format: LogFormat::Text,
        ..LogSettings::default()
    });
    log.run(|| {
        info!(
            event = events::CONNECTION_OPEN,
            cid = 7_u64,
            note = "a b",
            "hi\nthere"
        )
    });
    let text = log.text();
    assert!(text.contains(" INFO  nowconnect"), "{text}");
    assert!(
        text.ends_with("[connection open] hi\\nthere cid=7 note=\"a b\"\n"),
        "{text}"
    );
}

#[test]
fn the_corpus_of_secrets_never_comes_out() {
    let log = Log::start(LogSettings::default());
    let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzM2NyM3QifQ.c2lnbmF0dXJl";
    let pem = "-----BEGIN PRIVATE KEY-----\nczNjcjN0a2V5\n-----END PRIVATE KEY-----";
    log.run(|| {
        info!(token = "s3cr3t", authorization = ?"Bearer s3cr3t", payload = ?[7_u8; 4], "x");
        info!(
            nb_token = 77_123_u64,
            url = "wss://u:s3cr3t@hub/?token=s3cr3t",
            "y"
        );
        info!("dial failed: Authorization: Bearer s3cr3tvalue");
        info!(error = %jwt, key = pem, "{jwt}");
        let span = info_span!(
            "s",
            password = "s3cr3t",
            client_secret = tracing::field::Empty
        );
        span.record("client_secret", "s3cr3t");
        span.in_scope(|| info!("in a span"));
        let failed = std::io::Error::other("GET https://u:s3cr3t@idp/ failed");
        let failed: &(dyn std::error::Error + 'static) = &failed;
        info!(error = failed, bytes = &b"s3cr3t"[..], "z");
    });
    let text = log.text();
    assert_eq!(text.lines().count(), 6);
    for secret in [
        "s3cr3t",
        "77123",
        "eyJ",
        "czNjcjN0a2V5",
        "[7, 7, 7, 7]",
        "s3cr3tvalue",
    ] {
        assert!(!text.contains(secret), "`{secret}` in {text}");
    }
    assert!(text.contains("<6 bytes>"));
}

#[test]
fn no_line_can_be_forged() {
    let log = Log::start(LogSettings::default());
    log.run(|| {
        info!(
            name = "a\"}\n{\"level\":\"error\u{1b}[2J\u{202e}",
            "m\r\n{{}}"
        )
    });
    let text = log.text();
    assert_eq!(text.lines().count(), 1);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    assert_eq!(
        log.json()[0]["name"],
        "a\"}\n{\"level\":\"error\u{1b}[2J\u{202e}"
    );
}

#[test]
fn long_values_are_cut() {
    let log = Log::start(LogSettings::default());
    let long = "é".repeat(MAX_VALUE_BYTES * 3);
    log.run(|| info!(long, "{}", long));
    let text = log.text();
    assert!(text.len() < 3 * MAX_VALUE_BYTES, "{} bytes", text.len());
    assert!(text.contains("bytes)"));
}

#[test]
fn the_level_changes_while_it_runs() {
    let log = Log::start(LogSettings::default());
    log.run(|| {
        tracing::debug!("before");
        log.telemetry.level.set("debug").unwrap();
        tracing::debug!("after");
        assert!(log.telemetry.level.set("loud").is_err());
        assert_eq!(log.telemetry.level.current(), "debug");
        log.telemetry.level.set("off").unwrap();
        error!("off");
    });
    let messages: Vec<String> = log.messages();
    assert_eq!(messages, ["after"]);
}

#[test]
fn only_what_was_covered_is_masked() {
    let log = Log::start(LogSettings::default());
    log.telemetry.logs.set_masker(Some(Arc::new(Users)));
    log.run(|| {
        info!(
            user = "alice",
            mail = "alice@example.org",
            pin_code = 4711,
            port = 4711,
            "hello alice"
        );
        info!(user = "alice", "second");
        info!("nobody");
    });
    let lines = log.json();
    assert_eq!(lines[0]["message"], "***");
    assert_eq!(lines[0]["mail"], "***.org");
    assert_eq!(lines[0]["pin_code"], "***");
    assert_eq!(lines[0]["user"], "#");
    assert_eq!(
        lines[0]["port"], 4711,
        "what was not covered keeps its form"
    );
    assert_eq!(lines[1]["message"], "***");
    assert_eq!(lines[2]["message"], "nobody");
    assert!(!log.text().contains("alice"));
}

#[test]
fn a_plugins_own_lines_get_the_floor_only() {
    let log = Log::start(LogSettings::default());
    log.telemetry.logs.set_masker(Some(Arc::new(Users)));
    log.run(|| {
        info!(target: events::PLUGIN, user = "alice", "token=s3cr3t");
    });
    assert_eq!(log.json()[0]["user"], "alice");
    assert_eq!(log.json()[0]["message"], "token=***");
}

#[test]
fn a_masker_that_fails_costs_the_values_and_never_shows_them() {
    for how in [
        How::Error,
        How::Panic,
        How::Hang,
        How::AddsField,
        How::RenamesField,
    ] {
        let log = Log::start(LogSettings::default());
        log.telemetry.logs.set_masker(Some(Arc::new(Broken(how))));
        log.run(|| {
            warn!(event = events::CIDR_BLOCKED, user = "alice", "hello alice");
            info!(event = "alice", "x");
        });
        let text = log.text();
        assert!(!text.contains("alice"), "{how:?}: {text}");
        let lines = log.json();
        let kept = lines
            .iter()
            .find(|line| line["event"] == "cidr_blocked")
            .unwrap();
        assert_eq!(kept["level"], "warn");
        assert_eq!(kept["user"], "***");
        assert_eq!(kept["target"], "nowconnect::telemetry::logs::tests");
        assert!(
            lines
                .iter()
                .any(|line| line["event"] == events::LOG_MASK_FAILED)
        );
        let metrics = log.metrics.render();
        assert!(
            !metrics.contains("nowconnect_redaction_drops_total 0"),
            "{metrics}"
        );
    }
}

#[test]
fn records_wait_for_an_expected_masker() {
    let log = Log::start(LogSettings {
        expect_masker: true,
        ..LogSettings::default()
    });
    log.emit(|| info!(user = "alice", "early"));
    assert!(!log.telemetry.logs.flush(Duration::from_millis(50)));
    assert_eq!(log.output.lock().len(), 0);
    log.telemetry.logs.set_masker(Some(Arc::new(Users)));
    assert!(!log.text().contains("alice"));
    assert_eq!(log.json().len(), 1);
}

#[test]
fn a_masker_that_never_comes_costs_the_values() {
    let mut log = Log::start(LogSettings {
        expect_masker: true,
        ..LogSettings::default()
    });
    log.emit(|| info!(user = "alice", "early"));
    log.telemetry.shutdown(DEADLINE);
    let text = log.text();
    assert!(!text.contains("alice"));
    assert!(text.contains("\"user\":\"***\""), "{text}");
}

#[test]
fn drops_are_counted_and_a_gap_is_written() {
    let log = Log::start(LogSettings {
        queue_records: 4,
        ..LogSettings::default()
    });
    let (held, release) = log.hold_output();
    log.emit(|| {
        info!("first");
        held.recv_timeout(DEADLINE).unwrap();
        for number in 0..10_u64 {
            info!(number, "more");
        }
    });
    drop(release);
    let lines = log.json();
    let gap = lines
        .iter()
        .find(|line| line["event"] == "log_gap")
        .unwrap();
    assert_eq!(gap["dropped"], 6);
    assert_eq!(
        log.messages().iter().filter(|text| *text == "more").count(),
        4
    );
    let text = log.metrics.render();
    assert!(
        text.contains("nowconnect_log_dropped_total{reason=\"queue_full\"} 6"),
        "{text}"
    );
}

#[test]
fn errors_and_security_records_pass_a_full_queue() {
    let log = Log::start(LogSettings {
        queue_records: 1,
        expect_masker: true,
        ..LogSettings::default()
    });
    log.emit(|| {
        // The writer holds what it took and the queue what comes next; both wait for a masker.
        info!("ordinary");
        wait_until(|| log.telemetry.logs.shared.queue.is_empty());
        info!("ordinary");
        assert!(log.telemetry.logs.shared.queue.push(filler()).is_err());
        error!(password = "s3cr3t", "broken Bearer s3cr3tvalue");
        warn!(target: events::SECURITY, event = events::AUTH_FAILED, "refused");
        info!("ordinary too");
    });
    let seen = String::from_utf8(log.output.lock().clone()).unwrap();
    assert!(
        seen.contains("auth_failed") && seen.contains("broken"),
        "{seen}"
    );
    assert!(
        !seen.contains("s3cr3t") && !seen.contains("ordinary"),
        "{seen}"
    );
}

#[test]
fn a_shutdown_that_cannot_finish_saves_what_is_urgent() {
    let mut log = Log::start(LogSettings {
        queue_records: 100,
        ..LogSettings::default()
    });
    log.telemetry
        .logs
        .set_masker(Some(Arc::new(Broken(How::Hang))));
    log.emit(|| {
        info!("goes to the masker");
        wait_until(|| log.telemetry.logs.shared.queue.is_empty());
        error!("urgent");
        info!("lost");
    });
    log.telemetry.shutdown(Duration::from_millis(1));
    let seen = String::from_utf8(log.output.lock().clone()).unwrap();
    assert!(
        seen.contains("urgent") && seen.contains("log_gap"),
        "{seen}"
    );
    assert!(!seen.contains("lost"), "{seen}");
    let text = log.metrics.render();
    assert!(
        text.contains("nowconnect_log_dropped_total{reason=\"shutdown\"} 1"),
        "{text}"
    );
}

#[test]
fn shutdown_writes_what_waits_and_refuses_the_rest() {
    let mut log = Log::start(LogSettings::default());
    log.emit(|| {
        for number in 0..1000_u64 {
            info!(number, "kept");
        }
    });
    log.telemetry.shutdown(DEADLINE);
    log.emit(|| {
        info!("too late");
        error!("late but urgent");
    });
    let text = log.text();
    assert_eq!(text.matches("kept").count(), 1000);
    assert!(!text.contains("too late") && text.contains("late but urgent"));
}

#[test]
fn an_output_that_is_stuck_holds_nobody_for_long() {
    let log = Log::start(LogSettings {
        queue_records: 1,
        ..LogSettings::default()
    });
    let (held, release) = log.hold_output();
    log.emit(|| {
        info!("first");
        held.recv_timeout(DEADLINE).unwrap();
        for _ in 0..200 {
            error!("stuck");
        }
    });
    drop(release);
    log.flush();
    let text = log.metrics.render();
    assert!(
        text.contains("nowconnect_log_dropped_total{reason=\"output\"}"),
        "{text}"
    );
}

#[test]
fn a_panic_is_one_record_with_the_floor() {
    let log = Log::start(LogSettings::default());
    let earlier = std::panic::take_hook();
    install_panic_hook(log.telemetry.logs.clone());
    let ended = std::thread::Builder::new()
        .name(String::from("worker-3"))
        .spawn(|| panic!("cannot dial wss://u:s3cr3t@hub"))
        .unwrap()
        .join();
    std::panic::set_hook(earlier);
    assert!(ended.is_err());
    // Other tests of this process may panic on purpose meanwhile.
    let lines = log.json();
    let line = lines
        .iter()
        .find(|line| line["thread"] == "worker-3")
        .unwrap();
    assert_eq!(line["event"], "panic");
    assert_eq!(line["message"], "cannot dial wss://***@hub");
    assert!(line["location"].as_str().unwrap().contains("tests.rs"));
}

#[test]
fn a_decision_is_one_line() {
    let log = Log::start(LogSettings {
        covers: Covers {
            client_ips: true,
            ..Covers::default()
        },
        ..LogSettings::default()
    });
    let ids = DecisionIds::new(1);
    let mut record = DecisionRecord::new(
        ids.next_id(),
        1_700_000_000_123,
        "hub-1".into(),
        3,
        DecisionAction::Open,
        (false, Why::Plugin),
    );
    record.client = Some("192.0.2.77:4000".parse::<SocketAddr>().unwrap());
    record.plugin = Some(PluginAnswer {
        name: "geo".into(),
        digest: None,
        code: String::from("geo_denied"),
        reason: Some(String::from("in \u{202e}XX")),
    });
    let record = Arc::new(record.redacted());
    log.run(|| log.telemetry.logs.decision(&record));
    let line = &log.json()[0];
    assert_eq!(line["event"], "decision");
    assert_eq!(line["time"], "2023-11-14T22:13:20.123000Z");
    assert_eq!(line["level"], "warn");
    assert_eq!(line["decision_id"], "1-1");
    assert_eq!(line["client"], "192.0.2.0:4000");
    assert_eq!(line["plugin"]["code"], "geo_denied");
    assert!(!log.text().contains('\u{202e}'));
    assert_eq!(line["latency"]["total_us"], 0);
}

#[test]
fn the_documentation_lists_every_event() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/logs.md");
    let document = std::fs::read_to_string(path).unwrap();
    for event in events::ALL {
        let row = format!("| `{event}` | ");
        assert!(
            document.contains(&row),
            "docs/logs.md has no row for `{event}`"
        );
    }
}

#[test]
fn every_event_in_the_code_has_its_name_in_the_list() {
    let mut unknown = Vec::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src"
    ))];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs")
            {
                let source = std::fs::read_to_string(&path).unwrap();
                for part in source.split("event = \"").skip(1) {
                    let name = part.split('"').next().unwrap();
                    seen += 1;
                    if !events::ALL.contains(&name) {
                        unknown.push(format!("{name} in {}", path.display()));
                    }
                }
            }
        }
    }
    assert!(seen > 0);
    assert!(
        unknown.is_empty(),
        "add to `telemetry/events.rs`: {unknown:#?}"
    );
}

#[test]
fn covers_reach_addresses_and_mail() {
    let all = Covers {
        emails: true,
        client_ips: true,
        agent_ips: true,
    };
    let covered = |name: &str, text: &str| {
        let mut text = text.to_owned();
        all.cover(name, &mut text);
        text
    };
    assert_eq!(
        covered("client", "[2001:db8:1:2::3]:80"),
        "[2001:db8:1::]:80"
    );
    assert_eq!(covered("client_ip", "::ffff:192.0.2.7"), "192.0.2.0");
    assert_eq!(covered("agent_address", "192.0.2.7:9"), "192.0.2.0:9");
    assert_eq!(covered("peer", "192.0.2.7:9"), "192.0.2.0:9");
    assert_eq!(covered("address", "192.0.2.7:9"), "192.0.2.7:9");
    assert_eq!(
        covered("message", "to <a.b+c@example.org>, é@x"),
        "to <***@example.org>, é@x"
    );
    assert_eq!(covered("message", "@ a@b.c @"), "@ ***@b.c @");
}

/// A log that writes into memory, or blocks while it is held.
struct Log {
    output: Arc<Mutex<Vec<u8>>>,
    gate: Arc<Gate>,
    dispatch: Dispatch,
    telemetry: Telemetry,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Gate {
    held: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

struct GatedOutput(Arc<Mutex<Vec<u8>>>, Arc<Gate>);

impl Write for GatedOutput {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some((reached, released)) = self.1.held.lock().take() {
            let _ = reached.send(());
            // Ends when the test drops its side.
            let _ = released.recv_timeout(DEADLINE);
        }
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start(logs: LogSettings) -> Self {
        let (output, gate) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<Gate>::default());
        let metrics = Metrics::new();
        let settings = Settings { logs, traces: None };
        let gated = GatedOutput(Arc::clone(&output), Arc::clone(&gate));
        let (dispatch, telemetry) = build(&settings, Box::new(gated), &metrics).unwrap();
        Self {
            output,
            gate,
            dispatch,
            telemetry,
            metrics,
        }
    }

    /// Blocks the next write: the receiver tells when it is reached, dropping the sender lets it
    /// go on.
    fn hold_output(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (reached, held) = mpsc::channel();
        let (release, released) = mpsc::channel();
        *self.gate.held.lock() = Some((reached, released));
        (held, release)
    }

    fn emit(&self, work: impl FnOnce()) {
        tracing::dispatcher::with_default(&self.dispatch, work);
    }

    fn run(&self, work: impl FnOnce()) {
        self.emit(work);
        self.flush();
    }

    fn flush(&self) {
        assert!(self.telemetry.logs.flush(DEADLINE), "the writer is stuck");
    }

    fn text(&self) -> String {
        self.flush();
        String::from_utf8(self.output.lock().clone()).unwrap()
    }

    fn json(&self) -> Vec<serde_json::Value> {
        let text = self.text();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn messages(&self) -> Vec<String> {
        self.json()
            .iter()
            .filter_map(|line| line["message"].as_str().map(str::to_owned))
            .collect()
    }
}

/// Covers users and pins, messages about users, and keeps the ends of mail addresses.
struct Users;

impl LogMasker for Users {
    fn mask<'a>(&'a self, batch: &'a mut [LogEntry]) -> BoxFuture<'a, Result<Masked, MaskFailure>> {
        for record in batch {
            for (name, value) in &mut record.fields {
                match name.as_str() {
                    "user" => {
                        *value = String::from("#");
                        record.message = String::from("***");
                    }
                    "mail" => *value = format!("***{}", &value[value.len() - 4..]),
                    "pin_code" => *value = String::from("***"),
                    _ => {}
                }
            }
        }
        Box::pin(std::future::ready(Ok(Masked::default())))
    }
}

#[derive(Debug, Clone, Copy)]
enum How {
    Error,
    Panic,
    Hang,
    AddsField,
    RenamesField,
}

struct Broken(How);

impl LogMasker for Broken {
    fn mask<'a>(&'a self, batch: &'a mut [LogEntry]) -> BoxFuture<'a, Result<Masked, MaskFailure>> {
        let how = self.0;
        Box::pin(async move {
            match how {
                How::Error => {
                    return Err(MaskFailure {
                        reason: String::from("trap"),
                    });
                }
                How::Panic => panic!("a masker fails on purpose"),
                How::Hang => std::future::pending().await,
                How::AddsField => {
                    let forged = (String::from("forged"), String::from("1"));
                    batch[0].fields.push(forged);
                }
                How::RenamesField => {
                    for (name, _) in &mut batch[0].fields {
                        *name = String::from("forged");
                    }
                    batch[0].fields.push((String::new(), String::new()));
                }
            }
            Ok(Masked::default())
        })
    }
}

fn filler() -> Record {
    Record::internal(tracing::Level::INFO, "filler", "ordinary")
}

fn wait_until(condition: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "the condition never held");
        std::thread::sleep(Duration::from_millis(1));
    }
}
