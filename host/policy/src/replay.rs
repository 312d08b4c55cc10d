//! Recorded decisions, put to two sets of policies.
//!
//! A record is a line of JSON with `request` and `entities` as in a test case, the `decision`
//! that was made, and how often (`count`) between `first` and `last`. Each set decides it anew,
//! with the groups and labels that it has for the entities; what differs is what the change does
//! to the traffic that there was.

mod regroup;

use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bundle::PolicyBundle;
use crate::decision::{Decision, ReasonKind};
use crate::scene::{Posed, RequestJson};

use regroup::regroup;

/// Bytes of a record: as large as a test case can sensibly be.
const LINE_BYTES: usize = 1024 * 1024;

/// Records that differ and are shown; the rest is counted.
const SAMPLES: usize = 20;

#[derive(Debug, Deserialize)]
struct Record {
    request: Value,
    entities: Value,
    decision: String,
    #[serde(default = "once")]
    count: u64,
}

fn once() -> u64 {
    1
}

/// What came of a replay. Decisions are counted as often as they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// Records that were read.
    pub records: u64,
    /// Decisions that both sets make alike.
    pub same: u64,
    /// Denied before, allowed now.
    pub newly_allowed: u64,
    /// Allowed before, denied now.
    pub newly_denied: u64,
    /// Of them all, decisions in which the new set had a policy that could not be evaluated.
    pub errors: u64,
    /// Decisions that were recorded otherwise than the first set makes them: a plugin, a PDP or
    /// other policies had their say.
    pub unlike_recorded: u64,
    /// Records that cannot be put to both sets, with the first reason.
    pub unreadable: u64,
    /// The first such reason.
    pub first_unreadable: Option<String>,
    /// Some of what differs.
    pub samples: Vec<ReplaySample>,
}

/// A recorded request that is now decided otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplaySample {
    /// The line of the file, from 1.
    pub line: u64,
    /// Whether it is allowed now.
    pub allow: bool,
    /// How often it was decided.
    pub count: u64,
    /// The request.
    pub request: Value,
    /// The policies that determined it before.
    pub before: Vec<String>,
    /// The policies that determine it now.
    pub after: Vec<String>,
}

/// Puts every record to both sets.
///
/// # Errors
/// Where reading fails.
pub fn replay(
    before: &PolicyBundle,
    after: &PolicyBundle,
    mut from: impl BufRead,
) -> io::Result<Replay> {
    let mut found = Replay::default();
    let mut number = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = io::Read::take(&mut from, LINE_BYTES as u64 + 1);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        number += 1;
        if line.len() > LINE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("line {number} has more than {LINE_BYTES} bytes"),
            ));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        found.records += 1;
        if let Err(problem) = found.one(before, after, number, &line) {
            found.unreadable += 1;
            found
                .first_unreadable
                .get_or_insert_with(|| format!("line {number}: {problem}"));
        }
    }
}

impl Replay {
    /// Decisions that both sets made. Where there are none, nothing is answered.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.same + self.newly_allowed + self.newly_denied
    }

    fn one(
        &mut self,
        before: &PolicyBundle,
        after: &PolicyBundle,
        number: u64,
        line: &[u8],
    ) -> Result<(), String> {
        let record: Record = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let decide = |bundle: &PolicyBundle, entities: Value| -> Result<Decision, String> {
            let request: RequestJson = serde_json::from_value(record.request.clone())
                .map_err(|error| error.to_string())?;
            let posed = Posed::new(request, entities, bundle.schema())?;
            Ok(bundle.answer(&posed.scene()))
        };
        let regrouped = regroup(&record.entities, &before.groups, &after.groups);
        let old = decide(before, record.entities)?;
        let new = decide(after, regrouped)?;
        let count = record.count;
        if old.allow != (record.decision == "allow") {
            self.unlike_recorded += count;
        }
        if new.kind == ReasonKind::Error {
            self.errors += count;
        }
        match (old.allow, new.allow) {
            (true, true) | (false, false) => {
                self.same += count;
                return Ok(());
            }
            (false, true) => self.newly_allowed += count,
            (true, false) => self.newly_denied += count,
        }
        if self.samples.len() < SAMPLES {
            let ids = |decision: &Decision| {
                decision
                    .policies
                    .iter()
                    .map(|policy| policy.id.clone())
                    .collect()
            };
            self.samples.push(ReplaySample {
                line: number,
                allow: new.allow,
                count,
                before: ids(&old),
                after: ids(&new),
                request: record.request,
            });
        }
        Ok(())
    }
}
