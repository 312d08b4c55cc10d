//! What a component is, read without running it and without anything being granted.

use wasmtime::component::Component;

use crate::component::{Digest, check_form, first_line};
use crate::contract::{ContractVersion, Named};
use crate::engine::PluginEngine;
use crate::error::LoadProblem;
use crate::grant::Capability;
use crate::hook::Hook;

/// What a component's bytes say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Of the bytes, 64 hex digits.
    pub digest: String,
    /// Number of bytes.
    pub bytes: usize,
    /// Hooks that it exports, each with the newest served version in which it does.
    pub hooks: Vec<(Hook, ContractVersion)>,
    /// Capabilities that it imports: what must be granted.
    pub capabilities: Vec<Capability>,
    /// It imports something of WASI.
    pub wasi: bool,
    /// Names of all imports, as they stand in the component, sorted.
    pub imports: Vec<String>,
    /// Names of all exports, as they stand in the component, sorted.
    pub exports: Vec<String>,
    /// Imports and exports that this hub does not know: other packages, other versions of the
    /// contract. It cannot be loaded with such an import.
    pub unknown: Vec<String>,
}

impl PluginEngine {
    /// Looks into a component. It is compiled for that, off the runtime's threads, and not run.
    ///
    /// # Errors
    /// The bytes are no valid component.
    pub async fn inspect(&self, bytes: Vec<u8>) -> Result<Inspection, LoadProblem> {
        let engine = self.inner.wasm.clone();
        let inspected = tokio::task::spawn_blocking(move || inspect(&engine, &bytes)).await;
        inspected.unwrap_or_else(|error| {
            let problem = format!("looking into it panicked: {error}");
            Err(LoadProblem::Invalid(problem))
        })
    }
}

fn inspect(engine: &wasmtime::Engine, bytes: &[u8]) -> Result<Inspection, LoadProblem> {
    check_form(bytes)?;
    let component = Component::from_binary(engine, bytes)
        .map_err(|error| LoadProblem::Invalid(first_line(&error)))?;
    let ty = component.component_type();
    let sorted = |names: Vec<&str>| {
        let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        names.sort_unstable();
        names
    };
    let imports = sorted(ty.imports(engine).map(|(name, _)| name).collect());
    let exports = sorted(ty.exports(engine).map(|(name, _)| name).collect());
    let newest = |hook: Hook| {
        let versions = exports.iter().filter_map(|name| match Named::parse(name) {
            Named::Served(interface, version) if interface == hook.interface() => Some(version),
            Named::Served(..) | Named::Unserved(_) | Named::Other => None,
        });
        versions.max().map(|version| (hook, version))
    };
    let mut capabilities: Vec<Capability> = imports
        .iter()
        .filter_map(|name| match Named::parse(name) {
            Named::Served(interface, _) => Capability::parse(interface),
            Named::Unserved(_) | Named::Other => None,
        })
        .collect();
    capabilities.sort_unstable();
    capabilities.dedup();
    let is_wasi = |name: &String| name.starts_with("wasi:");
    let unknown = imports
        .iter()
        .chain(&exports)
        .filter(|name| match Named::parse(name) {
            Named::Served(..) => false,
            Named::Unserved(_) => true,
            Named::Other => !is_wasi(name),
        })
        .cloned()
        .collect();
    Ok(Inspection {
        digest: Digest::of(bytes).to_string(),
        bytes: bytes.len(),
        hooks: Hook::ALL.into_iter().filter_map(newest).collect(),
        capabilities,
        wasi: imports.iter().any(is_wasi),
        unknown,
        imports,
        exports,
    })
}
