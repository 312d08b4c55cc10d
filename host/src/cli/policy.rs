//! `nowconnect policy`: check, test and explain policies; only `explain` of a past decision
//! talks to a running hub.

mod explain;
mod requests;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use nowconnect_policy::{
    Diagnostics, PolicyBundle, SourceError, Sources, run_cases, schema_text, shipped,
};

use super::Exit;
use crate::config::{self, Env, ProcessEnv};

pub use explain::{Explain, Explained};
pub use requests::Requests;

/// Checks, tests and explains Cedar policies.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Check policies as the hub would before it takes them: print every problem with its place
    #[command(after_help = "Exit code: 0 right, 1 problems found, 64 the folder cannot be read.")]
    Check {
        /// Folder with `*.cedar` and, optionally, `entities.json`; without it `policy.dir` of the
        /// configuration, else the policies that are built in
        dir: Option<PathBuf>,
        /// Take warnings for problems
        #[arg(long)]
        strict: bool,
        /// Print nothing but problems
        #[arg(short, long)]
        quiet: bool,
    },
    /// Run the test cases of policies; the stock `cedar run-tests` runs the same files
    #[command(
        after_help = "A case file is a JSON list of {name, request {principal, action, resource, \
                      context}, entities, decision, reason, num_errors}.\n\
                      Exit code: 0 all passed, 1 some failed, 64 a folder cannot be read."
    )]
    Test {
        /// Folder with the policies; without it as in `policy check`
        dir: Option<PathBuf>,
        /// Folder with the case files; without it `tests` in the folder with the policies
        #[arg(long, value_name = "DIR")]
        cases: Option<PathBuf>,
        /// Print failed cases only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Say why a decision came out as it did, and what would have turned it
    Explain(Explain),
    /// Print the distinct requests that a running hub has decided, as test cases
    Requests(Requests),
    /// Print the Cedar schema: all that policies can name
    Schema,
    /// Write the built-in policies and the schema into a folder, to start from
    Init {
        /// The folder; made where it is not there. Files in it are never replaced
        dir: PathBuf,
    },
}

impl Command {
    /// Runs it with this process' environment, output to stdout and problems to stderr.
    #[must_use]
    pub fn run(self) -> Exit {
        self.run_with(
            &ProcessEnv,
            &mut io::stdout().lock(),
            &mut io::stderr().lock(),
        )
    }

    /// Runs it. Trouble with writing ends it with [`Exit::Failure`]: nobody is reading.
    pub fn run_with(self, env: &dyn Env, out: &mut dyn Write, problems: &mut dyn Write) -> Exit {
        let done = match self {
            Self::Check { dir, strict, quiet } => match open(dir.as_deref(), env) {
                Ok(opened) => check(&opened, strict, quiet, out, problems),
                Err(refusal) => refusal.print(problems),
            },
            Self::Test { dir, cases, quiet } => match open(dir.as_deref(), env) {
                Ok(opened) => test(&opened, cases.as_deref(), quiet, out, problems),
                Err(refusal) => refusal.print(problems),
            },
            Self::Explain(explain) => explain.run_with(env, out, problems),
            Self::Requests(requests) => requests.run_with(out, problems),
            Self::Schema => out
                .write_all(schema_text().as_bytes())
                .map(|()| Exit::Success),
            Self::Init { dir } => init(&dir, out, problems),
        };
        done.unwrap_or(Exit::Failure)
    }
}

/// Texts with where they come from.
struct Opened {
    /// `None` for the policies that are built in.
    dir: Option<PathBuf>,
    sources: Sources,
}

/// What is given cannot be worked with.
enum Refusal {
    Sources(SourceError),
    Config(String),
}

impl Refusal {
    fn print(&self, problems: &mut dyn Write) -> io::Result<Exit> {
        match self {
            Self::Sources(error) => writeln!(problems, "{error}")?,
            Self::Config(error) => writeln!(problems, "{error}")?,
        }
        Ok(Exit::Usage)
    }
}

fn open(given: Option<&Path>, env: &dyn Env) -> Result<Opened, Refusal> {
    let dir = match given {
        Some(dir) => Some(dir.to_owned()),
        None => {
            let loaded =
                config::read(None, env).map_err(|error| Refusal::Config(error.to_string()))?;
            loaded.config.policy.dir
        }
    };
    let sources = match &dir {
        Some(dir) => Sources::from_dir(dir).map_err(Refusal::Sources)?,
        None => shipped(),
    };
    Ok(Opened { dir, sources })
}

fn compile(opened: &Opened, problems: &mut dyn Write) -> io::Result<Option<PolicyBundle>> {
    match PolicyBundle::compile(&opened.sources, 0) {
        Ok(bundle) => Ok(Some(bundle)),
        Err(found) => {
            print_all(&found, problems)?;
            Ok(None)
        }
    }
}

fn print_all(found: &Diagnostics, problems: &mut dyn Write) -> io::Result<()> {
    writeln!(problems, "{found}")?;
    let errors = found
        .0
        .iter()
        .filter(|diagnostic| diagnostic.severity == nowconnect_policy::Severity::Error)
        .count();
    writeln!(problems, "refused: {}", count(errors, "error"))
}

fn check(
    opened: &Opened,
    strict: bool,
    quiet: bool,
    out: &mut dyn Write,
    problems: &mut dyn Write,
) -> io::Result<Exit> {
    let Some(bundle) = compile(opened, problems)? else {
        return Ok(Exit::Failure);
    };
    for warning in bundle.warnings() {
        writeln!(problems, "{warning}")?;
    }
    if !quiet {
        let from = match &opened.dir {
            Some(dir) => dir.display().to_string(),
            None => "built in".to_owned(),
        };
        let added = bundle
            .policies()
            .filter(|policy| opened.dir.is_some() && policy.file.starts_with("shipped:"))
            .count();
        let guards = match added {
            0 => String::new(),
            added => format!(", {added} of them shipped guards"),
        };
        writeln!(
            out,
            "right: {}{guards}, {} ({from}, digest {})",
            count(bundle.policy_count(), "policy"),
            count(bundle.warnings().len(), "warning"),
            bundle.digest().get(..12).unwrap_or_default(),
        )?;
    }
    if strict && !bundle.warnings().is_empty() {
        return Ok(Exit::Failure);
    }
    Ok(Exit::Success)
}

fn test(
    opened: &Opened,
    cases: Option<&Path>,
    quiet: bool,
    out: &mut dyn Write,
    problems: &mut dyn Write,
) -> io::Result<Exit> {
    let dir = match (cases, &opened.dir) {
        (Some(cases), _) => cases.to_owned(),
        (None, Some(dir)) => dir.join("tests"),
        (None, None) => {
            writeln!(
                problems,
                "the built-in policies have no cases here; name a folder of policies, or one of \
                 cases with `--cases`"
            )?;
            return Ok(Exit::Usage);
        }
    };
    let Some(bundle) = compile(opened, problems)? else {
        return Ok(Exit::Failure);
    };
    let report = match run_cases(&bundle, &dir) {
        Ok(report) => report,
        Err(error) => return Refusal::Sources(error).print(problems),
    };
    if report.results.is_empty() {
        writeln!(problems, "no case found in `{}`", dir.display())?;
        return Ok(Exit::Usage);
    }
    for result in &report.results {
        match &result.failure {
            None if quiet => {}
            None => writeln!(out, "ok    {}: {}", result.file, result.name)?,
            Some(failure) => {
                writeln!(out, "FAIL  {}: {}", result.file, result.name)?;
                writeln!(out, "      {failure}")?;
            }
        }
    }
    if !quiet {
        for id in &report.uncovered {
            writeln!(out, "note: no case is determined by `{id}`")?;
        }
    }
    let (all, failed) = (report.results.len(), report.failed());
    writeln!(
        out,
        "{}: {} passed, {failed} failed",
        count(all, "case"),
        all - failed
    )?;
    Ok(if failed == 0 {
        Exit::Success
    } else {
        Exit::Failure
    })
}

fn init(dir: &Path, out: &mut dyn Write, problems: &mut dyn Write) -> io::Result<Exit> {
    let mut files = vec![("schema.cedarschema".to_owned(), schema_text().to_owned())];
    for file in shipped().policies {
        let name = file.name.trim_start_matches("shipped:").to_owned();
        files.push((name, file.text));
    }
    let cannot = |error: io::Error| format!("cannot write to `{}`: {error}", dir.display());
    let written = std::fs::create_dir_all(dir).map_err(cannot).and_then(|()| {
        for (name, text) in &files {
            let path = dir.join(name);
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(|error| {
                    if error.kind() == io::ErrorKind::AlreadyExists {
                        format!(
                            "`{}` is there already; name an empty folder",
                            path.display()
                        )
                    } else {
                        cannot(error)
                    }
                })?;
            file.write_all(text.as_bytes()).map_err(cannot)?;
        }
        Ok(())
    });
    match written {
        Ok(()) => {
            writeln!(
                out,
                "{} written to {}; next: `nowconnect policy check {}`",
                count(files.len(), "file"),
                dir.display(),
                dir.display()
            )?;
            Ok(Exit::Success)
        }
        Err(problem) => {
            writeln!(problems, "{problem}")?;
            Ok(Exit::Usage)
        }
    }
}

/// `1 policy`, `2 policies`.
fn count(number: usize, what: &str) -> String {
    match (number, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {what}s"),
    }
}

#[cfg(test)]
mod tests;
