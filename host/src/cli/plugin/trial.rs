//! `plugin run`, `test`, `bench` and `conformance`: a plugin on the bench, in the real host.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nowconnect_plugins::Hook;
use nowconnect_plugins::workbench::{Case, Mounted, Percentiles, Ran, Workbench, read_cases};

use super::mounting::{Mounting, Opened, Unstated, bench, mount, refusals};
use super::{Done, Trouble, count, wait_for};
use crate::cli::Exit;

/// Calls of `plugin bench` unless another number is given.
const BENCH_CALLS: u32 = 2000;
/// Most calls of `plugin bench`: each is kept until the percentiles are known.
const BENCH_CALLS_MAX: u32 = 1_000_000;

fn parse_hook(name: &str) -> Result<Hook, String> {
    // The contract's own spelling is as good.
    let name = name.replace('-', "_");
    let name = name.strip_prefix("on_").unwrap_or(&name);
    Hook::parse(name).ok_or_else(|| {
        let known: Vec<&str> = Hook::ALL.iter().map(|hook| hook.as_str()).collect();
        format!("known are {}", known.join(", "))
    })
}

/// `nowconnect plugin run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    #[command(flatten)]
    mounting: Mounting,
    /// The hook; not needed where the case names it
    #[arg(long, value_parser = parse_hook)]
    hook: Option<Hook>,
    /// A file with a case, of which only `input` and what is there before count; without it the
    /// ordinary question of the hook
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

impl Run {
    pub(super) fn run(self, out: &mut dyn Write) -> Done {
        let case = one_case(self.input.as_deref(), self.hook)?;
        wait_for(async {
            let bench = bench()?;
            let mut opened = self.mounting.open(&bench, Unstated::Harmless).await?;
            let mounted = mount_for(&bench, &mut opened, &case).await?;
            let ran = bench.run(&mounted, &case).await;
            show(&ran, out)?;
            tell_withheld(&opened, out)?;
            Ok(if ran.answer["verdict"] == "failed" {
                Exit::Failure
            } else {
                Exit::Success
            })
        })
    }
}

fn one_case(input: Option<&std::path::Path>, hook: Option<Hook>) -> Result<Case, Trouble> {
    match (input, hook) {
        (Some(path), hook) => {
            let mut cases = read_cases(path, hook).map_err(Trouble::usage)?;
            match cases.len() {
                1 => Ok(cases.remove(0).1),
                number => Err(Trouble::usage(format!(
                    "`{}` has {number} cases; `plugin test` runs more than one",
                    path.display()
                ))),
            }
        }
        (None, Some(hook)) => Ok(Case::ordinary(hook)),
        (None, None) => Err(Trouble::usage(
            "name a hook with `--hook`, or a case with `--input`",
        )),
    }
}

fn show(ran: &Ran, out: &mut dyn Write) -> std::io::Result<()> {
    let recorded = &ran.recorded;
    writeln!(out, "{:#}", ran.answer)?;
    for line in &recorded.log {
        writeln!(out, "log      {line}")?;
    }
    for line in &recorded.metrics {
        writeln!(out, "metric   {line}")?;
    }
    for (key, value) in &ran.kv_after {
        writeln!(out, "kv       {key} = {value}")?;
    }
    for (what, number) in &recorded.dropped {
        writeln!(out, "dropped  {number} {what}: over a bound or not granted")?;
    }
    writeln!(
        out,
        "time     {} of which the instance {}, memory {} KiB",
        micros(recorded.took),
        micros(recorded.instantiate),
        recorded.memory_peak_bytes / 1024
    )
}

fn tell_withheld(opened: &Opened, out: &mut dyn Write) -> std::io::Result<()> {
    match opened.withheld() {
        Some(text) => writeln!(out, "{text}"),
        None => Ok(()),
    }
}

/// The plugin with the settings and grants of the case, where it has its own.
async fn mount_for(
    bench: &Workbench,
    opened: &mut Opened,
    case: &Case,
) -> Result<Mounted, Trouble> {
    let mut spec = opened.spec.clone();
    if let Some(config) = &case.config {
        spec.config = config.clone();
    }
    if let Some(grants) = &case.grants {
        spec.grants = opened.without_reach(grants);
    }
    let mounted = mount(bench, spec).await?;
    let hook = case.question.hook();
    if !mounted.has(hook) {
        return Err(Trouble::usage(format!(
            "it does not export the hook `{hook}`"
        )));
    }
    Ok(mounted)
}

/// `nowconnect plugin test`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A case file is a JSON object or a list of them: {name, hook, config, \
                        grants, call, input, carry, kv, expect {answer, kv, log, max_ms}}. What \
                        is left out is ordinary; `expect` names only what the case is about.\n\
                        Exit code: 0 all passed, 1 some failed, 64 a case cannot be read."
)]
pub struct Test {
    #[command(flatten)]
    mounting: Mounting,
    /// A folder with case files, or one of them
    cases: PathBuf,
    /// Print failed cases only
    #[arg(short, long)]
    quiet: bool,
}

impl Test {
    pub(super) fn run(self, out: &mut dyn Write) -> Done {
        let cases = read_cases(&self.cases, None).map_err(Trouble::usage)?;
        wait_for(async {
            let bench = bench()?;
            let mut opened = self.mounting.open(&bench, Unstated::Harmless).await?;
            // Kept, so that the component is compiled once.
            let _first = bench.mount(opened.spec.clone()).await;
            let mut failed = 0;
            for (file, case) in &cases {
                let file = file
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                let (problems, took) = match mount_for(&bench, &mut opened, case).await {
                    Ok(mounted) => {
                        let ran = bench.run(&mounted, case).await;
                        (ran.problems(&case.expect), ran.recorded.took)
                    }
                    Err(trouble) => (case.refused(&trouble.text), Duration::ZERO),
                };
                if problems.is_empty() {
                    if !self.quiet {
                        writeln!(out, "ok    {file}: {} ({})", case.name, micros(took))?;
                    }
                    continue;
                }
                failed += 1;
                writeln!(out, "FAIL  {file}: {}", case.name)?;
                for problem in problems {
                    writeln!(out, "      {}", problem.replace('\n', "\n      "))?;
                }
            }
            tell_withheld(&opened, out)?;
            let passed = cases.len() - failed;
            writeln!(
                out,
                "{}: {passed} passed, {failed} failed",
                count(cases.len(), "case")
            )?;
            Ok(if failed == 0 {
                Exit::Success
            } else {
                Exit::Failure
            })
        })
    }
}

/// `nowconnect plugin bench`.
#[derive(Clone, Debug, Args)]
pub struct Bench {
    #[command(flatten)]
    mounting: Mounting,
    /// The hook; not needed where the case names it
    #[arg(long, value_parser = parse_hook)]
    hook: Option<Hook>,
    /// A file with the case to ask; without it the ordinary question of the hook
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Calls to measure
    #[arg(long, default_value_t = BENCH_CALLS,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(BENCH_CALLS_MAX)))]
    calls: u32,
}

impl Bench {
    pub(super) fn run(self, out: &mut dyn Write) -> Done {
        let case = one_case(self.input.as_deref(), self.hook)?;
        wait_for(async {
            let bench = bench()?;
            let mut opened = self.mounting.open(&bench, Unstated::Harmless).await?;
            let mounted = mount_for(&bench, &mut opened, &case).await?;
            let timing = bench.time(&mounted, &case, self.calls).await;
            let hook = case.question.hook();
            writeln!(
                out,
                "{} of `{hook}`, each in a fresh instance:",
                count(timing.calls as usize, "call")
            )?;
            writeln!(out, "            {:>12} {:>12} {:>12}", "p50", "p99", "max")?;
            for (what, times) in [
                ("instance", timing.instantiate),
                ("call", timing.call),
                ("together", timing.total),
            ] {
                let Percentiles { p50, p99, max } = times;
                let [p50, p99, max] = [p50, p99, max].map(micros);
                writeln!(out, "{what:<11} {p50:>12} {p99:>12} {max:>12}")?;
            }
            writeln!(
                out,
                "memory      {:>8} KiB at most",
                timing.memory_peak_bytes / 1024
            )?;
            tell_withheld(&opened, out)?;
            match timing.failure {
                None => Ok(Exit::Success),
                Some(failure) => Err(Trouble::failure(format!(
                    "{} failed, the last one with {failure}",
                    count(timing.failed as usize, "call")
                ))),
            }
        })
    }
}

/// `nowconnect plugin conformance`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A plugin may say no and may say that it cannot answer. It may not trap, \
                        run over a limit, answer outside of its grants or the contract, or come \
                        to two outcomes on one question.\n\
                        Exit code: 0 it stands all of them, 1 it does not, 64 it cannot be read."
)]
pub struct Conformance {
    #[command(flatten)]
    mounting: Mounting,
    /// Print every question, not only those that it does not stand
    #[arg(short, long)]
    verbose: bool,
}

impl Conformance {
    pub(super) fn run(self, out: &mut dyn Write) -> Done {
        wait_for(async {
            let bench = bench()?;
            let opened = self.mounting.open(&bench, Unstated::Harmless).await?;
            let mounted = bench
                .mount(opened.spec.clone())
                .await
                .map_err(|errors| refusals(&errors))?;
            tell_withheld(&opened, out)?;
            let mut failed = 0;
            for hook in bench.conformance(&mounted).await {
                let bad = hook.failed().count();
                failed += bad;
                let word = if bad == 0 { "ok  " } else { "FAIL" };
                writeln!(
                    out,
                    "{word}  {}: {}",
                    hook.hook,
                    count(hook.trials.len(), "question")
                )?;
                for trial in &hook.trials {
                    match &trial.problem {
                        Some(problem) => {
                            writeln!(out, "      {}: {}: {problem}", trial.name, trial.outcome)?;
                        }
                        None if self.verbose => {
                            writeln!(out, "      {}: {}", trial.name, trial.outcome)?;
                        }
                        None => {}
                    }
                }
            }
            if failed == 0 {
                writeln!(out, "it conforms")?;
                return Ok(Exit::Success);
            }
            writeln!(out, "it does not conform: {}", count(failed, "bad answer"))?;
            Ok(Exit::Failure)
        })
    }
}

fn micros(time: Duration) -> String {
    format!("{:.1} µs", time.as_secs_f64() * 1e6)
}
