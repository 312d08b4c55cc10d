//! The operator's command line: the tree of commands, and the exit codes that they share.
//!
//! A command's own code lives in a module of its part (`cli::config`, `cli::policy`,
//! `cli::agent`, `cli::status`, `cli::top`). Such a module offers a clap type, `Args` for one
//! command or `Command` for a group, with `fn run(self) -> Exit`.

// One line per command module, in the order of the help text.
pub mod agent;
pub mod certificates;
pub mod cluster;
pub mod config;
pub mod control;
pub mod dev;
pub mod drain;
pub mod explain_code;
pub mod plugin;
pub mod policy;
pub mod run;
pub mod state;
pub mod status;
pub mod top;
pub mod url;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const AFTER_HELP: &str = "\
Begin with:
  nowconnect dev                         a hub for this machine, for `nowconnect-agent http 3000`
  nowconnect config check cloud.yaml     what is wrong, or what would be in effect
  nowconnect run --config cloud.yaml     serve until SIGTERM; a second one ends at once
  nowconnect plugin new --lang rust NAME  a plugin's folder that builds and tests green
  nowconnect policy check                what the policies in force would be
  nowconnect status                      what a running hub does (over its admin socket)
  nowconnect explain-code CODE           what a code in a log, metric or answer means

A running hub takes changes of its files over by itself, whole or not at all; `nowconnect \
reload` asks for it and prints what came of it.

Exit codes: 0 done, 1 failed or a check found something, 64 bad command line or configuration, \
69 a program that it needs is not installed.";

/// The NowConnect hub: gives clients a way to private services, as policies and plugins allow.
#[derive(Debug, Parser)]
#[command(name = "nowconnect", version, about, after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve agents and clients until SIGTERM or SIGINT
    Run(run::Args),
    Dev(dev::Args),
    /// Check and show configuration, without starting anything
    #[command(subcommand)]
    Config(config::Command),
    /// Check, test and explain policies
    #[command(subcommand)]
    Policy(policy::Command),
    /// Write, try, check and sign plugins
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Revoke agents' credentials, and see what is revoked
    #[command(subcommand)]
    Agent(agent::Command),
    /// Save what the control plane keeps, bring it back, and change its keys
    #[command(subcommand)]
    State(state::Command),
    /// Show what a running hub does
    Status(status::Args),
    /// Watch a running hub in the terminal
    Top(top::Args),
    /// Read everything again on a running hub, and say what came of it
    Reload(control::Reload),
    /// End a running hub without cutting what it carries
    Drain(drain::Args),
    /// See and end the flows of a running hub
    #[command(subcommand)]
    Flows(control::Flows),
    /// Sign URLs that are good for a time
    #[command(subcommand)]
    Url(url::Command),
    /// See the certificates of a running hub's HTTP ports, and have one renewed
    #[command(subcommand)]
    Certificates(certificates::Command),
    /// See the other hubs of a running hub's cluster
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Say what an error or reason code means, and what to do
    ExplainCode(explain_code::Args),
    /// Print this program's version and the plugin contracts that it serves
    Version,
}

impl Arguments {
    /// Runs the command that was given.
    pub fn run(self) -> Exit {
        match self.command {
            Command::Run(args) => args.run(),
            Command::Dev(args) => args.run(),
            Command::Config(command) => command.run(),
            Command::Policy(command) => command.run(),
            Command::Plugin(command) => command.run(),
            Command::Agent(command) => command.run(),
            Command::State(command) => command.run(),
            Command::Status(args) => args.run(),
            Command::Top(args) => args.run(),
            Command::Reload(args) => args.run(),
            Command::Drain(args) => args.run(),
            Command::Flows(command) => command.run(),
            Command::Url(command) => command.run(),
            Command::Certificates(command) => command.run(),
            Command::Cluster(command) => command.run(),
            Command::ExplainCode(args) => args.run(),
            Command::Version => control::version(),
        }
    }
}

/// How a command ends, as the process' exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done; for a check, nothing was found.
    Success,
    /// 1: it ran and failed, or a check found something.
    Failure,
    /// 64: what it was given is wrong (arguments, configuration), nothing was started.
    Usage,
    /// 69: a program that it needs is not installed.
    Unavailable,
}

impl Exit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Success, Self::Failure, Self::Usage, Self::Unavailable];

    /// The exit code.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 64,
            Self::Unavailable => 69,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Others on the machine read the arguments of a process: secrets come by file.
    #[test]
    fn a_hub_takes_no_secret_on_its_command_line() {
        fn walk(command: &clap::Command) {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str().to_ascii_lowercase();
                for word in ["token", "secret", "password", "credential"] {
                    let by_file = name.ends_with("_file");
                    assert!(by_file || !name.contains(word), "`{name}` of {command}");
                }
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Arguments::command());
    }
}
