#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{self, Write};

use futures_util::future::BoxFuture;
use nowconnect_plugins::{LogEntry, Masked};
use parking_lot::{Condvar, Mutex};
use serde_json::Value;

use super::lane::{Lost, Output};
use super::line::Line;
use super::*;
use crate::telemetry::decisions::{DecisionIds, Why};
use crate::telemetry::mask::MaskFailure;

/// How long anything may take. Reached only where a test fails.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn denies_and_operators_are_never_sampled_and_allows_keep_their_share() {
    let taken = Memory::default();
    let sinks = start(&taken, |settings| {
        settings.sample_allows = 0.25;
        settings.deny_burst = 0;
    });
    for number in 0..100 {
        sinks.record(&decision(DecisionAction::Open, true, number));
        sinks.record(&decision(DecisionAction::Open, false, number));
        sinks.record(&decision(DecisionAction::Admin, true, number));
    }
    assert!(sinks.flush(SOON));
    let lines = taken.lines();
    let count = |action: &str, allow: bool| {
        let found = lines
            .iter()
            .filter(|line| line["action"] == action && line["allow"] == allow);
        found.count()
    };
    assert_eq!(count("open", true), 25);
    assert_eq!(count("open", false), 100);
    assert_eq!(count("admin", true), 100);
    let allow = lines.iter().find(|line| line["allow"] == true).unwrap();
    assert_eq!(allow["sampled"], 0.25);
}

#[test]
fn a_flood_of_equal_denies_is_counted_and_no_other_deny_is_hidden_by_it() {
    let taken = Memory::default();
    let sinks = start(&taken, |settings| settings.deny_burst = 5);
    for number in 0..1000 {
        sinks.record(&decision(DecisionAction::Open, false, number));
    }
    let mut other = DecisionRecord::clone(&decision(DecisionAction::Open, false, 1));
    other.client = Some("198.51.100.9:1".parse().unwrap());
    sinks.record(&Arc::new(other));
    assert!(sinks.flush(SOON));
    let lines = taken.lines();
    let flood: Vec<&Value> = lines
        .iter()
        .filter(|line| line["client"].as_str().unwrap().starts_with("192.0.2.7:"))
        .collect();
    let alone = flood.iter().filter(|line| line["record"] == "decision");
    let repeated: Vec<_> = flood
        .iter()
        .filter(|line| line["record"] == "repeated")
        .collect();
    let counted: u64 = repeated
        .iter()
        .map(|line| line["count"].as_u64().unwrap())
        .sum();
    assert_eq!(alone.count() as u64 + counted, 1000);
    // The test may run over the end of a second, which begins another window.
    assert!(lines.len() < 100, "{} lines", lines.len());
    assert!(repeated[0]["first"].as_str().unwrap() <= repeated[0]["last"].as_str().unwrap());
    assert!(lines.iter().any(|line| line["client"] == "198.51.100.9:1"));
}

#[test]
fn what_a_full_queue_drops_is_counted_and_stands_as_a_gap() {
    for when_full in [WhenFull::DropNew, WhenFull::DropOld] {
        let taken = Memory::default();
        taken.hold();
        let metrics = Metrics::new();
        let sinks = start_with(&taken, &metrics, |settings| {
            settings.when_full = when_full;
            settings.queue_bytes = 10 * decision(DecisionAction::Open, true, 0).weight_bytes();
        });
        sinks.record(&decision(DecisionAction::Open, true, 0));
        taken.until_somebody_writes();
        for number in 1..=30 {
            sinks.record(&decision(DecisionAction::Open, true, number));
        }
        taken.release();
        assert!(sinks.flush(SOON));
        let lines = taken.lines();
        let numbers: Vec<u64> = lines
            .iter()
            .filter(|line| line["record"] == "decision")
            .map(|line| line["generation"].as_u64().unwrap())
            .collect();
        let gap = lines.iter().find(|line| line["record"] == "gap").unwrap();
        let dropped = gap["dropped"].as_u64().unwrap();
        assert_eq!(numbers.len() as u64 + dropped, 31, "{when_full:?}");
        assert!(dropped >= 20, "{when_full:?}: {dropped}");
        assert_eq!(gap["dropped_denies"], 0);
        let has_last = numbers.contains(&30);
        assert_eq!(has_last, when_full == WhenFull::DropOld, "{numbers:?}");
        let line = format!(
            "nowconnect_decision_log_dropped_total{{output=\"test\",reason=\"queue_full\"}} {dropped}"
        );
        assert!(metrics.render().contains(&line), "{line}");
    }
}

#[test]
fn who_blocks_waits_once_and_not_again_until_the_output_moves() {
    let taken = Memory::default();
    taken.hold();
    let wait = Duration::from_millis(200);
    let sinks = start(&taken, |settings| {
        settings.when_full = WhenFull::Block(wait);
        settings.queue_bytes = 4 * decision(DecisionAction::Open, true, 0).weight_bytes();
    });
    sinks.record(&decision(DecisionAction::Open, true, 0));
    taken.until_somebody_writes();
    let started = Instant::now();
    for number in 0..20 {
        sinks.record(&decision(DecisionAction::Open, true, number));
    }
    assert!(started.elapsed() >= wait, "nobody waited");
    assert!(started.elapsed() < 10 * wait, "each waited");
    taken.release();
    assert!(sinks.flush(SOON));
    let lines = taken.lines();
    let gap = lines.iter().find(|line| line["record"] == "gap").unwrap();
    assert_eq!(
        gap["dropped"].as_u64().unwrap() + lines.len() as u64 - 1,
        21
    );
}

/// The line about a flood is made by the output's own thread. Where the queue has no room for it,
/// that thread would wait for itself.
#[test]
fn an_output_never_waits_for_room_in_its_own_queue() {
    let taken = Memory::default();
    let sinks = start(&taken, |settings| {
        settings.deny_burst = 1;
        settings.when_full = WhenFull::Block(Duration::from_secs(3600));
        // Enough for one decision, and not for what is said about several.
        let [deny, allow] = [false, true].map(|allow| decision(DecisionAction::Open, allow, 0));
        settings.queue_bytes = deny.weight_bytes().max(allow.weight_bytes());
    });
    sinks.record(&decision(DecisionAction::Open, false, 0));
    sinks.record(&decision(DecisionAction::Open, false, 1));
    // What comes after the window of the flood carries what is missing. From a thread of its own,
    // because where the output waits for itself so does everybody.
    let sinks = Arc::new(sinks);
    let caller = Arc::downgrade(&sinks);
    let records = std::thread::spawn(move || {
        let mut number = 2;
        while let Some(sinks) = caller.upgrade() {
            sinks.record(&decision(DecisionAction::Open, true, number));
            number += 1;
            drop(sinks);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let gap = |lines: Vec<Value>| lines.into_iter().find(|line| line["record"] == "gap");
    let deadline = Instant::now() + SOON;
    let found = loop {
        if let Some(found) = gap(taken.lines()) {
            break found;
        }
        assert!(Instant::now() < deadline, "the output waits for itself");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(found["dropped_denies"], 1);
    drop(sinks);
    records.join().unwrap();
}

#[test]
fn an_output_that_hangs_holds_up_neither_callers_nor_the_end() {
    let taken = Memory::default();
    taken.hold();
    let metrics = Metrics::new();
    let sinks = start_with(&taken, &metrics, |_| {});
    let started = Instant::now();
    for number in 0..1000 {
        sinks.record(&decision(DecisionAction::Open, true, number));
    }
    sinks.shutdown(Duration::from_millis(50));
    assert!(started.elapsed() < SOON / 4);
    let text = metrics.render();
    let left = "nowconnect_decision_log_dropped_total{output=\"test\",reason=\"shutdown\"} 1000";
    assert!(text.contains(left), "{text}");
    taken.release();
}

#[test]
fn a_full_disk_loses_what_it_does_not_take_and_says_how_much() {
    let disk = Disk::default();
    disk.0.lock().room = 700;
    let metrics = Metrics::new();
    let stream = file::Stream::new(disk.clone());
    let outputs: Vec<(&'static str, Box<dyn Output>)> = vec![("test", Box::new(stream))];
    let sinks = DecisionSinks::with_outputs(&settings(), outputs, None, &metrics).unwrap();
    for number in 0..10 {
        sinks.record(&decision(DecisionAction::Open, number % 2 == 0, number));
        assert!(sinks.flush(SOON));
    }
    disk.0.lock().room = usize::MAX;
    sinks.record(&decision(DecisionAction::Open, true, 10));
    assert!(sinks.flush(SOON));
    let text = String::from_utf8(disk.0.lock().bytes.clone()).unwrap();
    let (whole, cut): (Vec<_>, Vec<_>) = text
        .lines()
        .map(serde_json::from_str::<Value>)
        .partition(Result::is_ok);
    assert_eq!(
        cut.len(),
        1,
        "the line that was cut swallowed another:\n{text}"
    );
    let lines: Vec<Value> = whole.into_iter().map(Result::unwrap).collect();
    let gap = lines.iter().find(|line| line["record"] == "gap").unwrap();
    let decisions = lines.iter().filter(|line| line["record"] == "decision");
    assert_eq!(
        decisions.count() as u64 + gap["dropped"].as_u64().unwrap(),
        11
    );
    assert_eq!(lines.last().unwrap()["generation"], 10);
    let lost = gap["dropped"].as_u64().unwrap();
    let counted = format!(
        "nowconnect_decision_log_dropped_total{{output=\"test\",reason=\"output\"}} {lost}"
    );
    assert!(metrics.render().contains(&counted), "{counted}");
}

#[test]
fn a_device_without_room_is_an_error_and_no_end() {
    let metrics = Metrics::new();
    let mut full = settings();
    full.output = Some(DecisionOutput::File(PathBuf::from("/dev/full")));
    let sinks = DecisionSinks::start(&full, None, &metrics)
        .unwrap()
        .unwrap();
    sinks.record(&decision(DecisionAction::Open, true, 1));
    assert!(sinks.flush(SOON));
    let lost = "nowconnect_decision_log_dropped_total{output=\"file\",reason=\"output\"} 1";
    assert!(metrics.render().contains(lost));
}

#[test]
fn a_file_that_was_moved_away_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("decisions.jsonl");
    let mut to_file = settings();
    to_file.output = Some(DecisionOutput::File(path.clone()));
    let sinks = DecisionSinks::start(&to_file, None, &Metrics::new())
        .unwrap()
        .unwrap();
    sinks.record(&decision(DecisionAction::Open, true, 1));
    assert!(sinks.flush(SOON));
    let old = dir.path().join("decisions.jsonl.1");
    std::fs::rename(&path, &old).unwrap();
    sinks.reopen();
    sinks.record(&decision(DecisionAction::Open, true, 2));
    assert!(sinks.flush(SOON));
    let generation = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path).unwrap();
        let line: Value = serde_json::from_str(text.trim()).unwrap();
        line["generation"].as_u64().unwrap()
    };
    assert_eq!((generation(&old), generation(&path)), (1, 2));
    let mut nowhere = settings();
    nowhere.output = Some(DecisionOutput::File(dir.path().join("no/such/file")));
    assert!(DecisionSinks::start(&nowhere, None, &Metrics::new()).is_err());
}

#[test]
fn mask_plugins_see_each_line_and_their_failure_costs_the_values() {
    let taken = Memory::default();
    let masked = start_masked(&taken, Arc::new(CoverClients));
    masked.record(&decision(DecisionAction::Open, false, 1));
    assert!(masked.flush(SOON));
    assert_eq!(taken.lines()[0]["client"], "covered");
    assert_eq!(taken.lines()[0]["principal"], "Viewer::\"anonymous\"");

    let taken = Memory::default();
    let failing = start_masked(&taken, Arc::new(Fails));
    failing.record(&decision(DecisionAction::Open, false, 7));
    assert!(failing.flush(SOON));
    let line = &taken.lines()[0];
    assert_eq!(line["client"], "***");
    assert_eq!(line["principal"], "***");
    assert_eq!(line["generation"], 7);
    assert_eq!(line["allow"], false);
}

#[test]
fn only_named_fields_of_the_question_are_written() {
    let question = nowconnect_policy::Question::UpstreamOpen(nowconnect_policy::UpstreamOpen {
        meta: nowconnect_policy::Meta {
            now_ms: 1,
            hub: Arc::from("hub"),
            request_id: Arc::from("r"),
            trace_id: None,
            recheck: false,
        },
        connector: nowconnect_policy::Name::bare("ldap"),
        agent: nowconnect_policy::Name::bare("plant"),
        why: "Bearer abcdefghijklmnopqrstuvwxyz0123456789".to_owned(),
    });
    let mut record = DecisionRecord::clone(&decision(DecisionAction::UpstreamOpen, true, 1));
    record.question = Some(crate::telemetry::decisions::Question::new(Arc::new(
        question,
    )));
    let taken = Memory::default();
    let off = start(&taken, |_| {});
    off.record(&Arc::new(record.clone()));
    assert!(off.flush(SOON));
    assert!(taken.lines()[0].get("context").is_none());

    let taken = Memory::default();
    let on = start(&taken, |settings| {
        settings.context = ["connector", "meta.hub", "why", "no.such"]
            .map(str::to_owned)
            .to_vec();
    });
    on.record(&Arc::new(record));
    assert!(on.flush(SOON));
    let context = &taken.lines()[0]["context"];
    assert_eq!(context["connector"], "ldap");
    assert_eq!(context["meta.hub"], "hub");
    assert!(
        !context["why"].to_string().contains("abcdefghijkl"),
        "{context}"
    );
    assert_eq!(context.as_object().unwrap().len(), 3);
}

#[derive(Clone, Default)]
struct Memory {
    lines: Arc<Mutex<Vec<Value>>>,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Default)]
struct Gate {
    held: bool,
    waiting: bool,
}

impl Memory {
    fn lines(&self) -> Vec<Value> {
        self.lines.lock().clone()
    }

    fn hold(&self) {
        self.gate.0.lock().held = true;
    }

    fn release(&self) {
        self.gate.0.lock().held = false;
        self.gate.1.notify_all();
    }

    fn until_somebody_writes(&self) {
        let mut gate = self.gate.0.lock();
        while !gate.waiting {
            let late = self.gate.1.wait_for(&mut gate, SOON).timed_out();
            assert!(!late, "nobody writes");
        }
    }
}

impl Output for Memory {
    fn write(&mut self, lines: &[Line]) -> Result<(), Lost> {
        let mut gate = self.gate.0.lock();
        gate.waiting = true;
        self.gate.1.notify_all();
        while gate.held {
            self.gate.1.wait(&mut gate);
        }
        drop(gate);
        let mut taken = self.lines.lock();
        for line in lines {
            let mut text = String::new();
            line.push_json(&mut text);
            match serde_json::from_str(&text) {
                Ok(line) => taken.push(line),
                Err(error) => panic!("{text}: {error}"),
            }
        }
        Ok(())
    }
}

/// A disk that takes so many bytes.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock();
        let taken = bytes.len().min(disk.room);
        if taken == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.room -= taken;
        disk.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct CoverClients;

impl LogMasker for CoverClients {
    fn mask<'a>(&'a self, batch: &'a mut [LogEntry]) -> BoxFuture<'a, Result<Masked, MaskFailure>> {
        for (name, value) in batch.iter_mut().flat_map(|entry| &mut entry.fields) {
            if name == "client" {
                "covered".clone_into(value);
            }
        }
        Box::pin(std::future::ready(Ok(Masked::default())))
    }
}

struct Fails;

impl LogMasker for Fails {
    fn mask<'a>(&'a self, _: &'a mut [LogEntry]) -> BoxFuture<'a, Result<Masked, MaskFailure>> {
        Box::pin(std::future::ready(Err(MaskFailure {
            reason: "on purpose".to_owned(),
        })))
    }
}

fn settings() -> DecisionLogSettings {
    DecisionLogSettings {
        output: None,
        collector: None,
        queue_bytes: 8 << 20,
        when_full: WhenFull::DropNew,
        sample_allows: 1.0,
        deny_burst: 0,
        context: Vec::new(),
        covers: Covers::default(),
    }
}

fn start(taken: &Memory, change: impl FnOnce(&mut DecisionLogSettings)) -> DecisionSinks {
    start_with(taken, &Metrics::new(), change)
}

fn start_with(
    taken: &Memory,
    metrics: &Arc<Metrics>,
    change: impl FnOnce(&mut DecisionLogSettings),
) -> DecisionSinks {
    let mut settings = settings();
    change(&mut settings);
    let outputs: Vec<(&'static str, Box<dyn Output>)> = vec![("test", Box::new(taken.clone()))];
    DecisionSinks::with_outputs(&settings, outputs, None, metrics).unwrap()
}

fn start_masked(taken: &Memory, masker: Arc<dyn LogMasker>) -> DecisionSinks {
    let outputs: Vec<(&'static str, Box<dyn Output>)> = vec![("test", Box::new(taken.clone()))];
    DecisionSinks::with_outputs(&settings(), outputs, Some(masker), &Metrics::new()).unwrap()
}

fn decision(action: DecisionAction, allow: bool, number: u64) -> Arc<DecisionRecord> {
    let ids = DecisionIds::new(1);
    let why = if allow {
        Why::Permitted
    } else {
        Why::Forbidden
    };
    let mut record = DecisionRecord::new(
        ids.next_id(),
        1_700_000_000_000 + number,
        Arc::from("hub"),
        number,
        action,
        (allow, why),
    );
    record.principal = "Viewer::\"anonymous\"".to_owned();
    record.client = Some("192.0.2.7:4711".parse().unwrap());
    Arc::new(record)
}
