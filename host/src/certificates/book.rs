//! What the keeper knows of each name, and what is due.
//!
//! No clock and no IO: every call gets the time, in milliseconds since 1970, and what is random.
//!
//! ```text
//!            want                    begin                issued
//!   (none) ───────► missing, due ──────────► under way ─────────► held ──┐ due again a third of
//!                       ▲                        │                 ▲     │ its life before its end
//!                       │ failed: due later      │ failed          └─────┘
//!                       └────────────────────────┴─────────► held, due later
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::trouble::Trouble;

const SECOND_MS: u64 = 1000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// From the first failure to the second try. Times four each time: an authority that allows five
/// failures of a name in an hour is not driven there.
const FIRST_PAUSE_MS: u64 = MINUTE_MS;

/// The longest pause that we choose ourselves.
const LONGEST_PAUSE_MS: u64 = 6 * HOUR_MS;

/// Of a certificate's life, so much is left when it is renewed: 30 of 90 days, as its authorities
/// recommend.
const RENEWED_WITH_ONE_IN: u64 = 3;

/// Renewals are spread over so much of a life, so that those that began together part.
const SPREAD_OVER_ONE_IN: u64 = 30;

/// Bounds on what is begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Orders at once.
    pub(super) at_once: usize,
    /// Orders begun within an hour.
    pub(super) per_hour: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Book {
    lines: BTreeMap<Arc<str>, Line>,
    /// When orders were begun within the last hour.
    begun: VecDeque<u64>,
    /// Names whose orders have not ended, also of those that are not wanted any more.
    under_way: BTreeSet<Arc<str>>,
}

/// What is known of a name.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// Its certificate's life.
    pub(super) life: Option<Life>,
    /// Tries that failed since the last that did not.
    pub(super) failures: u32,
    /// When it is to be ordered, for the first time or anew.
    pub(super) due_ms: u64,
    /// Why the last try failed.
    pub(super) trouble: Option<Trouble>,
    /// Whether its authority has said when to renew.
    pub(super) told_renewal: bool,
    /// When its authority is to be asked for the best time of the renewal.
    pub(super) look_ms: Option<u64>,
}

/// From when until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) from_ms: u64,
    pub(super) until_ms: u64,
}

impl Life {
    /// Of seconds since 1970, as they stand in the certificate.
    pub(super) fn of(not_before: i64, not_after: i64) -> Self {
        let ms = |seconds: i64| {
            u64::try_from(seconds)
                .unwrap_or(0)
                .saturating_mul(SECOND_MS)
        };
        Self {
            from_ms: ms(not_before),
            until_ms: ms(not_after),
        }
    }

    /// When it is renewed; `random` is from 0 to 1.
    fn renewal_ms(self, random: f64) -> u64 {
        let length = self.until_ms.saturating_sub(self.from_ms);
        let early = length / RENEWED_WITH_ONE_IN + part(length / SPREAD_OVER_ONE_IN, random);
        self.until_ms.saturating_sub(early)
    }
}

impl Book {
    /// Takes these names on and lets go of all others. `kept` is what there is of a new one.
    pub(super) fn want(
        &mut self,
        names: &BTreeSet<Arc<str>>,
        now_ms: u64,
        random: f64,
        kept: impl Fn(&str) -> Option<Life>,
    ) {
        self.lines.retain(|name, _| names.contains(name));
        for name in names {
            if self.lines.contains_key(name) {
                continue;
            }
            let life = kept(name);
            let line = Line {
                life,
                due_ms: life.map_or(now_ms, |life| life.renewal_ms(random)),
                look_ms: life.map(|_| now_ms),
                ..Line::default()
            };
            self.lines.insert(Arc::clone(name), line);
        }
    }

    /// Begins what is due, as far as the bounds allow: names without a certificate first, then
    /// those that end first.
    pub(super) fn begin(&mut self, now_ms: u64, bounds: Bounds) -> Vec<Arc<str>> {
        self.forget_begun(now_ms);
        let room = bounds
            .at_once
            .saturating_sub(self.under_way.len())
            .min(bounds.per_hour.saturating_sub(self.begun.len()));
        let mut due: Vec<_> = self
            .lines
            .iter()
            .filter(|(name, line)| line.due_ms <= now_ms && !self.under_way.contains(*name))
            .map(|(name, line)| (line.life.map_or(0, |life| life.until_ms), Arc::clone(name)))
            .collect();
        due.sort_unstable();
        due.truncate(room);
        for (_, name) in &due {
            self.under_way.insert(Arc::clone(name));
            self.begun.push_back(now_ms);
        }
        due.into_iter().map(|(_, name)| name).collect()
    }

    /// An order has come to its end, whether or not its name is still wanted.
    pub(super) fn ended(&mut self, name: &str) {
        self.under_way.remove(name);
    }

    /// A certificate was issued. `trouble` is what went wrong beside that.
    pub(super) fn issued(
        &mut self,
        name: &str,
        life: Life,
        trouble: Option<Trouble>,
        now_ms: u64,
        random: f64,
    ) {
        if let Some(line) = self.lines.get_mut(name) {
            line.life = Some(life);
            line.failures = 0;
            line.trouble = trouble;
            // One that is to be renewed at once would be ordered without end.
            line.due_ms = life.renewal_ms(random).max(now_ms + FIRST_PAUSE_MS / 4);
            line.look_ms = Some(now_ms);
        }
    }

    /// A try failed; the next comes later.
    pub(super) fn failed(&mut self, name: &str, trouble: Trouble, now_ms: u64, random: f64) {
        let Some(line) = self.lines.get_mut(name) else {
            return;
        };
        line.failures = line.failures.saturating_add(1);
        let pause = pause_ms(line, now_ms, random);
        let asked = trouble.retry_after.unwrap_or_default().as_millis();
        let asked = u64::try_from(asked).unwrap_or(u64::MAX);
        line.due_ms = now_ms.saturating_add(pause.max(asked));
        line.trouble = Some(trouble);
    }

    /// Orders a name's certificate now, whatever was planned; `false` if it is not wanted.
    pub(super) fn hasten(&mut self, name: &str, now_ms: u64) -> bool {
        let Some(line) = self.lines.get_mut(name) else {
            return false;
        };
        line.due_ms = line.due_ms.min(now_ms);
        line.failures = 0;
        true
    }

    /// A name whose authority is to be asked for the best time of its renewal, if it is time.
    pub(super) fn look(&mut self, now_ms: u64) -> Option<Arc<str>> {
        let (name, line) = self
            .lines
            .iter_mut()
            .find(|(_, line)| line.look_ms.is_some_and(|at| at <= now_ms))?;
        line.look_ms = None;
        Some(Arc::clone(name))
    }

    /// What the authority answered: when to renew, and when to ask again.
    pub(super) fn looked(
        &mut self,
        name: &str,
        window_ms: Option<(u64, u64)>,
        again_ms: Option<u64>,
        random: f64,
    ) {
        let Some(line) = self.lines.get_mut(name) else {
            return;
        };
        line.look_ms = again_ms;
        line.told_renewal = window_ms.is_some();
        // After a failure the pause counts, and not what the authority once wished.
        if let (Some((start, end)), Some(life), 0) = (window_ms, line.life, line.failures) {
            let chosen = start.saturating_add(part(end.saturating_sub(start), random));
            line.due_ms = chosen.min(life.until_ms);
        }
    }

    /// When something is due next; `None` if only the end of an order can change that.
    pub(super) fn next_ms(&self, bounds: Bounds) -> Option<u64> {
        let waiting = self
            .lines
            .iter()
            .filter(|(name, _)| !self.is_under_way(name));
        let due = waiting.map(|(_, line)| line.due_ms).min();
        let mut due = due.filter(|_| self.under_way.len() < bounds.at_once);
        if self.begun.len() >= bounds.per_hour {
            let room_at = self
                .begun
                .front()
                .map(|first| first.saturating_add(HOUR_MS));
            due = due.max(room_at).filter(|_| due.is_some());
        }
        let looks = self.lines.values().filter_map(|line| line.look_ms).min();
        [due, looks].into_iter().flatten().min()
    }

    /// Whether an order for the name has not ended.
    pub(super) fn is_under_way(&self, name: &str) -> bool {
        self.under_way.contains(name)
    }

    /// The names and what is known of them.
    pub(super) fn lines(&self) -> impl Iterator<Item = (&Arc<str>, &Line)> {
        self.lines.iter()
    }

    /// What is known of a name.
    pub(super) fn line(&self, name: &str) -> Option<&Line> {
        self.lines.get(name)
    }

    fn forget_begun(&mut self, now_ms: u64) {
        while let Some(first) = self.begun.front()
            && first.saturating_add(HOUR_MS) <= now_ms
        {
            self.begun.pop_front();
        }
    }
}

/// The pause after a failure: longer each time, never so long that only few tries are left until
/// the certificate ends, and a little longer by chance.
fn pause_ms(line: &Line, now_ms: u64, random: f64) -> u64 {
    let left = line.life.map_or(LONGEST_PAUSE_MS, |life| {
        life.until_ms.saturating_sub(now_ms) / 8
    });
    let longest = left.clamp(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
    let times = 4_u64.saturating_pow(line.failures.saturating_sub(1));
    let pause = FIRST_PAUSE_MS.saturating_mul(times).min(longest);
    pause + part(pause / 4, random)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a part of a time that is chosen by chance needs no more precision"
)]
fn part(whole: u64, random: f64) -> u64 {
    (whole as f64 * random.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests;
