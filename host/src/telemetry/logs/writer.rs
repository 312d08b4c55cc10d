//! The writer's thread: masks batches and writes them.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use nowconnect_plugins::{LogEntry, Masked};
use tracing::Level;

use super::super::events;
use super::super::mask::{LogMasker, MAX_MASK_BATCH, MaskFailure};
use super::super::metrics::LogDrop;
use super::super::redact::ERASED;
use super::format::push_line;
use super::record::{Record, Value};
use super::{MASK_TIMEOUT, MASKER_WAIT, Shared};

/// After a small batch the writer rests so long, so that a busy hub wakes it per batch and not
/// per record.
const GATHER: Duration = Duration::from_millis(2);

/// A batch of this many is not small.
const LARGE_BATCH: usize = MAX_MASK_BATCH / 4;

/// Shortest time between two records about failed masking.
const FAILURE_INTERVAL: Duration = Duration::from_secs(10);

thread_local! {
    static IN_WRITER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is the writer's thread: what masking itself logs is not masked again.
pub(super) fn in_writer_thread() -> bool {
    IN_WRITER.with(Cell::get)
}

/// The place of the masker.
pub(super) struct MaskSlot {
    masker: ArcSwapOption<Arc<dyn LogMasker>>,
    expected: AtomicBool,
}

impl MaskSlot {
    pub(super) fn new(expected: bool) -> Self {
        Self {
            masker: ArcSwapOption::empty(),
            expected: AtomicBool::new(expected),
        }
    }

    pub(super) fn set(&self, masker: Option<Arc<dyn LogMasker>>) {
        self.masker.store(masker.map(Arc::new));
        self.expected.store(false, Ordering::Release);
    }

    fn current(&self) -> Option<Arc<dyn LogMasker>> {
        let masker = self.masker.load_full()?;
        masker.is_active().then(|| Arc::clone(&*masker))
    }

    fn is_expected(&self) -> bool {
        self.expected.load(Ordering::Acquire)
    }
}

impl Shared {
    /// Into the queue; past it where that is full and the record urgent.
    pub(super) fn push(&self, record: Record) {
        let Err(record) = self.queue.push(record) else {
            return;
        };
        if record.is_urgent() {
            self.write_now(record);
        } else {
            let why = if self.queue.is_closed() {
                LogDrop::Shutdown
            } else {
                LogDrop::QueueFull
            };
            self.metrics.dropped(why, 1);
            self.queue.count_refused(1);
        }
    }

    /// Writes a record in the caller's thread, with the floor only.
    pub(super) fn write_now(&self, mut record: Record) {
        record.unfold_decision(self.covers);
        let mut line = String::new();
        push_line(&mut line, self.format, &record);
        if self.sink.write_without_delay(line.as_bytes()) {
            self.metrics.written(1);
        } else {
            self.metrics.dropped(LogDrop::Output, 1);
            self.queue.count_refused(1);
        }
    }

    /// Deals with what a stuck writer left.
    pub(super) fn abandon_queue(&self) {
        let left = self.queue.abandon();
        let mut dropped = 0;
        for record in left.records {
            if record.is_urgent() {
                self.write_now(record);
            } else {
                dropped += 1;
            }
        }
        self.metrics.dropped(LogDrop::Shutdown, dropped);
        let missing = dropped + left.refused;
        if missing > 0 {
            self.write_now(gap(missing));
        }
    }
}

/// The state of the writer's thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
    last_failure: Option<Instant>,
    lines: String,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            runtime: None,
            last_failure: None,
            lines: String::new(),
        }
    }

    pub(super) fn run(mut self) {
        IN_WRITER.with(|flag| flag.set(true));
        loop {
            let taken = self.shared.queue.take(MAX_MASK_BATCH);
            self.await_expected_masker();
            let count = taken.records.len();
            if taken.refused > 0 {
                self.push_own(gap(taken.refused));
            }
            let written = self.push_batch(taken.records);
            self.write_lines(written);
            self.shared.queue.done(count);
            if taken.last {
                return;
            }
            if count < LARGE_BATCH {
                std::thread::sleep(GATHER);
            }
        }
    }

    /// Lets records wait at start until it is known who masks them.
    fn await_expected_masker(&self) {
        let until = Instant::now() + MASKER_WAIT;
        let slot = &self.shared.masker;
        while slot.is_expected() && !self.shared.queue.is_closed() && Instant::now() < until {
            std::thread::sleep(GATHER);
        }
    }

    /// Masks a batch and puts its lines in; returns their number.
    fn push_batch(&mut self, mut batch: Vec<Record>) -> u64 {
        for record in &mut batch {
            record.unfold_decision(self.shared.covers);
        }
        let maskable: Vec<usize> = (0..batch.len())
            .filter(|at| !batch[*at].floor_only)
            .collect();
        if !maskable.is_empty()
            && let Err(failure) = self.mask(&mut batch, &maskable)
        {
            for at in &maskable {
                batch[*at].strip_values();
            }
            self.shared.metrics.masking_failed(maskable.len() as u64);
            self.report_failure(&failure);
        }
        for record in &batch {
            push_line(&mut self.lines, self.shared.format, record);
        }
        batch.len() as u64
    }

    fn mask(&mut self, batch: &mut [Record], maskable: &[usize]) -> Result<(), MaskFailure> {
        let Some(masker) = self.shared.masker.current() else {
            if self.shared.masker.is_expected() {
                return Err(failure("the mask plugins are not loaded yet"));
            }
            return Ok(());
        };
        let mut entries: Vec<LogEntry> = maskable.iter().map(|at| entry_of(&batch[*at])).collect();
        let masked = self.ask(masker.as_ref(), &mut entries)?;
        if masked.erased_by_failure {
            self.shared.metrics.masking_failed(entries.len() as u64);
            self.report_failure(&failure(
                "a mask plugin failed; its part of a batch is erased",
            ));
        }
        if entries.len() != maskable.len() {
            return Err(failure("the masker changed the number of records"));
        }
        for (at, entry) in maskable.iter().zip(entries) {
            cover(&mut batch[*at], entry)?;
        }
        Ok(())
    }

    fn ask(
        &mut self,
        masker: &dyn LogMasker,
        entries: &mut [LogEntry],
    ) -> Result<Masked, MaskFailure> {
        if self.runtime.is_none() {
            let built = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            self.runtime = Some(built.map_err(|_| failure("no runtime for the mask plugins"))?);
        }
        let Some(runtime) = &self.runtime else {
            return Err(failure("no runtime for the mask plugins"));
        };
        let asked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            runtime
                .block_on(async { tokio::time::timeout(MASK_TIMEOUT, masker.mask(entries)).await })
        }));
        match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(failure("no answer in time")),
            Err(_) => Err(failure("the masker panicked")),
        }
    }

    fn report_failure(&mut self, failure: &MaskFailure) {
        let now = Instant::now();
        let recently = self
            .last_failure
            .is_some_and(|last| now.duration_since(last) < FAILURE_INTERVAL);
        if !recently {
            self.last_failure = Some(now);
            let message = failure.to_string();
            self.push_own(Record::internal(
                Level::ERROR,
                events::LOG_MASK_FAILED,
                &message,
            ));
        }
    }

    fn push_own(&mut self, record: Record) {
        push_line(&mut self.lines, self.shared.format, &record);
    }

    fn write_lines(&mut self, records: u64) {
        if self.lines.is_empty() {
            return;
        }
        if self.shared.sink.write(self.lines.as_bytes()) {
            self.shared.metrics.written(records);
        } else {
            self.shared.metrics.dropped(LogDrop::Output, records);
            self.shared.queue.count_refused(records);
        }
        self.lines.clear();
        self.lines.shrink_to(MAX_KEPT_LINE_BYTES);
    }
}

/// Memory that the line buffer keeps between batches.
const MAX_KEPT_LINE_BYTES: usize = 256 * 1024;

fn entry_of(record: &Record) -> LogEntry {
    let fields = record
        .fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.to_text()))
        .collect();
    LogEntry {
        level: plugin_level(record.level),
        target: record.target.to_owned(),
        message: record.message.clone(),
        fields,
    }
}

/// Takes over what a masker covered. A field that it left out is erased.
fn cover(record: &mut Record, entry: LogEntry) -> Result<(), MaskFailure> {
    record.message = entry.message;
    let mut answers = entry.fields.into_iter().peekable();
    for (name, value) in &mut record.fields {
        match answers.next_if(|(answered, _)| answered == name) {
            Some((_, answer)) if answer == value.to_text() => {}
            Some((_, answer)) => *value = Value::Text(answer),
            None => *value = Value::Text(String::from(ERASED)),
        }
    }
    match answers.next() {
        None => Ok(()),
        Some(_) => Err(failure(
            "the masker answered a field that the record has not",
        )),
    }
}

const fn plugin_level(level: Level) -> nowconnect_plugins::Level {
    match level {
        Level::ERROR => nowconnect_plugins::Level::Error,
        Level::WARN => nowconnect_plugins::Level::Warn,
        Level::INFO => nowconnect_plugins::Level::Info,
        Level::DEBUG => nowconnect_plugins::Level::Debug,
        Level::TRACE => nowconnect_plugins::Level::Trace,
    }
}

fn gap(records: u64) -> Record {
    let mut record = Record::internal(
        Level::WARN,
        events::LOG_GAP,
        "log records are missing before this one",
    );
    record.fields.push(("dropped", Value::Natural(records)));
    record
}

fn failure(reason: &str) -> MaskFailure {
    MaskFailure {
        reason: reason.to_owned(),
    }
}
