//! Codes about plugins: what became of a call, and what the capabilities answer them.

use nowconnect_plugins::{CallOutcome, FetchCode, KvError};

use super::{Entry, Group, Line, Text, text};
use crate::telemetry::events;

static CALLS: Group = Group {
    heading: "What became of a call of a plugin",
    place: "As the outcome of a plugin's call",
    intro: "`outcome` of `nowconnect_plugin_calls_total`; one that is no answer denies with `plugin_failed`, unless the\n\
            plugin is `optional`.",
    seen_by: "the hub's operator, in metrics, spans and the decision record",
    property: Some("counts towards quarantine"),
    metrics: &["nowconnect_plugin_calls_total{outcome=\"CODE\"}"],
    lines: &[Line(events::DECISION, "")],
};

static KV: Group = Group {
    heading: "Codes that a plugin gets from `kv`",
    place: "As the answer of `kv` to a plugin",
    intro: "Since contract 0.2. The plugin decides what becomes of them.",
    seen_by: "the plugin, and who reads its log lines",
    property: None,
    metrics: &[],
    lines: &[],
};

static FETCH: Group = Group {
    heading: "Codes that a plugin gets from `fetch`",
    place: "As the answer of `fetch` to a plugin",
    intro: "Since contract 0.2. The plugin decides what becomes of them.",
    seen_by: "the plugin, who reads its log lines, and the hub's operator in the metrics",
    property: None,
    metrics: &["nowconnect_plugin_fetches_total{outcome=\"CODE\"}"],
    lines: &[],
};

pub(super) fn entries() -> Vec<Entry> {
    let calls = CallOutcome::ALL.into_iter().filter_map(|outcome| {
        let faults = super::yes_or_no(outcome.is_fault());
        Some(Entry::new(&CALLS, outcome.as_str(), call(outcome)?).with(faults))
    });
    let of_kv = KvError::ALL
        .into_iter()
        .map(|error| Entry::new(&KV, error.code(), kv(error)));
    let of_fetch = FetchCode::ALL
        .into_iter()
        .map(|code| Entry::new(&FETCH, code.as_str(), fetch(code)));
    calls.chain(of_kv).chain(of_fetch).collect()
}

/// `None` for the outcome that needs no page.
fn call(outcome: CallOutcome) -> Option<Text> {
    Some(match outcome {
        CallOutcome::Ok => return None,
        CallOutcome::Deny => text(
            "it answered no",
            "Its rules say so; the decision has the plugin's own code.",
            "the plugin's README says what its codes mean",
        ),
        CallOutcome::Error => text(
            "it answered that it cannot answer",
            "Its configuration does not fit, or something that it depends on is not there now.",
            "the decision record has what it said",
        ),
        CallOutcome::Trap => text(
            "it ran into an instruction that stops it",
            "A panic, a stack overflow, or a fault in its code.",
            "report it to its vendor with the input; `nowconnect plugin run` repeats it",
        )
        .logged(&[Line(events::PLUGIN_QUARANTINE, "")]),
        CallOutcome::Timeout => text(
            "it used up its guest time or its wall time",
            "It loops, does too much, or waits on something slow.",
            "`nowconnect_plugin_call_seconds` shows how long it takes; raise its limits only where that is what it needs",
        )
        .counted(&["nowconnect_plugin_call_seconds"])
        .logged(&[Line(events::PLUGIN_QUARANTINE, "")]),
        CallOutcome::Oom => text(
            "it stopped after the host refused it more memory",
            "It wants more than its memory limit.",
            "`nowconnect_plugin_memory_peak_bytes` shows what it uses; raise its limit only where that is what it needs",
        )
        .counted(&["nowconnect_plugin_memory_peak_bytes"])
        .logged(&[Line(events::PLUGIN_QUARANTINE, "")]),
        CallOutcome::Shed => text(
            "it was not called",
            "As many of its calls are under way as it may have, or it is in quarantine.",
            "`nowconnect_plugin_quarantined` tells which; raise its concurrency where it is only slow",
        )
        .counted(&["nowconnect_plugin_quarantined", "nowconnect_plugin_pool_wait_seconds"]),
        CallOutcome::BadOutput => text(
            "its answer breaks the contract, a grant or the output limit",
            "It sets a header that is not granted, returns more than it may, or a code that is none.",
            "`nowconnect plugin conformance` shows what; a missing grant is the operator's to give",
        )
        .logged(&[Line(events::PLUGIN_QUARANTINE, "")]),
    })
}

fn kv(code: KvError) -> Text {
    match code {
        KvError::NoQuota => text(
            "the namespace is full",
            "The plugin keeps more than it was granted.",
            "grant more, such as `kv:16MiB`, or let it keep less or for a shorter time",
        ),
        KvError::TooLarge => text(
            "a key over 256 bytes, or a value over 64 KiB",
            "The plugin puts too much into one entry.",
            "split it, or keep less",
        ),
        KvError::BadTtl => text(
            "a time to live of 0 or over a week",
            "The plugin gives one that the store does not take.",
            "give one of 1 to 604800 seconds",
        ),
        KvError::NotACounter => text(
            "an increment of a value that was set",
            "The key was written with `set`, so it has bytes and no number.",
            "use another key for the counter",
        ),
        KvError::Unavailable => text(
            "the store cannot be asked now",
            "The store behind it does not answer.",
            "decide in the plugin what then holds; look at the store",
        ),
    }
}

fn fetch(code: FetchCode) -> Text {
    match code {
        FetchCode::NotGranted => text(
            "no grant names that scheme, host and port",
            "The operator did not grant it, or the plugin asks for another host than it told.",
            "the detail says which grant would; it is the operator's to give",
        ),
        FetchCode::BadRequest => text(
            "the URL, the method or a field is not possible",
            "The plugin made a request that HTTP does not allow, or with too many fields.",
            "mend the plugin; the detail says what",
        ),
        FetchCode::Busy => text(
            "32 requests of the plugin are under way",
            "The server answers slower than requests come.",
            "look at the server; cache in the plugin what can be",
        ),
        FetchCode::ResolveFailed => text(
            "the name has no address",
            "The name is wrong, or the hub's resolver does not answer.",
            "look at the name from the hub's machine",
        ),
        FetchCode::AddressRefused => text(
            "the name leads to an address that is not public, and no `fetch.network` names it",
            "The host is inside, or somebody turned its name to an inside address.",
            "name the network in the grant `fetch.network`, where it is meant",
        ),
        FetchCode::ConnectFailed => text(
            "nobody answers there",
            "The server is away, or a firewall stands between.",
            "look at the server from the hub's machine",
        ),
        FetchCode::TlsFailed => text(
            "the certificate does not hold",
            "It is signed by an authority that the hub does not trust, is for another name, or has ended.",
            "see `plugins.ca_bundle`",
        ),
        FetchCode::Timeout => text(
            "no answer in the request's own time",
            "The server is slow, or the time is short.",
            "look at the server; the plugin chooses the time, within its call's",
        ),
        FetchCode::TooLarge => text(
            "an answer over 1 MiB",
            "The server sends more than a plugin may get.",
            "ask for less",
        ),
        FetchCode::Broken => text(
            "the answer is not HTTP, or stopped midway",
            "The server speaks something else, or closed early.",
            "look at the server",
        ),
    }
}
