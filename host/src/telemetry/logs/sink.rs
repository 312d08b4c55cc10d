//! The output, shared by the writer and by those who must write at once.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Longest wait of a caller for the output, after which an urgent record is dropped: a terminal
/// that somebody stopped must not stop the hub.
const DIRECT_WAIT: Duration = Duration::from_millis(20);

pub(super) struct Sink {
    output: Mutex<Box<dyn Write + Send>>,
    /// A caller waited in vain; the next ones do not wait until a write has come through.
    stuck: AtomicBool,
}

impl Sink {
    pub(super) fn new(output: Box<dyn Write + Send>) -> Self {
        Self {
            output: Mutex::new(output),
            stuck: AtomicBool::new(false),
        }
    }

    /// Writes lines, waiting as long as it takes; `false` if the output took them not.
    pub(super) fn write(&self, lines: &[u8]) -> bool {
        let mut output = self.output.lock();
        let written = output.write_all(lines).and_then(|()| output.flush());
        self.stuck.store(false, Ordering::Relaxed);
        written.is_ok()
    }

    /// Writes lines from a caller's thread; `false` if the output is busy or took them not.
    pub(super) fn write_without_delay(&self, lines: &[u8]) -> bool {
        let wait = if self.stuck.load(Ordering::Relaxed) {
            Duration::ZERO
        } else {
            DIRECT_WAIT
        };
        let Some(mut output) = self.output.try_lock_for(wait) else {
            self.stuck.store(true, Ordering::Relaxed);
            return false;
        };
        output
            .write_all(lines)
            .and_then(|()| output.flush())
            .is_ok()
    }
}
