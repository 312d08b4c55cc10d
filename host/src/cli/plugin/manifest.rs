//! `plugin.toml`: what a plugin's author says about it. Shown and used on the bench, never
//! trusted: a hub goes by the component and by the operator's configuration.

use std::path::{Path, PathBuf};

use nowconnect_plugins::Inspection;
use serde::Deserialize;

use super::Trouble;

/// A manifest, as far as the bench uses it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Manifest {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) hooks: Option<Vec<String>>,
    pub(super) imports: Option<Vec<String>>,
    /// What it needs to be granted, beyond the capabilities such as `headers.set:x-tenant-*`.
    pub(super) grants: Option<Vec<String>>,
    /// Settings to try it with.
    pub(super) config: Option<serde_json::Value>,
    pub(super) limits: LimitsEntry,
}

/// Bounds that it needs where the defaults are too tight.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LimitsEntry {
    pub(super) memory_bytes: Option<usize>,
    pub(super) time_ms: Option<u64>,
    pub(super) wall_ms: Option<u64>,
    pub(super) output_bytes: Option<usize>,
}

impl Manifest {
    /// Reads the named manifest, else the `plugin.toml` beside the component, if there is one.
    pub(super) fn find(named: Option<&Path>, component: &Path) -> Result<Self, Trouble> {
        match (named, beside(component)) {
            (Some(path), _) => Self::read(path),
            (None, Some(path)) => Self::read(&path),
            (None, None) => Ok(Self::default()),
        }
    }

    /// Reads this manifest.
    pub(super) fn read(path: &Path) -> Result<Self, Trouble> {
        let refuse = |problem: String| Trouble::usage(format!("`{}`: {problem}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        toml::from_str(&text).map_err(|error| refuse(error.to_string()))
    }

    /// Where it does not say what the component does.
    pub(super) fn untrue(&self, inspection: &Inspection) -> Vec<String> {
        let mut found = Vec::new();
        let hooks: Vec<&str> = inspection
            .hooks
            .iter()
            .map(|(hook, _)| hook.as_str())
            .collect();
        let imports: Vec<&str> = inspection
            .capabilities
            .iter()
            .map(|capability| capability.as_str())
            .collect();
        for (key, stated, actual) in [
            ("hooks", &self.hooks, hooks),
            ("imports", &self.imports, imports),
        ] {
            let Some(stated) = stated else { continue };
            let mut stated: Vec<&str> = stated.iter().map(String::as_str).collect();
            let mut actual = actual;
            stated.sort_unstable();
            actual.sort_unstable();
            if stated != actual {
                found.push(format!(
                    "`{key}` of plugin.toml is {stated:?}, the component has {actual:?}"
                ));
            }
        }
        found
    }
}

fn beside(component: &Path) -> Option<PathBuf> {
    let folder = match component.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return None,
    };
    [folder.join("plugin.toml"), folder.join("../plugin.toml")]
        .into_iter()
        .find(|path| path.is_file())
}
