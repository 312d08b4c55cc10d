//! The log pipeline.
//!
//! ```text
//! caller's thread                          writer's thread
//! tracing event ─► fields ─► floor ─► queue ─► batch ≤ 256 ─► mask plugins ─► one line each ─► output
//!                              │       full
//!                              └─ error or security record ──────── floor only ──► output, at once
//! ```
//!
//! The queue is bounded in records and bytes; what it has no room for is dropped, counted, and
//! named in a gap record (`event` is `log_gap`). Error and security records are written at once,
//! with the floor, when the queue is full and when the shutdown's deadline has passed; so is the
//! record of a panic. Where masking fails, a record keeps its time, level, target, event and the
//! names of its fields, and loses every value. Lines that plugins wrote
//! ([`events::PLUGIN`](super::events::PLUGIN)) are not shown to mask plugins.
//!
//! Payload is never written: fields of that name are erased, bytes show as their number, and long
//! values are cut.

mod format;
mod layer;
mod level;
mod panics;
mod queue;
mod record;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use super::decisions::DecisionRecord;
use super::mask::LogMasker;
use super::metrics::LogMetrics;
use super::redact::Covers;

pub use format::LogFormat;
pub(super) use format::push_time;
pub(super) use layer::{LogFilter, LogLayer, is_trace_span};
pub use level::{LevelControl, LevelError};
pub(super) use panics::install as install_panic_hook;

use queue::Queue;
use record::Record;
use sink::Sink;
use writer::{MaskSlot, Writer};

/// Records that may wait by default.
pub const DEFAULT_QUEUE_RECORDS: usize = 8192;

/// Bytes that may wait; with the default number of records this leaves 2 KiB for each, three
/// times what a usual one has.
pub const MAX_QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Longest text kept of one value or message, bytes.
pub const MAX_VALUE_BYTES: usize = 4096;

/// Most fields kept of one record; `tracing` itself allows 32 on an event, the rest come from
/// its spans.
pub const MAX_FIELDS: usize = 64;

/// Longest wait for the answer to one batch from the mask plugins.
pub const MASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest time that records wait at start for a masker that is expected; after it they are
/// written without values.
pub const MASKER_WAIT: Duration = Duration::from_secs(5);

/// How logs are written.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// A level, or directives in the form of `tracing`.
    pub level: String,
    /// JSON or text.
    pub format: LogFormat,
    /// Records that may wait for masking and writing.
    pub queue_records: usize,
    /// What the floor covers beyond secrets.
    pub covers: Covers,
    /// Whether a masker will be given: until then records wait, see [`MASKER_WAIT`].
    pub expect_masker: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: String::from("info"),
            format: LogFormat::Json,
            queue_records: DEFAULT_QUEUE_RECORDS,
            covers: Covers::default(),
            expect_masker: false,
        }
    }
}

/// The running log pipeline; cheap to clone.
#[derive(Clone)]
pub struct Logs {
    shared: Arc<Shared>,
}

/// What callers and the writer share.
struct Shared {
    queue: Queue,
    sink: Sink,
    masker: MaskSlot,
    metrics: LogMetrics,
    format: LogFormat,
    covers: Covers,
}

impl Logs {
    /// Starts the writer's thread, which ends after [`Logs::shutdown`].
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start(
        settings: &LogSettings,
        output: Box<dyn Write + Send>,
        metrics: LogMetrics,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Queue::new(settings.queue_records, MAX_QUEUE_BYTES),
            sink: Sink::new(output),
            masker: MaskSlot::new(settings.expect_masker),
            metrics,
            format: settings.format,
            covers: settings.covers,
        });
        let writer = Writer::new(Arc::clone(&shared));
        std::thread::Builder::new()
            .name(String::from("log-writer"))
            .spawn(move || writer.run())?;
        Ok(Self { shared })
    }

    /// Sets or removes the masker, and ends the wait for an expected one.
    pub fn set_masker(&self, masker: Option<Arc<dyn LogMasker>>) {
        self.shared.masker.set(masker);
    }

    /// Writes one decision as a log line, `event` is `decision`.
    ///
    /// Allows have level `info`, denies `warn` and, being security records, a way past a full
    /// queue. The record is turned into text in the writer's thread.
    pub fn decision(&self, record: &Arc<DecisionRecord>) {
        layer::emit_decision(record);
    }

    /// Waits until what was logged before is written, at most `deadline`; `false` if it passed.
    pub fn flush(&self, deadline: Duration) -> bool {
        self.shared.queue.wait_until_written(deadline)
    }

    /// Writes what waits, at most until `deadline` from now, and ends the writer. What is left
    /// is written with the floor where it is an error or security record, and counted else.
    pub fn shutdown(&self, deadline: Duration) {
        self.shared.queue.close();
        if !self.shared.queue.wait_until_written(deadline) {
            self.shared.abandon_queue();
        }
    }

    /// Writes a record at once, past the queue, with the floor only.
    fn write_now(&self, record: Record) {
        self.shared.write_now(record);
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs")
            .field("format", &self.shared.format)
            .finish_non_exhaustive()
    }
}
