//! `nowconnect state`: what the control plane keeps, saved and brought back.

use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use nowconnect_store::{Store, StoreError};

use super::Exit;
use super::control::Socket;
use super::status::failed;
use crate::admin::ClientError;
use crate::config::{self, ConfigError, ProcessEnv};

/// What `nowconnect state` does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Write a copy of names, keys and used tokens to a new file, while the hub runs or not
    ///
    /// The copy holds signing keys: it has mode 0600, and belongs where only the hub's operators
    /// come.
    Backup {
        /// The new file
        file: PathBuf,
        /// The hub's configuration, for one that does not run; without it as for `run`
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where the hub is
        #[command(flatten)]
        socket: Socket,
    },
    /// Put a backup in the place of the state file of a hub that does not run
    ///
    /// What was there stays beside it under another name.
    Restore {
        /// The backup
        file: PathBuf,
        /// The hub's configuration; without it as for `run`
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Let another key sign the tokens of a running hub from now on
    ///
    /// What the keys before have signed stays good, unless they are distrusted.
    RotateKeys {
        /// Nothing that was signed before counts any more: every agent, tunnel and client has to
        /// come anew
        #[arg(long)]
        distrust: bool,
        /// Where the hub is
        #[command(flatten)]
        socket: Socket,
    },
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the hub does not answer, and `control.state_file` is not set: it keeps nothing")]
    NoFile,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Hub(#[from] ClientError),
    #[error("`{}`: {error}", path.display())]
    Path { path: PathBuf, error: io::Error },
    #[error("no runtime: {0}")]
    Runtime(io::Error),
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl Command {
    /// Runs it.
    #[must_use]
    pub fn run(self) -> Exit {
        let out = &mut io::stdout().lock();
        match self.run_with(out) {
            Ok(()) => Exit::Success,
            Err(Trouble::Config(error)) => {
                failed(&mut io::stderr().lock(), &error);
                Exit::Usage
            }
            Err(error) => failed(
                &mut io::stderr().lock(),
                &format_args!("nowconnect: {error}"),
            ),
        }
    }

    fn run_with(self, out: &mut dyn Write) -> Result<(), Trouble> {
        match self {
            Self::Backup {
                file,
                config,
                socket,
            } => {
                // The hub has another working folder.
                let path = std::path::absolute(&file)
                    .map_err(|error| Trouble::Path { path: file, error })?;
                let client = socket.client();
                match wait(client.backup_state(&path))? {
                    Ok(_) => {}
                    Err(ClientError::NotRunning { .. }) => {
                        Store::open(&state_file(config.as_deref())?)?.backup(&path)?;
                    }
                    Err(error) => return Err(error.into()),
                }
                writeln!(out, "written: {}", path.display())?;
            }
            Self::Restore { file, config } => {
                let state = state_file(config.as_deref())?;
                let aside = Store::restore(&file, &state)?;
                writeln!(out, "restored: {}", state.display())?;
                if let Some(aside) = aside {
                    writeln!(out, "what was there is now {}", aside.display())?;
                }
            }
            Self::RotateKeys { distrust, socket } => {
                let client = socket.client();
                let rotated = wait(client.rotate_keys(distrust))??;
                writeln!(out, "the key `{}` signs from now on", rotated.key)?;
                if distrust {
                    writeln!(out, "what was signed before counts no more")?;
                }
            }
        }
        Ok(())
    }
}

/// The file that a hub with this configuration keeps its state in. One that is not there yet is
/// not made for a look.
fn state_file(config: Option<&Path>) -> Result<PathBuf, Trouble> {
    let config = config::load(config, &ProcessEnv)?;
    config.control.state_file.ok_or(Trouble::NoFile)
}

fn wait<T>(call: impl Future<Output = T>) -> Result<T, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Trouble::Runtime)?;
    Ok(runtime.block_on(call))
}
