//! The table of prefixes: made at build time, searched at run time.
//!
//! Prefixes nest, and the most specific one counts. The build cuts them into ranges that do not
//! overlap, so that what is left is a sorted list of starts, each with the index of its signals,
//! and a look-up is one binary search.

#![allow(dead_code, reason = "the build uses one half, the plugin the other")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of one signal.
const SIGNAL_BYTES_MAX: usize = 64;
/// Prefixes of one table: its index is 16 bits wide.
const PREFIXES_MAX: usize = 60_000;

/// Ranges by their start; index 0 of `signals` is "none".
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub v4: Vec<(u32, u16)>,
    /// The upper half of the address: networks end at /64.
    pub v6: Vec<(u64, u16)>,
    pub signals: Vec<String>,
}

struct Prefix {
    first: u64,
    last: u64,
    length: u32,
    signals: u16,
}

impl Table {
    /// Reads `prefix,signals` lines.
    pub fn parse(csv: &str) -> Result<Self, String> {
        let mut signals = vec![String::new()];
        let mut known: BTreeMap<String, u16> = BTreeMap::new();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (index, line) in csv.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line == "prefix,signals" {
                continue;
            }
            let at = |problem: String| format!("line {}: {problem}", index + 1);
            let (prefix, names) = line
                .split_once(',')
                .ok_or_else(|| at(format!("`{line}` is not `prefix,signals`")))?;
            let names = check_signals(names).map_err(at)?;
            let next = u16::try_from(signals.len()).map_err(|_| at("too many signals".into()))?;
            let signals_at = *known.entry(names.clone()).or_insert_with(|| {
                signals.push(names);
                next
            });
            let (is_v4, prefix) = parse_prefix(prefix, signals_at).map_err(at)?;
            if is_v4 {
                v4.push(prefix)
            } else {
                v6.push(prefix)
            }
        }
        if v4.len() + v6.len() > PREFIXES_MAX {
            return Err(format!("over {PREFIXES_MAX} prefixes"));
        }
        let narrow = |(start, index): (u64, u16)| (start as u32, index);
        Ok(Self {
            v4: flatten(v4, u64::from(u32::MAX))
                .into_iter()
                .map(narrow)
                .collect(),
            v6: flatten(v6, u64::MAX),
            signals,
        })
    }

    /// The table as Rust source.
    pub fn to_source(&self) -> String {
        let mut source = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(source, "pub static V4: &[(u32, u16)] = &{:?};", self.v4);
        let _ = writeln!(source, "pub static V6: &[(u64, u16)] = &{:?};", self.v6);
        let _ = writeln!(source, "pub static SIGNALS: &[&str] = &{:?};", self.signals);
        source
    }
}

/// Signals of an address, separated by spaces; empty where the table does not have it. An
/// address that is none has no signals.
pub fn look_up<'a>(
    ip: &str,
    v4: &[(u32, u16)],
    v6: &[(u64, u16)],
    signals: &'a [&'a str],
) -> &'a str {
    let index = if let Ok(ip) = ip.parse::<Ipv4Addr>() {
        search(v4, u32::from(ip))
    } else if let Ok(ip) = ip.parse::<Ipv6Addr>() {
        search(v6, (u128::from(ip) >> 64) as u64)
    } else {
        0
    };
    signals.get(usize::from(index)).copied().unwrap_or_default()
}

fn search<T: Ord + Copy>(ranges: &[(T, u16)], address: T) -> u16 {
    let after = ranges.partition_point(|(start, _)| *start <= address);
    match after.checked_sub(1).and_then(|index| ranges.get(index)) {
        Some((_, signals)) => *signals,
        None => 0,
    }
}

/// Cuts nested prefixes into ranges. Larger prefixes come first, so that a smaller one inside
/// is written over them.
fn flatten(mut prefixes: Vec<Prefix>, last_address: u64) -> Vec<(u64, u16)> {
    prefixes.sort_by_key(|prefix| (prefix.first, prefix.length));
    let mut ranges: Vec<(u64, u16)> = Vec::new();
    // Prefixes around the current place, the outermost first.
    let mut open: Vec<(u64, u16)> = Vec::new();
    let mut begin = |start: u64, signals: u16| {
        // A range that begins where another does takes its place.
        if ranges.last().is_some_and(|(last, _)| *last == start) {
            ranges.pop();
        }
        if ranges.last().map_or(0, |(_, last)| *last) != signals {
            ranges.push((start, signals));
        }
    };
    let close =
        |open: &mut Vec<(u64, u16)>, before: Option<u64>, begin: &mut dyn FnMut(u64, u16)| {
            while let Some((last, _)) = open.last().copied() {
                if before.is_some_and(|before| last >= before) {
                    break;
                }
                open.pop();
                let outer = open.last().map_or(0, |(_, signals)| *signals);
                if last < last_address {
                    begin(last + 1, outer);
                }
            }
        };
    for prefix in prefixes {
        close(&mut open, Some(prefix.first), &mut begin);
        begin(prefix.first, prefix.signals);
        open.push((prefix.last, prefix.signals));
    }
    close(&mut open, None, &mut begin);
    ranges
}

fn parse_prefix(text: &str, signals: u16) -> Result<(bool, Prefix), String> {
    let bad = || format!("`{text}` is not a prefix such as `192.0.2.0/24` or `2001:db8::/32`");
    let (address, length) = text.trim().split_once('/').ok_or_else(bad)?;
    let length: u32 = length.parse().map_err(|_| bad())?;
    let (is_v4, bits, address) = if let Ok(ip) = address.parse::<Ipv4Addr>() {
        (true, 32, u64::from(u32::from(ip)))
    } else if let Ok(ip) = address.parse::<Ipv6Addr>() {
        (false, 64, (u128::from(ip) >> 64) as u64)
    } else {
        return Err(bad());
    };
    if length > bits {
        return Err(format!("`{text}`: prefixes end at /{bits}"));
    }
    let host = if length == 0 {
        u64::MAX >> (64 - bits)
    } else if length == bits {
        0
    } else {
        (1_u64 << (bits - length)) - 1
    };
    let prefix = Prefix {
        first: address & !host,
        last: address | host,
        length,
        signals,
    };
    Ok((is_v4, prefix))
}

fn check_signals(names: &str) -> Result<String, String> {
    let names: Vec<&str> = names.split_whitespace().collect();
    if names.is_empty() {
        return Err("it names no signal".to_owned());
    }
    match names.iter().find(|name| !is_signal(name)) {
        Some(bad) => Err(format!(
            "signal `{bad}` must be 1 to {SIGNAL_BYTES_MAX} letters, digits, `.`, `_` and `-`"
        )),
        None => Ok(names.join(" ")),
    }
}

/// What the hub takes for a signal.
pub fn is_signal(name: &str) -> bool {
    (1..=SIGNAL_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
