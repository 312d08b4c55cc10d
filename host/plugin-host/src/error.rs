//! Why an engine or a set of plugins could not be made.

use std::path::PathBuf;

use thiserror::Error;

use crate::grant::GrantError;
use crate::signature::SignatureError;

/// The engine could not be made; nothing can run.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The folder for compiled code cannot be used.
    #[error("the plugin cache folder `{path}` cannot be used: {problem}")]
    CacheFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The thread that ends long calls did not start.
    #[error("the plugin timer thread did not start: {0}")]
    Ticker(#[source] std::io::Error),
    /// The runtime refused its settings, such as a pool larger than the address space.
    #[error("the plugin runtime refused its settings: {0}")]
    Runtime(String),
}

/// One plugin of a set was refused, and so the whole set.
#[derive(Debug, Error)]
#[error("plugin `{plugin}`: {problem}")]
pub struct LoadError {
    /// The plugin's name in the configuration.
    pub plugin: String,
    /// What is wrong with it.
    pub problem: LoadProblem,
}

/// Why a plugin was refused. The text names the key, the value and the way out.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadProblem {
    /// Its name is not usable.
    #[error("the name must be 1 to 64 letters, digits, `.`, `_` and `-`")]
    BadName,
    /// The name is used twice.
    #[error("the name is used twice in `plugins`")]
    DuplicateName,
    /// One of its grants is not understood.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// One of its limits is out of range.
    #[error("`limits.{key}` is {value}, allowed is {allowed}")]
    Limit {
        /// Which.
        key: &'static str,
        /// What was configured.
        value: String,
        /// What is possible.
        allowed: String,
    },
    /// A file could not be read.
    #[error("cannot read `{path}`: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The component or its data is larger than the host loads.
    #[error("`{path}` has {bytes} bytes, at most {bytes_max} are loaded")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// How large.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// `digest` is not of the form `sha256:<64 hex digits>`.
    #[error("`digest` must be `sha256:` and 64 hex digits, not `{0}`")]
    BadDigest(String),
    /// The bytes are not the ones that the operator pinned.
    #[error("its digest is `{actual}`, `digest` pins `{pinned}`")]
    DigestMismatch {
        /// What was configured.
        pinned: String,
        /// What was read.
        actual: String,
    },
    /// `source` is no reference to a component in a registry.
    #[error("`source` must be `oci://registry/name@sha256:…`, not `{0}`")]
    BadReference(String),
    /// What comes from a web server must be pinned.
    #[error("`digest` is missing; what comes over the network needs one")]
    Unpinned,
    /// It did not arrive.
    #[error("it cannot be fetched: {0}")]
    Fetch(String),
    /// It must be signed by a trusted key, and there is none.
    #[error(
        "`plugins.require_signature` asks for a signature, and `plugins.trust` names no key that \
         could have made it"
    )]
    NobodyTrusted,
    /// Its signatures are not what they must be.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Not a component, or one that does not validate.
    #[error("not a valid WebAssembly component: {0}")]
    Invalid(String),
    /// Another version of the contract.
    #[error("it wants `{wanted}`; this hub serves {served}")]
    Version {
        /// Interface and version that it names.
        wanted: String,
        /// The range that this hub serves.
        served: &'static str,
    },
    /// It wants something of WASI.
    #[error(
        "it imports `{0}`; build for wasm32-unknown-unknown or stub WASI out, or, where the \
         toolchain cannot, grant WASI with all its doors closed:\ngrants: [wasi]"
    )]
    Wasi(String),
    /// It wants something that no host offers.
    #[error("it imports `{0}`, which this hub does not offer")]
    UnknownImport(String),
    /// It wants something that it was not granted.
    #[error("it imports {missing} without a grant; to allow it, write:\n{paste}")]
    NotGranted {
        /// The capabilities, in backticks.
        missing: String,
        /// The line to paste into the configuration.
        paste: String,
    },
    /// It does not export what every plugin exports.
    #[error("it does not export `{0}`")]
    NoExport(String),
    /// A configured hook is not one that it exports.
    #[error("`hooks` names `{hook}`, which it does not export; it exports {exported}")]
    NoHook {
        /// Which.
        hook: &'static str,
        /// Those that it has.
        exported: String,
    },
    /// A function has other types than the contract says.
    #[error("its `{function}` does not have the types of the contract: {reason}")]
    Types {
        /// Which.
        function: String,
        /// The difference.
        reason: String,
    },
    /// It needs more of the pool than there is.
    #[error("{0}")]
    Pool(String),
    /// It refused its own settings.
    #[error("it refuses its `config`: {0}")]
    Config(String),
    /// It failed while it was being checked.
    #[error("it failed in `{function}`: {reason}")]
    CheckFailed {
        /// `describe` or `check-config`.
        function: &'static str,
        /// The fault.
        reason: String,
    },
}
