//! The processes of a peer: started, metered and ended together.
//!
//! Every process is started through this same binary (`nowconnect-bench tied -- …`), which
//! asks the kernel to end it with the bench before it becomes the peer: an interrupted run
//! leaves nothing behind.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{Context, Failure};

/// How long a process may take to end when asked; then it is killed.
const END_DEADLINE: Duration = Duration::from_secs(3);

/// Clock ticks per second in `/proc/<pid>/stat`, the same on every Linux port of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// One process of a peer. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Tied {
    child: Child,
    name: String,
}

impl Tied {
    /// Starts `program` with its output in `log_dir/<name>.log`.
    pub(crate) fn start(
        name: &str,
        log_dir: &Path,
        program: &Path,
        args: &[OsString],
        env: &[(String, String)],
    ) -> Result<Self, Failure> {
        let log_path = log_dir.join(format!("{name}.log"));
        let log = File::create(&log_path).context(|| format!("create {}", log_path.display()))?;
        let errors = log.try_clone()?;
        let child = Command::new(std::env::current_exe()?)
            .arg("tied")
            .arg("--")
            .arg(program)
            .args(args)
            .envs(env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .context(|| format!("start {}", program.display()))?;
        Ok(Self {
            child,
            name: name.to_owned(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the process has ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(Failure::new(format!("{} ended early: {status}", self.name))),
        }
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        let _ = signal(&self.child, Signal::TERM);
        let deadline = Instant::now() + END_DEADLINE;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, signal: Signal) -> Result<(), Failure> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.context(|| format!("process id {} out of range", child.id()))?;
    kill_process(pid, signal).context(|| format!("signal process {}", child.id()))
}

/// Reads what a set of processes and their descendants use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    roots: Vec<u32>,
}

impl Meter {
    pub(crate) const fn of(roots: Vec<u32>) -> Self {
        Self { roots }
    }

    /// User and system seconds so far, including children that ended.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stats = ProcessStat::all();
        let ticks: u64 = self
            .members(&stats)
            .iter()
            .filter_map(|pid| stats.get(pid))
            .map(|stat| stat.ticks)
            .sum();
        ticks as f64 / TICKS_PER_SECOND
    }

    /// Resident memory, exact rather than the per-CPU estimate of `stat`.
    pub(crate) fn resident_kb(&self) -> u64 {
        self.members(&ProcessStat::all())
            .iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok())
            .filter_map(|text| {
                let line = text.lines().find(|line| line.starts_with("Rss:"))?;
                line.split_whitespace().nth(1)?.parse::<u64>().ok()
            })
            .sum()
    }

    fn members(&self, stats: &HashMap<u32, ProcessStat>) -> Vec<u32> {
        let mut members: Vec<u32> = self.roots.clone();
        let mut next = 0;
        while next < members.len() {
            let parent = members[next];
            let children = stats.iter().filter(|(_, stat)| stat.parent == parent);
            members.extend(children.map(|(pid, _)| *pid));
            next += 1;
        }
        members
    }
}

struct ProcessStat {
    parent: u32,
    ticks: u64,
}

impl ProcessStat {
    fn all() -> HashMap<u32, Self> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return HashMap::new();
        };
        entries
            .filter_map(|entry| {
                let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
                let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                Some((pid, Self::parse(&text)?))
            })
            .collect()
    }

    fn parse(text: &str) -> Option<Self> {
        // The name may hold spaces and brackets; the last bracket closes it.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>());
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            ticks: ticks.sum::<Result<u64, _>>().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn stat_survives_a_hostile_name() {
        let stat = "7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7";
        let parsed = ProcessStat::parse(stat).unwrap();
        assert_eq!((parsed.parent, parsed.ticks), (3, 100));
    }

    #[test]
    fn a_meter_sees_its_own_process() {
        let meter = Meter::of(vec![std::process::id()]);
        assert!(meter.resident_kb() > 500);
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut spin = 0u64;
        while meter.cpu_seconds() < 0.02 {
            spin = spin.wrapping_add(1);
            assert!(Instant::now() < deadline, "no CPU time seen, {spin} spins");
        }
    }
}
