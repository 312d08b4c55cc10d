//! Sandboxed WebAssembly plugins: the only crate that imports wasmtime.
//!
//! A [`PluginEngine`] lives as long as the process: compiler, pool of instances, the thread that
//! ends long calls, the key-value table. A [`PluginSet`] is immutable: components that were read,
//! checked against their pin, compiled, checked against their grants and asked to accept their
//! settings, all before one of them sees traffic. The hub swaps sets whole. Each call runs in a
//! fresh instance, so that nothing leaks from one call to the next.
//!
//! What a plugin does wrong stays its own: [`CallOutcome`] says how each call ended,
//! [`PluginObserver`] counts it, and the hook's failure mode decides what the hub sees. There is
//! no way for a plugin to allow what was not allowed before it was asked.
//!
//! **Absent on purpose:** files, sockets, environment, threads, streaming bodies. WASI is there for
//! toolchains that import it needlessly, with all its doors closed.

mod address;
mod answer;
mod breaker;
mod call;
mod component;
mod contract;
mod engine;
mod error;
mod facts;
mod fetch;
mod grant;
mod guest_time;
mod hook;
mod host_functions;
mod inspect;
mod judge;
mod kv;
mod load;
mod mask;
mod names;
mod observer;
mod plugin;
mod set;
pub mod signature;
mod source;
mod spec;
mod ticker;
mod trust;
mod warm;
mod wasi;
mod web;
mod wire;
pub mod workbench;

pub use answer::{
    Carry, Denial, Edit, HelloOutcome, HttpRequestOutcome, HttpResponseOutcome, Masked,
    OpenOutcome, Signals, Terms, Welcome,
};
pub use contract::{CONTRACT_VERSIONS, ContractVersion};
pub use engine::{EngineSettings, PluginEngine};
pub use error::{EngineError, LoadError, LoadProblem};
pub use facts::{
    Agent, Attribute, Bye, CallInfo, Closed, Enrich, Field, Head, Hello, HttpLine, HttpRequest,
    HttpResponse, Level, LogEntry, Open, Peer, Viewer,
};
pub use fetch::FetchCode;
pub use grant::{Capability, GrantError, Grants};
pub use hook::{CallOutcome, Hook};
pub use inspect::Inspection;
pub use judge::{
    ATTRIBUTE_OVERHEAD_BYTES, MAX_CHAIN_ATTRIBUTE_BYTES, MAX_CHAIN_ATTRIBUTES, PLUGIN_FAILED,
};
pub use kv::{KvError, KvStore, MemoryKv, MemoryKvSettings, Namespace};
pub use observer::{CallReport, Dropped, NoObserver, PluginLogLine, PluginObserver};
/// Which versions of a plugin are wanted, as Cargo writes them.
pub use semver::VersionReq;
pub use set::{Downgrade, PluginSet, PluginStatus};
pub use source::{
    CredentialsError, OCI_SIGNATURES, RegistryAccess, RegistryCredentials, RegistryUpload,
    UploadError,
};
pub use spec::{Instances, Limits, Mode, PluginSource, PluginSpec, Quarantine};
