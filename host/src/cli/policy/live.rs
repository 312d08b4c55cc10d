//! Bundles at a running hub: push, stage, activate, roll back, and what became of them.

mod show;

use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand};
use nowconnect_policy::{BundleArchive, Folder, ManifestFacts, PublicKey, SecretKey, TrustedKeys};
use serde::Serialize;

use crate::admin::AdminClient;
use crate::admin::view::BundlePush;
use crate::bundle::view::{ActivateRequest, DeliverReport};
use crate::cli::Exit;
use crate::cli::control::Socket;

/// Largest file with a secret key: one line.
const MAX_KEY_BYTES: u64 = 4096;

/// Changes policies on a running hub.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Bring a signed bundle to a running hub; it is staged, and comes into force by itself where
    /// `policy.bundle.auto_activate` says so
    Push {
        /// The bundle: a folder with a manifest, or a tar
        bundle: PathBuf,
        /// Where the hub is
        #[command(flatten)]
        at: At,
    },
    /// Bring a signed bundle and leave it staged, whatever is configured
    Stage {
        /// The bundle: a folder with a manifest, or a tar
        bundle: PathBuf,
        /// Where the hub is
        #[command(flatten)]
        at: At,
    },
    /// Take the staged bundle back
    Discard {
        /// Where the hub is
        #[command(flatten)]
        at: At,
    },
    /// Put the staged bundle in force, after saying what that ends
    Activate(Activate),
    /// Go back to an earlier bundle: its payload is signed here under a new revision, pushed and
    /// put in force
    Rollback(Rollback),
    /// What became of each bundle, newest first
    History {
        /// Where the hub is
        #[command(flatten)]
        at: At,
    },
    /// What is in force, what is staged and what it waits for
    Status {
        /// Where the hub is
        #[command(flatten)]
        at: At,
    },
    /// What the staged policies would have decided otherwise on live traffic
    Shadow {
        /// Where the hub is
        #[command(flatten)]
        at: At,
    },
}

/// Where the hub is, and how it is shown.
#[derive(Clone, Debug, Args)]
pub struct At {
    #[command(flatten)]
    socket: Socket,
    /// Print the hub's answer as JSON
    #[arg(long)]
    json: bool,
}

/// `nowconnect policy activate`.
#[derive(Clone, Debug, Args)]
pub struct Activate {
    /// Only if this revision is staged
    #[arg(long)]
    revision: Option<u64>,
    /// Only say what it would end and what is not met
    #[arg(long)]
    dry_run: bool,
    /// Not if the shadow saw something that would be newly allowed
    #[arg(long)]
    require_no_new_allow: bool,
    /// Not if the shadow saw something that would be newly denied
    #[arg(long)]
    require_no_new_deny: bool,
    /// Not without a proof that nothing new is let in
    #[arg(long)]
    require_proof: bool,
    /// Not before the shadow has compared so many decisions
    #[arg(long, value_name = "N")]
    min_shadow_requests: Option<u64>,
    #[command(flatten)]
    at: At,
}

/// `nowconnect policy rollback`.
#[derive(Clone, Debug, Args)]
pub struct Rollback {
    /// The revision to go back to; `policy history` shows which are kept
    #[arg(long, value_name = "REVISION")]
    to: u64,
    /// The file with the secret key to sign with
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// A public key that may have signed the earlier revision, beside that of `--key`
    #[arg(long, value_name = "ed25519:KEY")]
    trust: Vec<String>,
    /// Leave it staged
    #[arg(long)]
    stage_only: bool,
    #[command(flatten)]
    at: At,
}

/// Revisions that a rollback goes over. A hub that claims more would have its operator sign a
/// number that keeps every other hub from taking any later bundle.
const FURTHEST_ROLLBACK: u64 = 1_000_000;

impl Command {
    /// Runs it. Trouble with writing ends it with a failure: nobody is reading.
    ///
    /// # Errors
    /// Output could not be written.
    pub fn run_with(self, out: &mut dyn Write, problems: &mut dyn Write) -> io::Result<Exit> {
        match self {
            Self::Push { bundle, at } => push(&bundle, false, &at, out, problems),
            Self::Stage { bundle, at } => push(&bundle, true, &at, out, problems),
            Self::Discard { at } => {
                let answer = ask(&at, async |hub| Ok(hub.discard_bundle().await?));
                at.show(answer, out, problems, |discarded, out| {
                    writeln!(out, "revision {} was taken back", discarded.revision)
                })
            }
            Self::Activate(activate) => activate.run_with(out, problems),
            Self::Rollback(rollback) => rollback.run_with(out, problems),
            Self::History { at } => {
                let answer = ask(&at, async |hub| Ok(hub.bundles().await?));
                at.show(answer, out, problems, show::history)
            }
            Self::Status { at } => {
                let answer = ask(&at, async |hub| Ok(hub.bundles().await?));
                at.show(answer, out, problems, show::status)
            }
            Self::Shadow { at } => {
                let answer = ask(&at, async |hub| Ok(hub.shadow().await?));
                at.show(answer, out, problems, show::shadow)
            }
        }
    }
}

impl At {
    fn show<T: Serialize>(
        &self,
        answer: Result<T, String>,
        out: &mut dyn Write,
        problems: &mut dyn Write,
        show: impl FnOnce(&T, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<Exit> {
        match answer {
            Ok(answer) if self.json => {
                let text = serde_json::to_string_pretty(&answer).map_err(io::Error::other)?;
                writeln!(out, "{text}")?;
            }
            Ok(answer) => show(&answer, out)?,
            Err(problem) => {
                writeln!(problems, "nowconnect: {problem}")?;
                return Ok(Exit::Failure);
            }
        }
        Ok(Exit::Success)
    }
}

fn push(
    bundle: &Path,
    stage_only: bool,
    at: &At,
    out: &mut dyn Write,
    problems: &mut dyn Write,
) -> io::Result<Exit> {
    let tar = match BundleArchive::read(bundle).and_then(|archive| archive.to_tar()) {
        Ok(tar) => tar,
        Err(refusal) => {
            writeln!(problems, "nowconnect: {refusal}")?;
            return Ok(Exit::Usage);
        }
    };
    let push = BundlePush {
        stage_only,
        rollback: false,
    };
    let answer = ask(at, async |hub| Ok(hub.push_bundle(tar, push).await?));
    at.show(answer, out, problems, show::delivered)
}

impl Activate {
    fn run_with(&self, out: &mut dyn Write, problems: &mut dyn Write) -> io::Result<Exit> {
        let mut request = ActivateRequest {
            revision: self.revision,
            dry_run: true,
            require_no_new_allow: self.require_no_new_allow,
            require_no_new_deny: self.require_no_new_deny,
            require_proof: self.require_proof,
            min_shadow_requests: self.min_shadow_requests,
        };
        let foreseen = ask(&self.at, async |hub| {
            Ok(hub.activate_bundle(&request).await?)
        });
        let foreseen = match foreseen {
            Ok(foreseen) => foreseen,
            Err(problem) => {
                return self
                    .at
                    .show(Err::<(), _>(problem), out, problems, |_, _| Ok(()));
            }
        };
        if self.dry_run {
            let exit = if foreseen.unmet.is_empty() {
                Exit::Success
            } else {
                Exit::Failure
            };
            self.at.show(Ok(foreseen), out, problems, show::foreseen)?;
            return Ok(exit);
        }
        if !self.at.json {
            show::foreseen(&foreseen, out)?;
        }
        // What was foreseen is what is activated.
        request.revision = Some(foreseen.revision);
        request.dry_run = false;
        let answer = ask(&self.at, async |hub| {
            Ok(hub.activate_bundle(&request).await?)
        });
        self.at.show(answer, out, problems, show::activated)
    }
}

impl Rollback {
    fn run_with(&self, out: &mut dyn Write, problems: &mut dyn Write) -> io::Result<Exit> {
        let key = match read_key(&self.key) {
            Ok(key) => key,
            Err(problem) => {
                writeln!(problems, "nowconnect: {problem}")?;
                return Ok(Exit::Usage);
            }
        };
        let answer = ask(&self.at, async |hub| self.ask(hub, &key).await);
        self.at.show(answer, out, problems, show::delivered)
    }

    /// The kept payload becomes a new revision, built and signed here: the hub has no secret key.
    async fn ask(&self, hub: AdminClient, key: &SecretKey) -> Result<DeliverReport, Trouble> {
        let status = hub.bundles().await?;
        let bytes = hub.bundle_bytes(self.to).await?;
        // What is signed here is believed everywhere, and a hub may be in strange hands.
        let earlier = self.proven(&bytes, key)?;
        let facts = ManifestFacts {
            revision: next_revision(status.highest_revision, earlier.revision())?,
            created: SystemTime::now(),
            not_after: earlier.manifest().not_after,
            min_hub: earlier.manifest().min_hub.clone(),
        };
        let mut archive = Folder::of(&earlier)?.build(facts)?;
        archive.sign(key);
        let push = BundlePush {
            stage_only: self.stage_only,
            rollback: true,
        };
        Ok(hub.push_bundle(archive.to_tar()?, push).await?)
    }
}

impl Rollback {
    /// The payload, where a key that this side trusts has signed it as that revision.
    fn proven(&self, bytes: &[u8], key: &SecretKey) -> Result<BundleArchive, Trouble> {
        let mut keys = vec![key.public()];
        for text in &self.trust {
            keys.push(PublicKey::parse(text)?);
        }
        let archive = BundleArchive::from_tar(bytes)?;
        if archive.revision() != self.to {
            let message = format!(
                "the hub gave revision {} where {} was asked for",
                archive.revision(),
                self.to
            );
            return Err(Trouble(message));
        }
        let then = archive.manifest().created;
        let verified = archive
            .verify(&TrustedKeys::new(keys), then, env!("CARGO_PKG_VERSION"))
            .map_err(|refusal| {
                Trouble(format!(
                    "revision {} as the hub keeps it: {refusal}; name who signed it with `--trust \
                     ed25519:…`",
                    self.to
                ))
            })?;
        Ok(verified.archive().clone())
    }
}

/// A revision above all that the hub has seen, where that is one that people could have made.
fn next_revision(highest: Option<u64>, earlier: u64) -> Result<u64, Trouble> {
    let highest = highest.unwrap_or(earlier).max(earlier);
    if highest - earlier > FURTHEST_ROLLBACK {
        return Err(Trouble(format!(
            "the hub says that it has seen revision {highest}, which is more than \
             {FURTHEST_ROLLBACK} above {earlier}; build and push the bundle yourself if that is so"
        )));
    }
    highest
        .checked_add(1)
        .ok_or_else(|| Trouble("there is no revision above the hub's".to_owned()))
}

fn read_key(path: &Path) -> Result<SecretKey, String> {
    let shown = path.display();
    let cannot = |error: io::Error| format!("cannot read the key `{shown}`: {error}");
    if std::fs::metadata(path).map_err(cannot)?.len() > MAX_KEY_BYTES {
        return Err(format!("`{shown}` is too large for a key"));
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    SecretKey::parse(&text).map_err(|error| format!("`{shown}`: {error}"))
}

/// Why there is no answer.
struct Trouble(String);

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

fn ask<T, F: Future<Output = Result<T, Trouble>>>(
    at: &At,
    question: impl FnOnce(AdminClient) -> F,
) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    runtime
        .block_on(question(at.socket.client()))
        .map_err(|Trouble(problem)| problem)
}
