//! The bounded queue between callers and the writer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::record::Record;

#[derive(Debug)]
pub(super) struct Queue {
    max_records: usize,
    max_bytes: usize,
    state: Mutex<State>,
    /// The writer waits here for records.
    arrived: Condvar,
    /// Flushes wait here for the writer.
    progressed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    records: VecDeque<Record>,
    bytes: usize,
    closed: bool,
    accepted: u64,
    written: u64,
    /// Records refused since the last gap record.
    refused: u64,
}

/// What the writer takes at once.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) records: Vec<Record>,
    /// Records that were refused before these.
    pub(super) refused: u64,
    /// Nothing comes after these.
    pub(super) last: bool,
}

impl Queue {
    pub(super) fn new(max_records: usize, max_bytes: usize) -> Self {
        Self {
            max_records,
            max_bytes,
            state: Mutex::default(),
            arrived: Condvar::new(),
            progressed: Condvar::new(),
        }
    }

    /// Takes the record, or gives it back where there is no room.
    // The record comes back as it is: boxing it would cost each accepted one an allocation.
    #[expect(
        clippy::result_large_err,
        reason = "an accepted record must not cost a box"
    )]
    pub(super) fn push(&self, record: Record) -> Result<(), Record> {
        let weight = record.weight_bytes();
        let mut state = self.state.lock();
        if state.closed
            || state.records.len() >= self.max_records
            || state.bytes + weight > self.max_bytes
        {
            return Err(record);
        }
        state.bytes += weight;
        state.accepted += 1;
        state.records.push_back(record);
        let was_empty = state.records.len() == 1;
        drop(state);
        if was_empty {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Counts a record that was refused and not written, for the next gap record.
    pub(super) fn count_refused(&self, records: u64) {
        self.state.lock().refused += records;
    }

    /// Waits for records and takes at most `most`.
    pub(super) fn take(&self, most: usize) -> Taken {
        let mut state = self.state.lock();
        while state.records.is_empty() && !state.closed {
            self.arrived.wait(&mut state);
        }
        let count = state.records.len().min(most);
        let records: Vec<Record> = state.records.drain(..count).collect();
        state.bytes = if state.records.is_empty() {
            0
        } else {
            let taken: usize = records.iter().map(Record::weight_bytes).sum();
            state.bytes.saturating_sub(taken)
        };
        Taken {
            refused: std::mem::take(&mut state.refused),
            last: state.closed && state.records.is_empty(),
            records,
        }
    }

    /// The writer has dealt with so many records.
    pub(super) fn done(&self, records: usize) {
        let mut state = self.state.lock();
        state.written += records as u64;
        drop(state);
        self.progressed.notify_all();
    }

    /// Takes nothing more; the writer ends after what is in.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
        self.progressed.notify_all();
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().records.is_empty()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Waits until all that is accepted now is written; `false` if `deadline` passed first.
    pub(super) fn wait_until_written(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        let mut state = self.state.lock();
        let goal = state.accepted;
        while state.written < goal {
            if self.progressed.wait_until(&mut state, until).timed_out() {
                return state.written >= goal;
            }
        }
        true
    }

    /// Takes everything that waits, for a writer that does not come back.
    pub(super) fn abandon(&self) -> Taken {
        let mut state = self.state.lock();
        state.bytes = 0;
        Taken {
            records: state.records.drain(..).collect(),
            refused: std::mem::take(&mut state.refused),
            last: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_full_queue_gives_the_record_back() {
        let queue = Queue::new(1, 1 << 20);
        assert!(queue.push(record("a")).is_ok());
        assert_eq!(
            queue.push(record("b")).map_err(|back| back.message),
            Err("b".into())
        );
        queue.count_refused(1);
        let taken = queue.take(10);
        assert_eq!(
            (taken.records.len(), taken.refused, taken.last),
            (1, 1, false)
        );
        assert!(queue.push(record("c")).is_ok());
    }

    #[test]
    fn bytes_bound_it_too() {
        let queue = Queue::new(100, 2 * record("a").weight_bytes());
        assert!(queue.push(record("a")).is_ok());
        assert!(queue.push(record(&"x".repeat(4096))).is_err());
    }

    #[test]
    fn closing_lets_the_writer_finish() {
        let queue = Queue::new(10, 1 << 20);
        for text in ["a", "b", "c"] {
            assert!(queue.push(record(text)).is_ok());
        }
        queue.close();
        assert!(queue.push(record("d")).is_err());
        assert!(!queue.wait_until_written(Duration::ZERO));
        let first = queue.take(2);
        assert!(!first.last);
        let second = queue.take(2);
        assert!(second.last);
        queue.done(first.records.len() + second.records.len());
        assert!(queue.wait_until_written(Duration::ZERO));
    }

    fn record(message: &str) -> Record {
        Record::internal(Level::INFO, "test", message)
    }
}
