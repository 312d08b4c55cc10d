//! An immutable set of plugins, and the chains that it makes of them.

use crate::answer::{
    Carry, HelloOutcome, HttpRequestOutcome, HttpResponseOutcome, Masked, OpenOutcome, Signals,
};
use crate::engine::PluginEngine;
use crate::error::LoadError;
use crate::facts::{
    Bye, CallInfo, Closed, Enrich, Hello, HttpRequest, HttpResponse, LogEntry, Open,
};
use crate::hook::Hook;
use crate::spec::{Mode, PluginSpec};

/// What an operator is shown about one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginStatus {
    /// Its name in the configuration.
    pub name: String,
    /// What it says about itself: name, version and summary; never trusted.
    pub about: String,
    /// Digest of its component, 64 hex digits.
    pub digest: String,
    /// The hooks that are called.
    pub hooks: Vec<Hook>,
    /// Whether its answers count.
    pub mode: Mode,
    /// It failed too often and is not called.
    pub quarantined: bool,
}

/// Checked plugins, ready to be called. The empty set allows everything that it is asked.
#[derive(Clone, Debug, Default)]
pub struct PluginSet {
    _private: (),
}

impl PluginSet {
    /// A set without plugins.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads, checks, compiles and tries every plugin, compiling off the runtime's threads. A
    /// plugin that did not change since an earlier set still in use is taken over as it is.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first thing; nothing is loaded then.
    #[expect(
        clippy::unused_async,
        reason = "the skeleton only states the interface"
    )]
    pub async fn load(
        engine: &PluginEngine,
        specs: Vec<PluginSpec>,
    ) -> Result<Self, Vec<LoadError>> {
        let _ = (engine, specs);
        todo!("the skeleton only states the interface")
    }

    /// Some plugin of the set is called for this hook; where none is, skip building the question.
    pub fn has(&self, hook: Hook) -> bool {
        let _ = hook;
        todo!("the skeleton only states the interface")
    }

    /// What the set consists of.
    pub fn status(&self) -> Vec<PluginStatus> {
        todo!("the skeleton only states the interface")
    }

    /// Asks the `hello` chain.
    #[expect(
        clippy::unused_async,
        reason = "the skeleton only states the interface"
    )]
    pub async fn hello(&self, call: &CallInfo<'_>, hello: &Hello<'_>) -> HelloOutcome {
        let _ = (call, hello);
        todo!("the skeleton only states the interface")
    }

    /// Tells the `bye` chain.
    #[expect(
        clippy::unused_async,
        reason = "the skeleton only states the interface"
    )]
    pub async fn bye(&self, call: &CallInfo<'_>, bye: &Bye<'_>, carry: &Carry) {
        let _ = (call, bye, carry);
        todo!("the skeleton only states the interface")
    }

    /// Asks the `enrich` chain.
    #[expect(
        clippy::unused_async,
        reason = "the skeleton only states the interface"
    )]
    pub async fn enrich(&self, call: &CallInfo<'_>, enrich: &Enrich<'_>) -> Signals {
        let _ = (call, enrich);
        todo!("the skeleton only states the interface")
    }

    /// Asks the `open` chain.
    #[expect(
        clippy::unused_async,
        reason = "the skeleton only states the interface"
    )]
    pub async fn open(&self, call: &CallInfo<'_>, open: &Open<'_>) -> OpenOutcome {
        let _ = (call, open);
        todo!("the skeleton only states the interface")
    }

    /// Tells the `close` chain.
    #[expect(
        clippy::unused_async,
        reason = "the skeleton only states the interface"
    )]
    pub async fn close(&self, call: &CallInfo<'_>, closed: &Closed<'_>, carry: &Carry) {
        let _ = (call, closed, carry);
        todo!("the skeleton only states the interface")
    }

    /// Asks the `http-request` chain; each plugin sees the edits of those before it.
    #[expect(
        clippy::unused_async,
        reason = "the skeleton only states the interface"
    )]
    pub async fn http_request(
        &self,
        call: &CallInfo<'_>,
        request: &HttpRequest<'_>,
    ) -> HttpRequestOutcome {
        let _ = (call, request);
        todo!("the skeleton only states the interface")
    }

    /// Asks the `http-response` chain; each plugin sees the edits of those before it.
    #[expect(
        clippy::unused_async,
        reason = "the skeleton only states the interface"
    )]
    pub async fn http_response(
        &self,
        call: &CallInfo<'_>,
        response: &HttpResponse<'_>,
        carry: &Carry,
    ) -> HttpResponseOutcome {
        let _ = (call, response, carry);
        todo!("the skeleton only states the interface")
    }

    /// Covers a batch of log records in place, any number of them; plugins see at most 256 at
    /// once. Where a plugin fails, its part of the batch keeps target, level and number only.
    #[expect(
        clippy::unused_async,
        reason = "the skeleton only states the interface"
    )]
    pub async fn mask(&self, batch: &mut [LogEntry]) -> Masked {
        let _ = batch;
        todo!("the skeleton only states the interface")
    }
}
