//! `nowconnect plugin`: a plugin author's road from an empty folder to a signed component, and an
//! operator's look at what he was given. Everything here loads and calls plugins as the hub does
//! it; nothing talks to a running hub.

mod author;
mod inspect;
mod keys;
mod manifest;
mod mounting;
mod new;
mod push;
mod trial;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use clap::Subcommand;

use super::Exit;

/// Writes, tries, checks and signs plugins.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Write a plugin's folder that builds and tests green at once
    New(new::New),
    /// Make a component of the core module that a compiler wrote
    Componentize(author::Componentize),
    /// Show what a component is: hooks, imports, contract version, size, digest, signatures
    Inspect(inspect::Inspect),
    /// Load a component as a hub would, with no more than the grants given here
    #[command(
        after_help = "Exit code: 0 a hub would take it, 1 it would refuse it, 64 it cannot \
                            be read."
    )]
    Check(inspect::Check),
    /// Call one hook once and print the answer as JSON
    Run(trial::Run),
    /// Run a table of cases: input, settings and key-value table before; answer, table, log after
    Test(trial::Test),
    /// Measure calls of one hook: instance against call, p50 and p99, memory
    Bench(trial::Bench),
    /// Ask every hook hostile and boundary questions
    Conformance(trial::Conformance),
    /// Make a key to sign with
    Keygen(keys::Keygen),
    /// Sign a component: writes `FILE.sig`
    Sign(keys::Sign),
    /// Check a component's signature
    Verify(keys::Verify),
    /// Put a component, with its signatures, into an OCI registry
    Push(push::Push),
}

impl Command {
    /// Runs it, output to stdout and problems to stderr.
    #[must_use]
    pub fn run(self) -> Exit {
        self.run_with(&mut io::stdout().lock(), &mut io::stderr().lock())
    }

    /// Runs it.
    pub fn run_with(self, out: &mut dyn Write, problems: &mut dyn Write) -> Exit {
        let done = match self {
            Self::New(command) => command.run(out),
            Self::Componentize(command) => command.run(out),
            Self::Inspect(command) => command.run(out),
            Self::Check(command) => command.run(out),
            Self::Run(command) => command.run(out),
            Self::Test(command) => command.run(out),
            Self::Bench(command) => command.run(out),
            Self::Conformance(command) => command.run(out),
            Self::Keygen(command) => command.run(out),
            Self::Sign(command) => command.run(out),
            Self::Verify(command) => command.run(out),
            Self::Push(command) => command.run(out),
        };
        match done {
            Ok(exit) => exit,
            Err(trouble) => {
                // Nobody reads a closed terminal; the exit code tells.
                let _ = writeln!(problems, "{}", trouble.text);
                trouble.exit
            }
        }
    }
}

/// Why a command ended early.
#[derive(Debug)]
struct Trouble {
    text: String,
    exit: Exit,
}

impl Trouble {
    /// What was given cannot be worked with.
    fn usage(text: impl ToString) -> Self {
        Self {
            text: text.to_string(),
            exit: Exit::Usage,
        }
    }

    /// It was understood and failed.
    fn failure(text: impl ToString) -> Self {
        Self {
            text: text.to_string(),
            exit: Exit::Failure,
        }
    }
}

/// Trouble with writing the output: nobody is reading.
impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::failure(format!("cannot write: {error}"))
    }
}

type Done = Result<Exit, Trouble>;

/// `1 case`, `2 cases`.
fn count(number: usize, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}

/// Runs what waits, on this thread.
fn wait_for<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Trouble::failure(format!("no runtime: {error}")))?;
    runtime.block_on(work)
}
