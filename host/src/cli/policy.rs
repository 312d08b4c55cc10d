//! `nowconnect policy`: check, test and explain policies, and make bundles of them; only
//! `explain` of a past decision talks to a running hub.

mod bundle;
mod diff;
mod explain;
pub mod live;
mod material;
mod prove;
mod requests;
mod who_can;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use nowconnect_policy::{
    CoreVersion, Diagnostics, Folder, PolicyBundle, Refusal as BundleRefusal, SourceError,
    run_case_files, run_cases, schema_text, shipped, shipped_cases,
};

use super::Exit;
use crate::config::{self, Env, ProcessEnv};

use material::{Material, Unusable};

pub use explain::{Explain, Explained};
pub use requests::Requests;

/// Checks, tests and explains Cedar policies.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Check policies as the hub would before it takes them: print every problem with its place
    #[command(after_help = "Exit code: 0 right, 1 problems found, 64 the folder cannot be read.")]
    Check {
        /// Folder with `*.cedar` and, optionally, `entities.json`, or a bundle; without it
        /// `policy.dir` of the configuration, else the policies that are built in
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
        /// Folder with the policies, or a bundle; without it as in `policy check`
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
    /// Say what changes from one set of policies to another, and what that does
    #[command(
        after_help = "Exit code: 0 compared, 1 what `--fail-on` names is so or cannot be ruled \
                      out, 64 something cannot be read or does not compile, 69 `--prove` without \
                      prover or solver."
    )]
    Diff(diff::Diff),
    /// Prove that policies never fail to evaluate and that their assertions hold
    #[command(
        after_help = "Assertions are in `assertions/*.cedar` beside the policies.\n\
                      Exit code: 0 all proved, 1 not all, 64 something cannot be read or does not \
                      compile, 69 prover or solver is not installed."
    )]
    Prove(prove::Prove),
    /// List the policies that have a say in who may open a connector
    #[command(
        after_help = "Exit code: 0 there is a permit about it, 1 there is none, 64 the policies \
                      cannot be read or do not compile."
    )]
    WhoCan(who_can::WhoCan),
    /// Print the Cedar schema: all that policies can name
    Schema {
        /// The version; without it the newest
        #[arg(long, value_name = "NUMBER")]
        core: Option<u32>,
    },
    /// Make a key pair to sign bundles with
    Keygen(bundle::Keygen),
    /// Make a bundle of a folder, if it compiles and passes its own tests
    #[command(after_help = "Exit code: 0 built, 1 refused, 64 the folder cannot be read.")]
    Build(bundle::Build),
    /// Sign a bundle
    #[command(after_help = "Exit code: 0 signed, 1 it is no bundle, 64 a file cannot be read.")]
    Sign(bundle::Sign),
    /// Hold a bundle against keys, clock and this version, compile it and run its tests
    #[command(
        after_help = "Exit code: 0 a hub that trusts these keys would take it, 1 refused (the \
                      code is printed), 64 a file cannot be read."
    )]
    Verify(bundle::Verify),
    /// Print what a bundle says and holds, whether or not anybody should believe it
    #[command(after_help = "Exit code: 0 it compiles, 1 it does not, 64 it cannot be read.")]
    Inspect(bundle::Inspect),
    /// Bring bundles to a running hub and change what is in force
    #[command(flatten)]
    Live(live::Command),
    /// Write the built-in policies with their test cases and the schema into a folder, to start
    /// from
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
            Self::Diff(diff) => diff.run(out, problems),
            Self::Prove(prove) => prove.run(env, out, problems),
            Self::WhoCan(who_can) => who_can.run(env, out, problems),
            Self::Schema { core } => schema(core, out, problems),
            Self::Keygen(keygen) => keygen.run(out, problems),
            Self::Build(build) => build.run(out, problems),
            Self::Sign(sign) => sign.run(out, problems),
            Self::Verify(verify) => verify.run(out, problems),
            Self::Inspect(inspect) => inspect.run(out, problems),
            Self::Live(command) => command.run_with(out, problems),
            Self::Init { dir } => init(&dir, out, problems),
        };
        done.unwrap_or(Exit::Failure)
    }
}

/// Texts with where they come from.
struct Opened {
    /// `None` for the policies that are built in.
    dir: Option<PathBuf>,
    material: Material,
}

/// What is given cannot be worked with.
enum Refusal {
    Sources(SourceError),
    Archive(BundleRefusal),
    Config(String),
}

impl From<Unusable> for Refusal {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Sources(error) => Self::Sources(error),
            Unusable::Archive(refusal) => Self::Archive(refusal),
        }
    }
}

impl Refusal {
    fn print(&self, problems: &mut dyn Write) -> io::Result<Exit> {
        match self {
            Self::Sources(error) => writeln!(problems, "{error}")?,
            Self::Archive(refusal) => return bundle::refused(refusal, problems),
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
    let material = match &dir {
        Some(dir) => Material::open(dir)?,
        None => Material {
            folder: Folder {
                sources: shipped(),
                ..Folder::default()
            },
            from_folder: false,
        },
    };
    Ok(Opened { dir, material })
}

fn compile(opened: &Opened, problems: &mut dyn Write) -> io::Result<Option<PolicyBundle>> {
    match PolicyBundle::compile(&opened.material.folder.sources, 0) {
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
        (Some(cases), _) => Some(cases.to_owned()),
        (None, Some(dir)) if opened.material.from_folder => Some(dir.join("tests")),
        (None, Some(_)) => None,
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
    let report = match &dir {
        None => run_case_files(&bundle, &opened.material.folder.tests),
        Some(dir) => match run_cases(&bundle, dir) {
            Ok(report) => report,
            Err(error) => return Refusal::Sources(error).print(problems),
        },
    };
    if report.results.is_empty() {
        let within = dir.as_ref().or(opened.dir.as_ref());
        let within = within.map_or_else(String::new, |dir| dir.display().to_string());
        writeln!(problems, "no case found in `{within}`")?;
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

fn schema(core: Option<u32>, out: &mut dyn Write, problems: &mut dyn Write) -> io::Result<Exit> {
    let number = core.unwrap_or(CoreVersion::CURRENT.number());
    let Some(version) = CoreVersion::from_number(number) else {
        let served = CoreVersion::SERVED.map(|version| version.number().to_string());
        writeln!(
            problems,
            "there is no core schema {number} here; served are {}",
            served.join(" and ")
        )?;
        return Ok(Exit::Usage);
    };
    out.write_all(version.text().as_bytes())?;
    Ok(Exit::Success)
}

fn init(dir: &Path, out: &mut dyn Write, problems: &mut dyn Write) -> io::Result<Exit> {
    let mut files = vec![("schema.cedarschema".to_owned(), schema_text().to_owned())];
    for file in shipped().policies {
        let name = file.name.trim_start_matches("shipped:").to_owned();
        files.push((name, file.text));
    }
    for case in shipped_cases() {
        files.push((case.name, case.text));
    }
    let cannot = |error: io::Error| format!("cannot write to `{}`: {error}", dir.display());
    let folders = std::fs::create_dir_all(dir.join("tests"));
    let written = folders.map_err(cannot).and_then(|()| {
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
                "{} written to {folder}; next: `nowconnect policy test {folder}`",
                count(files.len(), "file"),
                folder = dir.display()
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
