//! `nowconnect agent`: take an agent's tokens out of force before their time, and ask where it
//! dials in from.
//!
//! Revocations are in the list that `security.revocation_file` names. Every hub that shares the
//! file sees the change within a second, ends the agent's flows with `revoked` and lets it in no
//! more. Addresses are asked of the running hub, which records who asked.

mod address;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use nowconnect_protocol::{AgentId, TenantName};

use super::Exit;
use crate::config::{self, Env, ProcessEnv};
use crate::revocation::{self, Revocation, RevocationError, Revoked, time};

/// Revokes agents and tokens, and tells where agents are.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Revoke an agent, a token, or everything issued before a time
    Revoke {
        /// What to revoke
        #[command(flatten)]
        what: What,
        /// Why, for whoever reads the list later
        #[arg(long)]
        reason: Option<String>,
        /// Where the list is
        #[command(flatten)]
        list: ListFile,
    },
    /// Take a revocation back
    Unrevoke {
        /// What was revoked
        #[command(flatten)]
        what: What,
        /// Where the list is
        #[command(flatten)]
        list: ListFile,
    },
    /// Show what is revoked
    Revoked {
        /// Print the list as it is in the file, one JSON object a line
        #[arg(long)]
        json: bool,
        /// Where the list is
        #[command(flatten)]
        list: ListFile,
    },
    /// Show where agents have dialled in from; the hub asks its policies and records who asked
    Address(address::Args),
}

/// What counts no more.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub struct What {
    /// An agent, as `name` or `tenant/name`
    #[arg(long, conflicts_with = "jti")]
    pub agent: Option<String>,
    /// One token, by its `jti`
    #[arg(long, conflicts_with = "issued_before")]
    pub jti: Option<String>,
    /// Every token issued before a time: `now`, `2026-01-31T12:00:00Z` or seconds since 1970;
    /// with --agent only that agent's
    #[arg(long, value_name = "TIME")]
    pub issued_before: Option<String>,
}

/// Where the list is.
#[derive(Clone, Debug, Default, Args)]
pub struct ListFile {
    /// The configuration that names the list; without it `NC_CONFIG` and the rest apply
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The list itself
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
}

impl Command {
    /// Runs it with this process' environment.
    #[must_use]
    pub fn run(self) -> Exit {
        self.run_with(
            &ProcessEnv,
            &mut io::stdout().lock(),
            &mut io::stderr().lock(),
        )
    }

    /// Runs it. Trouble with writing its answer ends it with [`Exit::Failure`].
    pub fn run_with(self, env: &dyn Env, out: &mut dyn Write, problems: &mut dyn Write) -> Exit {
        let done = match self {
            Self::Revoke { what, reason, list } => revoke(&what, reason, &list, env, out),
            Self::Unrevoke { what, list } => unrevoke(&what, &list, env, out),
            Self::Revoked { json, list } => show(json, &list, env, out),
            Self::Address(args) => return args.run(),
        };
        match done {
            Ok(()) => Exit::Success,
            Err(Failure::Usage(message)) => said(problems, &message, Exit::Usage),
            Err(Failure::List(error)) => said(problems, &error.to_string(), Exit::Failure),
            Err(Failure::Output) => Exit::Failure,
        }
    }
}

enum Failure {
    Usage(String),
    List(RevocationError),
    /// Nobody reads the answer.
    Output,
}

impl From<RevocationError> for Failure {
    fn from(error: RevocationError) -> Self {
        Self::List(error)
    }
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Output
    }
}

fn said(problems: &mut dyn Write, message: &str, exit: Exit) -> Exit {
    match writeln!(problems, "error: {message}") {
        Ok(()) => exit,
        Err(_) => Exit::Failure,
    }
}

fn revoke(
    what: &What,
    reason: Option<String>,
    list: &ListFile,
    env: &dyn Env,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let now = time::now_seconds();
    let revoked = what.parse(now).map_err(Failure::Usage)?;
    let (path, max_entries) = list.locate(env)?;
    let entry = Revocation {
        revoked,
        reason,
        revoked_at: now,
    };
    let line = entry.to_line();
    let known = revocation::edit(&path, max_entries, |entries| {
        let before = entries.len();
        entries.retain(|old| old.revoked != entry.revoked);
        let known = entries.len() < before;
        entries.push(entry);
        known
    })?;
    let verb = if known { "renewed" } else { "revoked" };
    writeln!(out, "{verb}: {line}")?;
    writeln!(out, "in {}, for the hubs that read it", path.display())?;
    Ok(())
}

fn unrevoke(
    what: &What,
    list: &ListFile,
    env: &dyn Env,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let revoked = what.parse(time::now_seconds()).map_err(Failure::Usage)?;
    let (path, max_entries) = list.locate(env)?;
    let removed = revocation::edit(&path, max_entries, |entries| {
        let before = entries.len();
        entries.retain(|old| old.revoked != revoked);
        before - entries.len()
    })?;
    if removed == 0 {
        return Err(Failure::Usage(
            "nothing like this is revoked; `nowconnect agent revoked` shows what is".to_owned(),
        ));
    }
    writeln!(out, "taken back: {removed}")?;
    Ok(())
}

fn show(json: bool, list: &ListFile, env: &dyn Env, out: &mut dyn Write) -> Result<(), Failure> {
    let (path, max_entries) = list.locate(env)?;
    let entries = revocation::read(&path, max_entries)?.unwrap_or_default();
    for entry in &entries {
        if json {
            writeln!(out, "{}", entry.to_line())?;
            continue;
        }
        let what = describe(&entry.revoked);
        let reason = entry.reason.as_deref().unwrap_or("-");
        writeln!(
            out,
            "{}  {what:<48}  {reason}",
            time::show(entry.revoked_at)
        )?;
    }
    if entries.is_empty() && !json {
        writeln!(out, "nothing is revoked in {}", path.display())?;
    }
    Ok(())
}

fn describe(revoked: &Revoked) -> String {
    let shown = |tenant: &TenantName, agent: &AgentId| {
        if tenant.is_default() {
            agent.to_string()
        } else {
            format!("{tenant}/{agent}")
        }
    };
    match revoked {
        Revoked::Agent { tenant, agent } => format!("agent {}", shown(tenant, agent)),
        Revoked::Jti { jti } => format!("token {}", jti.escape_default()),
        Revoked::IssuedBefore { issued_before } => {
            format!("everything issued before {}", time::show(*issued_before))
        }
        Revoked::AgentIssuedBefore {
            tenant,
            agent,
            issued_before,
        } => format!(
            "agent {} issued before {}",
            shown(tenant, agent),
            time::show(*issued_before)
        ),
    }
}

impl What {
    fn parse(&self, now: u64) -> Result<Revoked, String> {
        let issued_before = self
            .issued_before
            .as_deref()
            .map(|text| time::parse(text, now))
            .transpose()?;
        let agent = self.agent.as_deref().map(parse_agent).transpose()?;
        match (agent, &self.jti, issued_before) {
            (Some((tenant, agent)), None, None) => Ok(Revoked::Agent { tenant, agent }),
            (Some((tenant, agent)), None, Some(issued_before)) => Ok(Revoked::AgentIssuedBefore {
                tenant,
                agent,
                issued_before,
            }),
            (None, Some(jti), None) if !jti.is_empty() => Ok(Revoked::Jti { jti: jti.clone() }),
            (None, None, Some(issued_before)) => Ok(Revoked::IssuedBefore { issued_before }),
            (Some(_) | None, Some(_) | None, Some(_) | None) => Err(
                "name one of --agent, --jti and --issued-before; --agent and --issued-before go \
                 together"
                    .to_owned(),
            ),
        }
    }
}

fn parse_agent(text: &str) -> Result<(TenantName, AgentId), String> {
    let (tenant, agent) = match text.split_once('/') {
        Some((tenant, agent)) => (
            TenantName::parse(tenant).map_err(|error| error.to_string())?,
            agent,
        ),
        None => (TenantName::default(), text),
    };
    let agent = AgentId::parse(agent).map_err(|error| error.to_string())?;
    Ok((tenant, agent))
}

impl ListFile {
    fn locate(&self, env: &dyn Env) -> Result<(PathBuf, u32), Failure> {
        let config = match &self.file {
            Some(file) => {
                let max_entries = config::CloudConfig::default()
                    .security
                    .revocation_max_entries;
                return Ok((file.clone(), max_entries));
            }
            None => config::load(self.config.as_deref(), env)
                .map_err(|error| Failure::Usage(error.to_string()))?,
        };
        match config.security.revocation_file {
            Some(file) => Ok((file, config.security.revocation_max_entries)),
            None => Err(Failure::Usage(
                "`security.revocation_file` is not set: revocation is turned off".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests;
