//! What a result was measured on, and how quiet it was.

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use serde::Serialize;

use crate::clock::iso_utc;
use crate::delay::kernel_window_bytes;

/// The card at the head of a report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MachineCard {
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mb: u64,
    pub(crate) kernel: String,
    pub(crate) compiler: String,
    pub(crate) revision: String,
    pub(crate) tcp_rmem: String,
    pub(crate) tcp_wmem: String,
    pub(crate) delay_window_bytes: usize,
    pub(crate) descriptors: String,
    /// One-minute load average before the first and after the last test. What runs beside
    /// the bench shows in the first.
    pub(crate) load_before: f64,
    pub(crate) load_after: f64,
    /// Busy share of all cores over a second without any test, in percent.
    pub(crate) busy_before_percent: f64,
}

impl MachineCard {
    pub(crate) fn read() -> Self {
        Self {
            date: iso_utc(SystemTime::now()),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mb: field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .unwrap_or(0)
                / 1024,
            kernel: trimmed("/proc/sys/kernel/osrelease"),
            compiler: first_line("rustc", &["--version"]),
            revision: first_line("git", &["describe", "--always", "--dirty"]),
            tcp_rmem: trimmed("/proc/sys/net/ipv4/tcp_rmem"),
            tcp_wmem: trimmed("/proc/sys/net/ipv4/tcp_wmem"),
            delay_window_bytes: kernel_window_bytes(),
            descriptors: field("/proc/self/limits", "Max open files").unwrap_or_default(),
            load_before: load_average(),
            load_after: 0.0,
            busy_before_percent: busy_percent(),
        }
    }
}

/// The one-minute load average.
pub(crate) fn load_average() -> f64 {
    let text = trimmed("/proc/loadavg");
    text.split_whitespace()
        .next()
        .and_then(|first| first.parse().ok())
        .unwrap_or(f64::NAN)
}

/// Pages of kernel memory that TCP buffers hold.
pub(crate) fn tcp_buffer_pages() -> u64 {
    let text = trimmed("/proc/net/sockstat");
    let line = text.lines().find(|line| line.starts_with("TCP:"));
    line.and_then(|line| {
        line.split_whitespace()
            .skip_while(|word| *word != "mem")
            .nth(1)
    })
    .and_then(|pages| pages.parse().ok())
    .unwrap_or(0)
}

fn busy_percent() -> f64 {
    let read = || -> Option<(f64, f64)> {
        let text = fs::read_to_string("/proc/stat").ok()?;
        let fields = text.lines().next()?.split_whitespace().skip(1);
        let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some((idle, ticks.iter().take(8).sum()))
    };
    let Some((idle_before, all_before)) = read() else {
        return f64::NAN;
    };
    std::thread::sleep(std::time::Duration::from_secs(1));
    let Some((idle_after, all_after)) = read() else {
        return f64::NAN;
    };
    100.0 * (1.0 - (idle_after - idle_before) / (all_after - all_before))
}

fn trimmed(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().replace('\t', " ")
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let rest = line[name.len()..].trim_start_matches([' ', '\t', ':']);
    Some(rest.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(
        |_| String::new(),
        |output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().next().unwrap_or_default().to_owned()
        },
    )
}
