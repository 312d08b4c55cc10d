//! The operator's command line: the tree of commands, and the exit codes that they share.
//!
//! A command's own code lives in a module of its part (`cli::config`, `cli::policy`,
//! `cli::agent`, `cli::status`, `cli::top`). Such a module offers a clap type, `Args` for one
//! command or `Command` for a group, with `fn run(self) -> Exit`.

// One line per command module, in the order of the help text.
pub mod agent;
pub mod config;
pub mod policy;
pub mod status;
pub mod top;

use std::process::ExitCode;

/// How a command ends, as the process' exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done; for a check, nothing was found.
    Success,
    /// 1: it ran and failed, or a check found something.
    Failure,
    /// 64: what it was given is wrong (arguments, configuration), nothing was started.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Success => Self::SUCCESS,
            Exit::Failure => Self::FAILURE,
            Exit::Usage => Self::from(64),
        }
    }
}
