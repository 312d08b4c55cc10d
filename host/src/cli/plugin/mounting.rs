//! From the arguments of a command to a plugin on the bench.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use nowconnect_plugins::workbench::{Mounted, Workbench};
use nowconnect_plugins::{Limits, LoadError, PluginSource, PluginSpec};
use serde_json::Value;

use super::Trouble;
use super::manifest::Manifest;

/// Largest component that is read, in bytes; a hub's own bound is lower.
const COMPONENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Wall time of one call on the bench unless another is given: whether a machine that builds
/// something else meanwhile is slow says nothing about the plugin. Guest time is as in a hub.
const WALL_TIME: Duration = Duration::from_secs(10);

/// Stands for the hosts that a plugin wants to reach and was not granted: no name can lead there,
/// so each request is answered by `not_granted`.
const NO_HOST: &str = "fetch:not-granted.invalid";

/// Which component, as what it is loaded.
#[derive(Clone, Debug, Args)]
pub(super) struct Mounting {
    /// The component
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Its name in the hub; without it that of the manifest, else the file's
    #[arg(long)]
    pub(super) name: Option<String>,
    /// The manifest; without it `plugin.toml` in the component's folder or the one above
    #[arg(long, value_name = "FILE")]
    pub(super) manifest: Option<PathBuf>,
    /// Its settings: JSON, or a file with JSON or YAML
    #[arg(long, value_name = "JSON|FILE")]
    pub(super) config: Option<String>,
    /// A grant such as `log` or `headers.set:x-tenant-*`; may be given more than once. With one,
    /// nothing else is granted
    #[arg(long = "grant", value_name = "GRANT", conflicts_with = "grant_wanted")]
    pub(super) grants: Vec<String>,
    /// Grant all that the manifest and the cases want, outbound HTTP too
    #[arg(long)]
    grant_wanted: bool,
    /// Most memory of an instance, in bytes
    #[arg(long, value_name = "BYTES")]
    memory_bytes: Option<usize>,
    /// Most processor time of a call, in milliseconds
    #[arg(long, value_name = "MS")]
    time_ms: Option<u64>,
    /// Most time of a call from start to answer, in milliseconds
    #[arg(long, value_name = "MS")]
    wall_ms: Option<u64>,
}

/// What is granted where no `--grant` is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unstated {
    /// Nothing, as in a hub.
    Nothing,
    /// What the manifest names, else every capability that the component imports, without what
    /// reaches beyond the bench.
    Harmless,
}

/// A component that was read.
pub(super) struct Opened {
    pub(super) bytes: Arc<[u8]>,
    pub(super) manifest: Manifest,
    pub(super) spec: PluginSpec,
    /// What it wants and was not granted.
    withheld: BTreeSet<String>,
    /// Grants that reach beyond the bench and that the command line gives; `None` is all.
    given: Option<Vec<String>>,
}

impl Opened {
    fn new(bytes: Arc<[u8]>, manifest: Manifest, spec: PluginSpec, mounting: &Mounting) -> Self {
        Self {
            bytes,
            manifest,
            spec,
            withheld: BTreeSet::new(),
            given: (!mounting.grant_wanted).then(|| mounting.grants.clone()),
        }
    }

    /// Of grants that a manifest or a case names, those that may be granted unasked. Who wrote
    /// the plugin wrote these too, and trying it must not send anything anywhere.
    pub(super) fn without_reach(&mut self, grants: &[String]) -> Vec<String> {
        let Some(given) = &self.given else {
            return grants.to_vec();
        };
        let (kept, withheld): (Vec<String>, Vec<String>) = grants
            .iter()
            .cloned()
            .partition(|grant| !reaches_out(grant) || given.contains(grant));
        let wants_any = !withheld.is_empty();
        self.withheld.extend(withheld);
        // With it the component can be loaded all the same.
        let stand_in = wants_any.then(|| NO_HOST.to_owned());
        kept.into_iter().chain(stand_in).collect()
    }

    /// What was not granted, and how it is.
    pub(super) fn withheld(&self) -> Option<String> {
        if self.withheld.is_empty() {
            return None;
        }
        let grants: Vec<&str> = self.withheld.iter().map(String::as_str).collect();
        Some(format!(
            "not granted: {}, by which it would reach beyond this command; `--grant-wanted` \
             grants all that it wants",
            grants.join(", ")
        ))
    }
}

/// Whether a grant lets a plugin send something.
fn reaches_out(grant: &str) -> bool {
    let name = grant.trim().split([':', '.']).next();
    name.is_some_and(|name| name.trim() == "fetch")
}

impl Mounting {
    /// Reads the component and says as what it is to be loaded.
    pub(super) async fn open(
        &self,
        bench: &Workbench,
        unstated: Unstated,
    ) -> Result<Opened, Trouble> {
        let bytes: Arc<[u8]> = read_component(&self.file)?.into();
        let manifest = Manifest::find(self.manifest.as_deref(), &self.file)?;
        let name = self.name.clone().or_else(|| manifest.name.clone());
        let name = name.unwrap_or_else(|| stem(&self.file));
        let mut spec = PluginSpec::new(name, PluginSource::Bytes(Arc::clone(&bytes)));
        spec.limits = self.limits(&manifest);
        spec.config = match (&self.config, &manifest.config) {
            (Some(given), _) => read_config(given)?,
            (None, Some(config)) => config.clone(),
            (None, None) => spec.config,
        };
        let mut opened = Opened::new(bytes, manifest, spec, self);
        opened.spec.grants = if !self.grants.is_empty() {
            self.grants.clone()
        } else if unstated == Unstated::Nothing && !self.grant_wanted {
            Vec::new()
        } else {
            let wanted = self.wanted(bench, &opened).await?;
            opened.without_reach(&wanted)
        };
        Ok(opened)
    }

    /// What it wants: by its manifest, else by what it imports.
    async fn wanted(&self, bench: &Workbench, opened: &Opened) -> Result<Vec<String>, Trouble> {
        if let Some(grants) = &opened.manifest.grants {
            return Ok(grants.clone());
        }
        let inspection = bench.inspect(opened.bytes.to_vec()).await;
        let inspection = inspection
            .map_err(|problem| Trouble::usage(format!("`{}`: {problem}", self.file.display())))?;
        let capabilities = inspection.capabilities.iter();
        let wasi = inspection.wasi.then_some("wasi");
        Ok(capabilities
            .map(|capability| capability.as_str())
            .chain(wasi)
            .map(str::to_owned)
            .collect())
    }

    fn limits(&self, manifest: &Manifest) -> Limits {
        let given = &manifest.limits;
        let mut limits = Limits {
            wall_time: WALL_TIME,
            ..Limits::default()
        };
        if let Some(bytes) = self.memory_bytes.or(given.memory_bytes) {
            limits.memory_bytes = bytes;
        }
        if let Some(ms) = self.time_ms.or(given.time_ms) {
            limits.guest_time = Duration::from_millis(ms);
        }
        if let Some(ms) = self.wall_ms {
            limits.wall_time = Duration::from_millis(ms);
        }
        if let Some(bytes) = given.output_bytes {
            limits.output_bytes = bytes;
        }
        limits
    }
}

/// Makes the bench.
pub(super) fn bench() -> Result<Workbench, Trouble> {
    Workbench::new().map_err(Trouble::failure)
}

/// Loads the plugin, or says why a hub would not.
pub(super) async fn mount(bench: &Workbench, spec: PluginSpec) -> Result<Mounted, Trouble> {
    bench.mount(spec).await.map_err(|errors| refusals(&errors))
}

pub(super) fn refusals(errors: &[LoadError]) -> Trouble {
    let lines: Vec<String> = errors
        .iter()
        .map(|error| format!("refused: {error}"))
        .collect();
    Trouble::failure(lines.join("\n"))
}

/// Reads a component within bounds.
pub(super) fn read_component(file: &Path) -> Result<Vec<u8>, Trouble> {
    let refuse = |problem: String| Trouble::usage(format!("`{}`: {problem}", file.display()));
    let bytes = std::fs::metadata(file)
        .map_err(|error| refuse(error.to_string()))?
        .len();
    if bytes > COMPONENT_BYTES_MAX {
        return Err(refuse(format!(
            "it has {bytes} bytes, at most {COMPONENT_BYTES_MAX} are read"
        )));
    }
    std::fs::read(file).map_err(|error| refuse(error.to_string()))
}

/// JSON as it stands, or a file.
fn read_config(given: &str) -> Result<Value, Trouble> {
    if given.trim_start().starts_with('{') {
        return serde_json::from_str(given)
            .map_err(|error| Trouble::usage(format!("`--config`: {error}")));
    }
    let refuse = |problem: String| Trouble::usage(format!("`--config {given}`: {problem}"));
    let text = std::fs::read_to_string(given).map_err(|error| refuse(error.to_string()))?;
    // JSON is YAML.
    serde_saphyr::from_str(&text).map_err(|error| refuse(error.to_string()))
}

pub(super) fn stem(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}
