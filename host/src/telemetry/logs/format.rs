//! A record as a line.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::Level;

use super::super::redact::{is_dangerous, push_escaped};
use super::record::{Record, Value};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Names that a field must not take.
const RESERVED: &[&str] = &[
    "time", "level", "target", "event", "message", "trace_id", "span_id",
];

pub(super) fn push_line(out: &mut String, format: LogFormat, record: &Record) {
    match format {
        LogFormat::Json => push_json(out, record),
        LogFormat::Text => push_text(out, record),
    }
}

fn push_json(out: &mut String, record: &Record) {
    out.push_str("{\"time\":\"");
    push_time(out, record.time);
    out.push_str("\",\"level\":\"");
    out.push_str(level_word(record.level));
    out.push('"');
    if let Some(event) = &record.event {
        out.push_str(",\"event\":");
        push_json_string(out, event);
    }
    if !record.message.is_empty() {
        out.push_str(",\"message\":");
        push_json_string(out, &record.message);
    }
    for (name, value) in &record.fields {
        out.push_str(",\"");
        if RESERVED.contains(name) {
            out.push_str("field_");
        }
        // A field's name is an identifier of our code and cannot hold a quote.
        out.push_str(name);
        out.push_str("\":");
        push_json_value(out, value);
    }
    if let Some((trace, span)) = &record.trace {
        // Writing to a String cannot fail.
        let _ = write!(out, ",\"trace_id\":\"{trace}\"");
        if !span.is_empty() {
            let _ = write!(out, ",\"span_id\":\"{span}\"");
        }
    }
    out.push_str(",\"target\":");
    push_json_string(out, record.target);
    out.push_str("}\n");
}

fn push_json_value(out: &mut String, value: &Value) {
    match value {
        Value::Text(text) => push_json_string(out, text),
        Value::Integer(number) => push_number(out, number),
        Value::Natural(number) => push_number(out, number),
        Value::Truth(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Real(number) if number.is_finite() => push_number(out, number),
        Value::Real(number) => {
            let _ = write!(out, "\"{number}\"");
        }
        Value::Json(json) => {
            for character in json.chars() {
                if is_dangerous(character) {
                    let _ = write!(out, "\\u{:04x}", u32::from(character));
                } else {
                    out.push(character);
                }
            }
        }
    }
}

fn push_number(out: &mut String, number: &dyn std::fmt::Display) {
    let _ = write!(out, "{number}");
}

fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c == '"' || c == '\\' || is_dangerous(c)) {
        out.push_str(&rest[..at]);
        let character = rest[at..].chars().next().unwrap_or('\u{fffd}');
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other => {
                let _ = write!(out, "\\u{:04x}", u32::from(other));
            }
        }
        rest = &rest[at + character.len_utf8()..];
    }
    out.push_str(rest);
    out.push('"');
}

fn push_text(out: &mut String, record: &Record) {
    push_time(out, record.time);
    let _ = write!(
        out,
        " {:5} {}",
        level_word(record.level).to_ascii_uppercase(),
        record.target
    );
    if let Some(event) = &record.event {
        out.push_str(" [");
        push_escaped(out, event);
        out.push(']');
    }
    if !record.message.is_empty() {
        out.push(' ');
        push_escaped(out, &record.message);
    }
    for (name, value) in &record.fields {
        let _ = write!(out, " {name}=");
        push_text_value(out, value);
    }
    if let Some((trace, _)) = &record.trace {
        let _ = write!(out, " trace_id={trace}");
    }
    out.push('\n');
}

fn push_text_value(out: &mut String, value: &Value) {
    match value {
        Value::Text(text) if needs_quotes(text) => push_json_string(out, text),
        Value::Text(text) => out.push_str(text),
        Value::Integer(_)
        | Value::Natural(_)
        | Value::Real(_)
        | Value::Truth(_)
        | Value::Json(_) => push_json_value(out, value),
    }
}

fn needs_quotes(text: &str) -> bool {
    text.is_empty()
        || text
            .chars()
            .any(|c| c.is_whitespace() || matches!(c, '"' | '=' | '\\') || is_dangerous(c))
}

const fn level_word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// RFC 3339 in UTC with microseconds.
pub(in crate::telemetry) fn push_time(out: &mut String, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil_date(since.as_secs() / 86_400);
    let of_day = since.as_secs() % 86_400;
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        since.subsec_micros()
    );
}

/// The Gregorian date of a day counted from 1970-01-01. Years are taken to begin in March, so
/// that the leap day is the last of its year and 400 years are one cycle of 146,097 days.
fn civil_date(days: u64) -> (u64, u64, u64) {
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH_SHIFT: u64 = 719_468;
    let days = days + EPOCH_SHIFT;
    let (cycle, of_cycle) = (days / 146_097, days % 146_097);
    let year_of_cycle =
        (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = 400 * cycle + year_of_cycle + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000007Z"),
        ] {
            let mut out = String::new();
            push_time(&mut out, UNIX_EPOCH + Duration::new(seconds, 7_000));
            assert_eq!(out, text);
        }
    }
}
