//! From the core module that a compiler writes to a component.
//!
//! `wit-bindgen` leaves the contract in a custom section of the module; where a toolchain does
//! not (Go, hand-written code), a folder of WIT and the name of a world say it.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use thiserror::Error;
use wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Name under which a preview 1 module imports WASI.
const PREVIEW1: &str = "wasi_snapshot_preview1";

/// A module that could not be made a component.
#[derive(Debug, Error)]
pub enum ComponentizeError {
    /// The folder of WIT or the world in it.
    #[error("cannot read the WIT in `{path}`: {reason}")]
    Wit {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The module does not fit its world.
    #[error("{0}")]
    Module(String),
}

/// Makes a component of a core module.
///
/// `wit` is a folder with the plugin's world and, in `deps`, the contract; `None` where the
/// module carries its world. Where the module imports WASI preview 1, an adapter turns that into
/// components' WASI: `adapter`, or else the one that comes with the runtime.
/// `grows_memory` has the adapter take its memory by growing instead of from the guest's
/// allocator, for languages whose runtime is not up when the adapter first needs it.
///
/// # Errors
/// The WIT cannot be read, or the module does not have the functions of its world.
pub fn componentize(
    core: &[u8],
    wit: Option<(&Path, Option<&str>)>,
    adapter: Option<&[u8]>,
    grows_memory: bool,
) -> Result<Vec<u8>, ComponentizeError> {
    let mut core = core.to_vec();
    if let Some((path, world)) = wit {
        let refuse = |reason: String| ComponentizeError::Wit {
            path: path.to_owned(),
            reason,
        };
        let mut resolve = Resolve::default();
        let package = resolve.push_path(path);
        let (package, _) = package.map_err(|error| refuse(causes(&error)))?;
        let world = resolve.select_world(&[package], world);
        let world = world.map_err(|error| refuse(causes(&error)))?;
        embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8, false)
            .map_err(|error| module(&error))?;
    }
    // An adapter that nothing needs leaves no trace in the component.
    let adapter = adapter.unwrap_or(WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER);
    ComponentEncoder::default()
        .validate(true)
        .realloc_via_memory_grow(grows_memory)
        .module(&core)
        .and_then(|encoder| encoder.adapter(PREVIEW1, adapter))
        .and_then(|encoder| encoder.encode())
        .map_err(|error| module(&error))
}

fn module(error: &impl Display) -> ComponentizeError {
    ComponentizeError::Module(causes(error))
}

/// The alternate form names the whole chain of causes.
fn causes(error: &impl Display) -> String {
    format!("{error:#}")
}
