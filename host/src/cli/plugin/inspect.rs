//! `plugin inspect` and `plugin check`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use nowconnect_plugins::Inspection;
use nowconnect_plugins::signature::SignatureError;

use super::keys::{signature_path, signatures_beside};
use super::mounting::{Mounting, Unstated, bench, mount, read_component};
use super::{Done, Trouble, wait_for};
use crate::cli::Exit;

/// `nowconnect plugin inspect`.
#[derive(Clone, Debug, Args)]
pub struct Inspect {
    /// The component
    file: PathBuf,
}

impl Inspect {
    pub(super) fn run(self, out: &mut dyn Write) -> Done {
        let bytes = read_component(&self.file)?;
        let signed = signed(&bytes, &self.file);
        let inspection = wait_for(async {
            let inspected = bench()?.inspect(bytes).await;
            inspected.map_err(|problem| {
                Trouble::failure(format!("`{}`: {problem}", self.file.display()))
            })
        })?;
        print(&inspection, out)?;
        writeln!(out, "signature  {signed}")?;
        Ok(Exit::Success)
    }
}

fn print(found: &Inspection, out: &mut dyn Write) -> std::io::Result<()> {
    let hooks: Vec<String> = found
        .hooks
        .iter()
        .map(|(hook, version)| format!("{hook} ({version})"))
        .collect();
    let capabilities = found.capabilities.iter().map(|one| one.as_str());
    let wants: Vec<&str> = capabilities.chain(found.wasi.then_some("wasi")).collect();
    let wasi: Vec<&str> = found
        .imports
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with("wasi:"))
        .collect();
    writeln!(out, "digest     sha256:{}", found.digest)?;
    writeln!(out, "size       {} bytes", found.bytes)?;
    writeln!(
        out,
        "contract   this hub serves {}",
        nowconnect_plugins::CONTRACT_VERSIONS
    )?;
    writeln!(out, "hooks      {}", list(&hooks))?;
    writeln!(out, "wants      grants: [{}]", wants.join(", "))?;
    writeln!(out, "wasi       {}", list(&wasi))?;
    if !found.unknown.is_empty() {
        writeln!(out, "unknown    {}", list(&found.unknown))?;
    }
    Ok(())
}

fn list<T: AsRef<str>>(names: &[T]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    names.join(", ")
}

/// Whether the signatures beside a component hold, whoever made them.
fn signed(bytes: &[u8], file: &Path) -> String {
    let signatures = match signatures_beside(file) {
        Ok(Some(signatures)) => signatures,
        Ok(None) => return format!("none (no `{}`)", signature_path(file).display()),
        Err(trouble) => return format!("BAD: {}", trouble.text),
    };
    match signatures.hold(bytes) {
        Ok(()) => {
            let by: Vec<String> = signatures
                .iter()
                .map(|one| format!("{} as {}", one.key(), one.signed_as()))
                .collect();
            format!("holds, by {}", by.join(", "))
        }
        Err(error @ SignatureError::Unsigned) => error.to_string(),
        Err(error) => format!("BAD: {error}"),
    }
}

/// `nowconnect plugin check`.
#[derive(Clone, Debug, Args)]
pub struct Check {
    #[command(flatten)]
    mounting: Mounting,
}

impl Check {
    pub(super) fn run(self, out: &mut dyn Write) -> Done {
        wait_for(async {
            let bench = bench()?;
            let opened = self.mounting.open(&bench, Unstated::Nothing).await?;
            let spec = opened.spec.clone();
            let inspected = bench.inspect(opened.bytes.to_vec()).await;
            let inspection =
                inspected.map_err(|problem| Trouble::failure(format!("refused: {problem}")))?;
            let mounted = mount(&bench, opened.spec).await?;
            let untrue = opened.manifest.untrue(&inspection);
            if let Some(status) = mounted.status() {
                writeln!(out, "right: {}", status.about)?;
            }
            for line in &untrue {
                writeln!(out, "but {line}")?;
            }
            writeln!(out, "\nA hub takes it with:")?;
            writeln!(out, "  - name: {}", spec.name)?;
            writeln!(out, "    digest: sha256:{}", inspection.digest)?;
            if let Some(name) = signed_as_another(&self.mounting.file, &spec.name) {
                writeln!(out, "    signed_as: {name}")?;
            }
            // A JSON list of texts is YAML, quoted where it must be.
            let grants = serde_json::to_string(&spec.grants).unwrap_or_default();
            writeln!(out, "    grants: {grants}")?;
            if spec
                .config
                .as_object()
                .is_some_and(|config| !config.is_empty())
            {
                writeln!(out, "    config: {}", spec.config)?;
            }
            Ok(if untrue.is_empty() {
                Exit::Success
            } else {
                Exit::Failure
            })
        })
    }
}

/// The name that the component is signed as, where that is another.
fn signed_as_another(file: &Path, name: &str) -> Option<String> {
    let signatures = signatures_beside(file).ok()??;
    let names: Vec<&str> = signatures
        .iter()
        .map(|one| one.signed_as().name())
        .collect();
    (!names.contains(&name))
        .then(|| names.first().map(|name| (*name).to_owned()))
        .flatten()
}
