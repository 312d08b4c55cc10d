//! The record of a panic.

use std::panic::PanicHookInfo;

use tracing::Level;

use super::super::events;
use super::super::redact;
use super::record::{Record, Value};
use super::{Logs, MAX_VALUE_BYTES};

/// Writes panics of any thread to the log, at once and with the floor, in place of the standard
/// text on stderr, which would show what a panic quotes.
pub(in super::super) fn install(logs: Logs) {
    std::panic::set_hook(Box::new(move |info| logs.write_now(record_of(info))));
}

fn record_of(info: &PanicHookInfo<'_>) -> Record {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without text");
    let message = redact::truncated(message, MAX_VALUE_BYTES);
    let mut record = Record::internal(Level::ERROR, events::PANIC, message);
    record.target = "nowconnect::panic";
    if let Some(location) = info.location() {
        record
            .fields
            .push(("location", Value::Text(location.to_string())));
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed").to_owned();
    record.fields.push(("thread", Value::Text(name)));
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        let text = backtrace.to_string();
        let kept = redact::truncated(&text, 2 * MAX_VALUE_BYTES).to_owned();
        record.fields.push(("backtrace", Value::Text(kept)));
    }
    record
}
