//! Where the product stands: load, rivals, a far-away path and a report, in one program.
//!
//! `nowconnect-bench run` measures everything in interleaved rounds and writes the results;
//! the other commands are its parts, to be used by hand.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::json;

mod backend;
mod bare;
mod clock;
mod delay;
mod failure;
mod figures;
mod http;
mod ldap;
mod load;
mod machine;
mod peers;
mod platform;
mod process;
mod product;
mod report;
mod run;
mod suite;

use delay::{DelayProxy, DelaySettings};
use failure::{Context, Failure};
use load::bulk::{BulkSpec, Direction};
use process::Meter;

#[derive(Parser)]
#[command(name = "nowconnect-bench", about, version)]
struct Cli {
    #[command(subcommand)]
    command: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Measure the product beside its rivals and write the results.
    Run(run::RunOptions),
    /// Serve echo, sink, source, stall and count on one port.
    Backend {
        /// Port on loopback; 0 for any.
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
    /// Stand in a TCP path and make it long; `cut` on standard input severs it.
    Delay(DelayOptions),
    /// Load one address by hand.
    Load(LoadOptions),
    /// Search an LDAP server at a rate and report.
    Ldap(ldap::LdapOptions),
    /// Run one half of the tunnel's data path without anything that decides.
    #[command(subcommand)]
    Bare(bare::BareHalf),
    /// Become a program that ends when the bench does.
    #[command(hide = true)]
    Tied {
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

#[derive(Args)]
struct DelayOptions {
    /// Port on loopback; 0 for any.
    #[arg(long, default_value_t = 0)]
    listen: u16,
    /// Where connections go on to.
    #[arg(long)]
    to: SocketAddr,
    /// Round trip in milliseconds, half of it each way.
    #[arg(long, default_value_t = 100)]
    round_trip_ms: u64,
    /// Bytes on the way per connection and direction; 0 for no bound, the kernel's largest
    /// send buffer when absent.
    #[arg(long)]
    window_bytes: Option<usize>,
}

#[derive(Args)]
struct LoadOptions {
    /// The peer's listener, or the backend itself.
    #[arg(long)]
    to: SocketAddr,
    /// The backend, asked for what arrived.
    #[arg(long)]
    backend: Option<SocketAddr>,
    /// Processes whose CPU time counts, with their descendants.
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Seconds of the measured window.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[command(subcommand)]
    kind: LoadKind,
}

#[derive(Subcommand)]
enum LoadKind {
    /// As many bytes as go.
    Bulk {
        #[arg(long, default_value_t = 1)]
        flows: usize,
        #[arg(long, value_enum, default_value_t = Direction::Down)]
        direction: Direction,
    },
    /// New flows: closed loop, one at a time, or on the clock with --rate.
    Open {
        /// Flows at a time; 1 measures each alone.
        #[arg(long, default_value_t = 16)]
        at_a_time: usize,
        /// Flows a second, open loop.
        #[arg(long)]
        rate: Option<u32>,
    },
    /// Small messages there and back.
    Ping {
        #[arg(long, default_value_t = 1)]
        flows: usize,
    },
    /// Small flows beside a saturating one.
    Beside {
        #[arg(long, value_enum, default_value_t = Direction::Down)]
        direction: Direction,
        /// Stalled flows in place of the saturating one.
        #[arg(long)]
        stalled: Option<usize>,
    },
    /// Memory of idle flows.
    Idle {
        #[arg(long, default_value_t = 1000)]
        flows: usize,
    },
    /// Memory of stalled flows.
    Stalled {
        #[arg(long, default_value_t = 64)]
        flows: usize,
    },
}

fn main() -> ExitCode {
    match perform(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "nowconnect-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A line on standard output; a reader that went away is no failure of the bench.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn perform(command: Bench) -> Result<(), Failure> {
    match command {
        Bench::Backend { port } => {
            let backend =
                backend::Backend::bind(port).context(|| format!("listen on port {port}"))?;
            say(&format!("listening {}", backend.address()));
            Ok(backend.serve()?)
        }
        Bench::Run(options) => run::main(&options),
        Bench::Delay(options) => run_delay(&options),
        Bench::Load(options) => run_load(&options),
        Bench::Ldap(options) => ldap::main(&options),
        Bench::Bare(half) => bare::main(half),
        Bench::Tied { command } => become_tied(&command),
    }
}

fn become_tied(command: &[OsString]) -> Result<(), Failure> {
    let (program, args) = command
        .split_first()
        .context(|| "no command given".to_owned())?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context(|| "tie to the parent".to_owned())?;
    let error = Command::new(program).args(args).exec();
    Err(Failure::new(format!(
        "start {}: {error}",
        program.to_string_lossy()
    )))
}

fn run_delay(options: &DelayOptions) -> Result<(), Failure> {
    let mut settings = DelaySettings::of_kernel(Duration::from_millis(options.round_trip_ms));
    match options.window_bytes {
        None => {}
        Some(0) => settings.window_bytes = None,
        Some(bytes) => settings.window_bytes = Some(bytes),
    }
    let proxy = DelayProxy::start(options.listen, options.to, settings)?;
    say(&format!("listening {}", proxy.address()));
    for line in std::io::stdin().lock().lines() {
        match line?.trim() {
            "cut" => say(&format!("cut {}", proxy.cut())),
            "" => {}
            other => say(&format!("`{other}` is not a command; `cut` is")),
        }
    }
    // Without a terminal, serve until ended.
    loop {
        std::thread::park();
    }
}

fn run_load(options: &LoadOptions) -> Result<(), Failure> {
    let meter = Meter::of(options.pids.clone());
    let window = Duration::from_secs_f64(options.seconds);
    let backend = options.backend.unwrap_or(options.to);
    let seen = match &options.kind {
        LoadKind::Bulk { flows, direction } => {
            let spec = BulkSpec {
                flows: *flows,
                direction: *direction,
                warm_up: Duration::from_millis(500),
                window,
            };
            let seen = load::bulk::run(options.to, backend, spec, &meter)?;
            json!({"mb_per_s": seen.mb_per_s, "cpu_s_per_gb": seen.cpu_s_per_gb})
        }
        LoadKind::Open { at_a_time, rate } => {
            let seen = match (rate, at_a_time) {
                (Some(rate), _) => {
                    load::open::run_at_rate(options.to, *rate, window, &meter, |_| Ok(()))?
                }
                (None, 1) => load::open::run_sequential(options.to, 1000, &meter)?,
                (None, _) => load::open::run_saturating(options.to, *at_a_time, window, &meter)?,
            };
            json!({
                "per_second": seen.per_second, "cpu_us_each": seen.cpu_us_each,
                "errors": seen.errors, "latency": seen.latencies.summary(),
            })
        }
        LoadKind::Ping { flows } => {
            let seen = load::ping::run(options.to, *flows, window, &meter)?;
            json!({
                "per_second": seen.per_second, "cpu_us_each": seen.cpu_us_each,
                "latency": seen.latencies.summary(),
            })
        }
        LoadKind::Beside { direction, stalled } => {
            return run_beside(options, backend, window, *direction, *stalled);
        }
        LoadKind::Idle { flows } => {
            let seen = load::idle::run(options.to, *flows, &meter)?;
            json!({
                "open_s": seen.open_s, "kb_each": seen.kb_each, "cpu_percent": seen.cpu_percent,
            })
        }
        LoadKind::Stalled { flows } => {
            json!({"kb_each": load::idle::run_stalled(options.to, *flows, &meter)?})
        }
    };
    say(&seen.to_string());
    Ok(())
}

fn run_beside(
    options: &LoadOptions,
    backend: SocketAddr,
    window: Duration,
    direction: Direction,
    stalled: Option<usize>,
) -> Result<(), Failure> {
    let meter = Meter::of(options.pids.clone());
    let seen = match stalled {
        Some(count) => {
            let stalled = load::idle::StalledFlows::start(options.to, count)?;
            let seen = load::beside::run(options.to, window)?;
            drop(stalled);
            seen
        }
        None => {
            let bulk = load::bulk::BulkFlows::start(options.to, backend, 1, direction)?;
            std::thread::sleep(Duration::from_millis(500));
            let seen = load::beside::run(options.to, window)?;
            let rate = bulk.measure(Duration::from_millis(300), &meter)?;
            say(&json!({"bulk_mb_per_s": rate.mb_per_s}).to_string());
            bulk.stop();
            seen
        }
    };
    say(&json!({
        "ping": seen.ping.summary(), "fresh": seen.fresh.summary(),
        "late": seen.late.summary(), "errors": seen.errors,
    })
    .to_string());
    Ok(())
}
