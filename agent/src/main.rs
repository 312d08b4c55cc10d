//! The agent's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    nowconnect_agent::cli::main()
}
