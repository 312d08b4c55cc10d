//! `nowconnect policy who-can`: the policies that have a say in opening a connector.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use nowconnect_policy::{ConnectorFacts, Name};

use super::{Exit, compile, open};
use crate::config::Env;

/// See [`super::Command::WhoCan`].
#[derive(Clone, Debug, Args)]
pub struct WhoCan {
    /// What is done
    deed: Deed,
    /// The connector: `name`, or `tenant/name`
    connector: String,
    /// Folder with the policies, or a bundle; without it as in `policy check`
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// A group that the hub's configuration puts the connector in; may be given several times
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Deed {
    /// Open a flow to it
    Open,
}

impl WhoCan {
    pub(super) fn run(
        &self,
        env: &dyn Env,
        out: &mut dyn Write,
        problems: &mut dyn Write,
    ) -> io::Result<Exit> {
        let opened = match open(self.policies.as_deref(), env) {
            Ok(opened) => opened,
            Err(refusal) => return refusal.print(problems),
        };
        let Some(bundle) = compile(&opened, problems)? else {
            return Ok(Exit::Usage);
        };
        let connector = ConnectorFacts {
            groups: self
                .group
                .iter()
                .map(|group| group.as_str().into())
                .collect(),
            ..ConnectorFacts::tcp(Name::from_text(&self.connector))
        };
        let found = match self.deed {
            Deed::Open => bundle.who_can_open(&connector),
        };
        if self.json {
            serde_json::to_writer_pretty(&mut *out, &found)?;
            writeln!(out)?;
        } else {
            write!(out, "{found}")?;
        }
        Ok(if found.permits.is_empty() {
            Exit::Failure
        } else {
            Exit::Success
        })
    }
}
