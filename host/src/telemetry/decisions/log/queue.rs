//! What waits for one output, bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::flood::Repeated;
use crate::telemetry::decisions::record::DecisionRecord;

/// What becomes of a record that a queue has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is dropped.
    DropNew,
    /// The oldest ones are dropped.
    DropOld,
    /// The caller waits, at most so long; then it is dropped. After a wait in vain nobody waits
    /// until the output moves again.
    Block(Duration),
}

/// How long whoever brings an entry can wait for room, where the queue would have him wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// As long as the queue says.
    AsSet,
    /// No longer than until then.
    Until(Instant),
    /// Not at all: an output's own thread is the one that makes room.
    None,
}

/// What becomes one line.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    One(Arc<DecisionRecord>),
    Many(Arc<Repeated>),
}

/// Decisions that are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) allows: u64,
    pub(super) denies: u64,
    pub(super) first_ms: u64,
    pub(super) last_ms: u64,
}

#[derive(Debug)]
pub(super) struct Queue {
    max_bytes: usize,
    when_full: WhenFull,
    state: Mutex<State>,
    /// The output's thread waits here.
    arrived: Condvar,
    /// Callers that block wait here.
    room: Condvar,
    /// Flushes wait here.
    progressed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    gap: Gap,
    closed: bool,
    /// Somebody waited for room in vain, and nothing was taken since.
    stuck: bool,
    accepted: u64,
    /// Of these, written or lost.
    done: u64,
}

pub(super) struct Taken {
    pub(super) entries: Vec<Entry>,
    /// What is missing before these.
    pub(super) gap: Gap,
    /// Nothing comes after these.
    pub(super) last: bool,
}

impl Entry {
    fn weight_bytes(&self) -> usize {
        match self {
            Self::One(record) => record.weight_bytes(),
            Self::Many(repeated) => repeated.last.weight_bytes() + size_of::<Repeated>(),
        }
    }
}

impl Gap {
    pub(super) fn is_empty(&self) -> bool {
        self.allows + self.denies == 0
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        let (allow, count, first_ms, last_ms) = match entry {
            Entry::One(record) => (record.allow, 1, record.time_ms, record.time_ms),
            Entry::Many(many) => (false, many.count, many.first_ms, many.last_ms),
        };
        self.join(Self {
            allows: if allow { count } else { 0 },
            denies: if allow { 0 } else { count },
            first_ms,
            last_ms,
        });
    }

    pub(super) fn join(&mut self, other: Self) {
        if other.is_empty() {
            return;
        }
        self.first_ms = if self.is_empty() {
            other.first_ms
        } else {
            self.first_ms.min(other.first_ms)
        };
        self.last_ms = self.last_ms.max(other.last_ms);
        self.allows += other.allows;
        self.denies += other.denies;
    }
}

impl Queue {
    pub(super) fn new(max_bytes: usize, when_full: WhenFull) -> Self {
        Self {
            max_bytes,
            when_full,
            state: Mutex::default(),
            arrived: Condvar::new(),
            room: Condvar::new(),
            progressed: Condvar::new(),
        }
    }

    /// Takes an entry; says how many decisions were dropped for it, itself included.
    pub(super) fn push(&self, entry: Entry, patience: Patience) -> u64 {
        let weight = entry.weight_bytes();
        let mut state = self.state.lock();
        let mut dropped = 0;
        if state.bytes + weight > self.max_bytes && !state.closed {
            match self.when_full {
                WhenFull::DropNew => {}
                WhenFull::DropOld => {
                    while state.bytes + weight > self.max_bytes {
                        let Some((oldest, bytes)) = state.entries.pop_front() else {
                            break;
                        };
                        state.bytes -= bytes;
                        state.done += 1;
                        state.gap.add(&oldest);
                        dropped += decisions(&oldest);
                    }
                }
                WhenFull::Block(longest) if !state.stuck && patience != Patience::None => {
                    let end = Instant::now() + longest;
                    let until = match patience {
                        Patience::Until(until) => end.min(until),
                        Patience::AsSet | Patience::None => end,
                    };
                    while state.bytes + weight > self.max_bytes && !state.closed {
                        if self.room.wait_until(&mut state, until).timed_out() {
                            state.stuck = true;
                            break;
                        }
                    }
                }
                WhenFull::Block(_) => {}
            }
        }
        if state.closed || state.bytes + weight > self.max_bytes {
            state.gap.add(&entry);
            return dropped + decisions(&entry);
        }
        state.bytes += weight;
        state.accepted += 1;
        state.entries.push_back((entry, weight));
        let was_empty = state.entries.len() == 1;
        drop(state);
        if was_empty {
            self.arrived.notify_one();
        }
        dropped
    }

    /// Waits for entries, at most so long, and takes at most `most`.
    pub(super) fn take(&self, most: usize, wait: Duration) -> Taken {
        let until = Instant::now() + wait;
        let mut state = self.state.lock();
        while state.entries.is_empty() && !state.closed {
            if self.arrived.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        let count = state.entries.len().min(most);
        let mut entries = Vec::with_capacity(count);
        for (entry, bytes) in state.entries.drain(..count).collect::<Vec<_>>() {
            state.bytes -= bytes;
            entries.push(entry);
        }
        let gap = if entries.is_empty() && !state.closed {
            // It goes with what comes next, so that an output that is broken is not asked for it.
            Gap::default()
        } else {
            std::mem::take(&mut state.gap)
        };
        if !entries.is_empty() {
            state.stuck = false;
            self.room.notify_all();
        }
        Taken {
            gap,
            last: state.closed && state.entries.is_empty(),
            entries,
        }
    }

    /// These were taken and are dealt with; `lost` stands before what comes next.
    pub(super) fn done(&self, entries: usize, lost: Gap) {
        let mut state = self.state.lock();
        state.done += entries as u64;
        state.gap.join(lost);
        drop(state);
        self.progressed.notify_all();
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
        self.room.notify_all();
    }

    /// Waits until all that is accepted now is dealt with; says how many are not.
    pub(super) fn wait_until_done(&self, until: Instant) -> u64 {
        let mut state = self.state.lock();
        let goal = state.accepted;
        while state.done < goal {
            if self.progressed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        goal.saturating_sub(state.done)
    }
}

fn decisions(entry: &Entry) -> u64 {
    match entry {
        Entry::One(_) => 1,
        Entry::Many(many) => many.count,
    }
}
