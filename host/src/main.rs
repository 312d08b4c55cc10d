//! The binary `nowconnect`.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use nowconnect::cli::{Arguments, Exit};

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => arguments.run().into(),
        Err(error) => {
            // Help and version are what was asked for; anything else is a wrong command line.
            let asked = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            let exit = if asked { Exit::Success } else { Exit::Usage };
            // Nobody reads a closed terminal; the exit code tells.
            let _ = error.print();
            exit.into()
        }
    }
}
