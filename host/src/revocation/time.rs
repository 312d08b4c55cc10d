//! Times as people write them.

use std::time::{SystemTime, UNIX_EPOCH};

/// The end of the year 9999, in seconds since 1970: what four digits of a year can say.
pub const LATEST_SECONDS: u64 = 253_402_300_799;

/// Now, in seconds since 1970.
#[must_use]
pub fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Reads `now`, seconds since 1970, or a time such as `2026-01-31T12:00:00Z` (also with
/// `+02:00`, and a date alone, which is its first second in UTC).
///
/// # Errors
/// A sentence with the forms that are understood.
pub fn parse(text: &str, now: u64) -> Result<u64, String> {
    if text == "now" {
        return Ok(now);
    }
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => Some(seconds),
        Err(_) => parse_date_time(text),
    };
    seconds
        .filter(|seconds| *seconds <= LATEST_SECONDS)
        .ok_or_else(|| {
            format!(
                "`{text}` is no time: write `now`, `2026-01-31`, `2026-01-31T12:00:00Z` or \
                 seconds since 1970"
            )
        })
}

/// A time in UTC, such as `2026-01-31T12:00:00Z`.
#[must_use]
pub fn show(seconds: u64) -> String {
    let seconds = seconds.min(LATEST_SECONDS);
    let (days, rest) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

const DAY_SECONDS: u64 = 86_400;

fn parse_date_time(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let days = days(year, month, day)?;
    let (clock, offset) = match time {
        Some(time) => parse_time(time)?,
        None => (0, 0),
    };
    let seconds = i64::try_from(days * DAY_SECONDS + clock).ok()? - offset;
    u64::try_from(seconds).ok()
}

/// Seconds of the day, and the offset from UTC in seconds.
fn parse_time(text: &str) -> Option<(u64, i64)> {
    let zone = text.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = text.split_at(zone);
    // A part of a second changes nothing here.
    let clock = clock.split('.').next()?;
    let [hours, minutes, seconds] = numbers(clock, ':', [2, 2, 2])?;
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let (sign, digits) = zone.split_at(1);
            let [hours, minutes] = numbers(digits, ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = i64::try_from(hours * 3600 + minutes * 60).ok()?;
            if sign == "-" { -offset } else { offset }
        }
    };
    Some((hours * 3600 + minutes * 60 + seconds, offset))
}

fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(between);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Days from 1970-01-01 on, by the calendar in force; `None` for a day that it does not have.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || day < 1 || day > month_days(year, month) {
        return None;
    }
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    let months: u64 = (1..month).map(|month| month_days(year, month)).sum();
    Some((year - 1970) * 365 + leap_days + months + day - 1)
}

/// Year, month and day of a number of days from 1970-01-01 on.
fn civil(days_since: u64) -> (u64, u64, u64) {
    // Too early by at most a year, so that the loops below stay short.
    let mut year = 1970 + days_since / 366;
    while days(year + 1, 1, 1).is_some_and(|next| next <= days_since) {
        year += 1;
    }
    let mut rest = days_since - days(year, 1, 1).unwrap_or(0);
    let mut month = 1;
    while rest >= month_days(year, month) {
        rest -= month_days(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

fn month_days(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
