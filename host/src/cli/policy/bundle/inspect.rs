//! `nowconnect policy inspect`: what a bundle says about itself, believed or not.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use nowconnect_policy::{BundleArchive, PolicyBundle, time_text};
use serde_json::json;

use super::super::{Exit, count};
use super::refused;

/// See [`super::super::Command::Inspect`].
#[derive(Clone, Debug, Args)]
pub struct Inspect {
    /// The bundle
    bundle: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(in super::super) fn run(
        &self,
        out: &mut dyn Write,
        problems: &mut dyn Write,
    ) -> io::Result<Exit> {
        let archive = match BundleArchive::read(&self.bundle) {
            Ok(archive) => archive,
            Err(refusal) => return refused(&refusal, problems),
        };
        let compiled = archive.sources().and_then(|sources| {
            PolicyBundle::compile(&sources, 0).map_err(|found| nowconnect_policy::Refusal {
                code: nowconnect_policy::RefusalCode::Invalid,
                message: found.to_string(),
            })
        });
        if self.json {
            print_json(&archive, compiled.as_ref().ok(), out)?;
        } else {
            print_text(&archive, compiled.as_ref().ok(), out)?;
        }
        match compiled {
            Ok(_) => Ok(Exit::Success),
            Err(refusal) => refused(&refusal, problems),
        }
    }
}

fn print_json(
    archive: &BundleArchive,
    compiled: Option<&PolicyBundle>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let signers: Vec<String> = archive.signers().map(ToString::to_string).collect();
    let policies: Vec<_> = compiled
        .into_iter()
        .flat_map(PolicyBundle::policies)
        .map(|policy| {
            json!({"id": policy.id, "file": policy.file, "line": policy.line,
                   "error": policy.error, "advice": policy.advice})
        })
        .collect();
    let whole = json!({
        "manifest": archive.manifest(),
        "payload_digest": archive.payload_digest(),
        "claimed_signers": signers,
        "policies": policies,
        "tests": archive.tests().len(),
        "assertions": archive.assertions().len(),
    });
    serde_json::to_writer_pretty(&mut *out, &whole)?;
    writeln!(out)
}

fn print_text(
    archive: &BundleArchive,
    compiled: Option<&PolicyBundle>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let manifest = archive.manifest();
    writeln!(out, "revision    {}", manifest.revision)?;
    writeln!(out, "created     {}", time_text(manifest.created))?;
    if let Some(until) = manifest.not_after {
        writeln!(out, "good until  {}", time_text(until))?;
    }
    if let Some(version) = &manifest.min_hub {
        writeln!(out, "needs hub   {version}")?;
    }
    writeln!(out, "core schema {}", manifest.core_schema)?;
    writeln!(out, "payload     {}", archive.payload_digest())?;
    let signers: Vec<String> = archive
        .signers()
        .map(|id| id.to_string().escape_debug().to_string())
        .collect();
    match signers.is_empty() {
        true => writeln!(out, "signatures  none")?,
        false => writeln!(
            out,
            "signatures  {} (not held against any key: see `policy verify`)",
            signers.join(", ")
        )?,
    }
    for path in manifest.files.keys() {
        writeln!(out, "  {path}")?;
    }
    if let Some(bundle) = compiled {
        let guards = bundle
            .policies()
            .filter(|policy| policy.file.starts_with("shipped:"))
            .count();
        writeln!(
            out,
            "{}, {guards} of them shipped guards",
            count(bundle.policy_count(), "policy")
        )?;
    }
    Ok(())
}
