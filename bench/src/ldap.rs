//! The LDAP runner: searches at a rate over a number of workers, with a report and a gate.
//!
//! Each worker binds once and sends its searches on the clock. A search's latency counts
//! from when it was due, so a slow answer shows in the searches it delayed as well. One
//! search asks for one page, as `search(paged_size=n)` of the usual client libraries does;
//! `--all-pages` follows the cookie to the end.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::clock::iso_utc;
use crate::failure::{Context, Failure};
use crate::load::Latencies;

pub(crate) mod ber;
mod client;
mod filter;

use client::{LdapClient, Search};

/// Searches an LDAP server and reports latencies as JSON.
#[derive(Args, Clone, Debug)]
pub(crate) struct LdapOptions {
    /// Host name or address of the server or of the hub's listener.
    #[arg(long, env = "LDAP_HOST", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// TCP port; 636 with --ssl, else 389.
    #[arg(long, env = "LDAP_PORT")]
    pub(crate) port: Option<u16>,
    /// LDAPS: TLS from the first byte.
    #[arg(long, env = "LDAP_SSL")]
    pub(crate) ssl: bool,
    /// PEM bundle that the server's certificate must lead to; needed with --ssl.
    #[arg(long, env = "LDAP_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Name the server's certificate must carry, when it is not --host.
    #[arg(long, env = "LDAP_SERVER_NAME")]
    pub(crate) server_name: Option<String>,
    /// Who to bind as; anonymous when empty.
    #[arg(long, env = "LDAP_BIND_DN", default_value = "")]
    pub(crate) bind_dn: String,
    /// Password of --bind-dn. Prefer LDAP_PASSWORD or --password-file: arguments are seen
    /// by other users of the machine.
    #[arg(long, env = "LDAP_PASSWORD", hide_env_values = true)]
    pub(crate) password: Option<Secret>,
    /// File whose first line is the password.
    #[arg(long, env = "LDAP_PASSWORD_FILE", conflicts_with = "password")]
    pub(crate) password_file: Option<PathBuf>,
    /// Where the search starts.
    #[arg(long, env = "LDAP_BASE_DN", default_value = "dc=corp,dc=local")]
    pub(crate) base_dn: String,
    /// RFC 4515 filter, without extensible matches.
    #[arg(long, env = "LDAP_FILTER", default_value = "(objectClass=person)")]
    pub(crate) filter: String,
    /// Attributes to return, separated by commas.
    #[arg(
        long,
        env = "LDAP_ATTRS",
        default_value = "cn,mail",
        value_delimiter = ','
    )]
    pub(crate) attrs: Vec<String>,
    /// How deep the search goes.
    #[arg(long, env = "LDAP_SCOPE", value_enum, default_value_t = Scope::Subtree)]
    pub(crate) scope: Scope,
    /// Entries in a page; 0 for no paging.
    #[arg(long, env = "LDAP_PAGE_SIZE", default_value_t = 100)]
    pub(crate) page_size: u32,
    /// Follow the paging cookie to the end of the result.
    #[arg(long)]
    pub(crate) all_pages: bool,
    /// Workers, each with its own connection.
    #[arg(long, env = "LDAP_CONCURRENCY", default_value_t = 10)]
    pub(crate) concurrency: u32,
    /// Searches a second by each worker.
    #[arg(long, env = "LDAP_RPS_PER_WORKER", default_value_t = 2.0)]
    pub(crate) rps_per_worker: f64,
    /// Seconds to run.
    #[arg(long, env = "LDAP_DURATION", default_value_t = 30.0)]
    pub(crate) duration: f64,
    /// Seconds that one connect, bind or search may take.
    #[arg(long, env = "LDAP_TIMEOUT", default_value_t = 5.0)]
    pub(crate) timeout: f64,
    /// File for the JSON report; standard output when absent.
    #[arg(long, env = "LDAP_OUT")]
    pub(crate) out: Option<PathBuf>,
    /// Fail unless p99 is at most 200 ms and no search failed.
    #[arg(long)]
    pub(crate) gate: bool,
}

/// A password, which nothing prints.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// How deep a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// The entry named alone.
    Base,
    /// Its children.
    #[value(alias = "one", alias = "onelevel")]
    Level,
    /// All below it, itself included.
    #[value(alias = "sub")]
    Subtree,
}

/// The report, in the shape that existing tools read.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LdapReport {
    pub(crate) run_id: String,
    pub(crate) target: String,
    pub(crate) workload: String,
    pub(crate) latency_ms: LatencyMillis,
    pub(crate) requests_total: u64,
    pub(crate) errors_total: u64,
    pub(crate) start_iso: String,
}

/// Latencies of the searches that succeeded, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct LatencyMillis {
    pub(crate) count: u64,
    pub(crate) avg_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

/// The gate's bound on p99.
const GATE_P99_MS: f64 = 200.0;

/// What a run saw, with the whole histogram.
#[derive(Clone, Debug)]
pub(crate) struct LdapResult {
    pub(crate) report: LdapReport,
    pub(crate) latencies: Latencies,
}

/// Runs the workload, writes the report and applies the gate.
pub(crate) fn main(options: &LdapOptions) -> Result<(), Failure> {
    let report = run(options)?.report;
    let json = serde_json::to_string_pretty(&report).context(|| "write the report".to_owned())?;
    match &options.out {
        Some(path) => {
            std::fs::write(path, json + "\n").context(|| format!("write {}", path.display()))?;
        }
        None => crate::say(&json),
    }
    if options.gate {
        check_gate(&report)?;
    }
    Ok(())
}

fn check_gate(report: &LdapReport) -> Result<(), Failure> {
    let p99_ms = report.latency_ms.p99_ms;
    if report.errors_total > 0 {
        return Err(Failure::new(format!(
            "gate: {} of {} searches failed",
            report.errors_total, report.requests_total
        )));
    }
    if report.latency_ms.count == 0 || p99_ms > GATE_P99_MS {
        return Err(Failure::new(format!(
            "gate: p99 {p99_ms:.1} ms of {} searches, at most {GATE_P99_MS} ms allowed",
            report.latency_ms.count
        )));
    }
    Ok(())
}

/// Runs the workload.
pub(crate) fn run(options: &LdapOptions) -> Result<LdapResult, Failure> {
    if options.rps_per_worker <= 0.0 || options.concurrency == 0 {
        return Err(Failure::new(
            "`rps-per-worker` and `concurrency` must be above 0",
        ));
    }
    let search = Search::from_options(options)?;
    let connector = client::Connector::from_options(options)?;
    let start_iso = iso_utc(SystemTime::now());
    let started = Instant::now();
    let workers: Vec<_> = (0..options.concurrency)
        .map(|number| {
            let plan = Plan::of(options, number, started);
            let (search, connector) = (search.clone(), connector.clone());
            thread::spawn(move || work(&plan, &search, &connector))
        })
        .collect();
    let mut latencies = Latencies::new();
    let (mut requests_total, mut errors_total) = (0, 0);
    for worker in workers {
        let done = worker
            .join()
            .map_err(|_| Failure::new("an LDAP worker panicked"))?;
        latencies.merge(&done.latencies);
        requests_total += done.requests;
        errors_total += done.errors;
    }
    let report = LdapReport {
        run_id: run_id(),
        target: connector.target().to_owned(),
        workload: format!(
            "search base={} scope={} filter={} page={} workers={} rps_per_worker={} duration_s={}",
            options.base_dn,
            scope_name(options.scope),
            options.filter,
            options.page_size,
            options.concurrency,
            options.rps_per_worker,
            options.duration
        ),
        latency_ms: LatencyMillis {
            count: latencies.count(),
            avg_ms: latencies.mean_micros() / 1e3,
            p50_ms: latencies.micros(0.5) / 1e3,
            p90_ms: latencies.micros(0.9) / 1e3,
            p99_ms: latencies.micros(0.99) / 1e3,
            max_ms: latencies.max_micros() / 1e3,
        },
        requests_total,
        errors_total,
        start_iso,
    };
    Ok(LdapResult { report, latencies })
}

const fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Base => "base",
        Scope::Level => "level",
        Scope::Subtree => "subtree",
    }
}

fn run_id() -> String {
    let millis = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    format!("{millis:x}-{:x}", std::process::id())
}

/// The password from argument, environment or file.
fn password(options: &LdapOptions) -> Result<String, Failure> {
    match (&options.password, &options.password_file) {
        (Some(password), _) => Ok(password.0.clone()),
        (None, Some(path)) => first_line(path),
        (None, None) => Ok(String::new()),
    }
}

fn first_line(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).context(|| format!("read {}", path.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

struct Plan {
    first_due: Instant,
    interval: Duration,
    until: Instant,
}

impl Plan {
    fn of(options: &LdapOptions, number: u32, started: Instant) -> Self {
        let interval = Duration::from_secs_f64(1.0 / options.rps_per_worker);
        Self {
            // Spread over the interval: ten workers at once would measure their own queue.
            first_due: started + interval * number / options.concurrency,
            interval,
            until: started + Duration::from_secs_f64(options.duration.max(0.0)),
        }
    }
}

struct Worked {
    latencies: Latencies,
    requests: u64,
    errors: u64,
}

fn work(plan: &Plan, search: &Search, connector: &client::Connector) -> Worked {
    let mut worked = Worked {
        latencies: Latencies::new(),
        requests: 0,
        errors: 0,
    };
    let mut connected: Option<LdapClient> = connector.connect().ok();
    let mut due = plan.first_due;
    while due < plan.until {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        worked.requests += 1;
        let outcome = match connected.take() {
            Some(client) => Ok(client),
            None => connector.connect(),
        }
        .and_then(|mut client| client.search(search).map(|_| client));
        match outcome {
            Ok(client) => {
                worked.latencies.record(due.elapsed());
                connected = Some(client);
            }
            // The connection may be half way through an answer: start afresh.
            Err(_) => worked.errors += 1,
        }
        due += plan.interval;
    }
    worked
}

#[cfg(test)]
mod tests;
