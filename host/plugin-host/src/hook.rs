//! The hooks, and how one call of a hook can end.

use std::fmt;

/// A point of a session's, flow's or request's life where plugins are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// An agent joins, renews or comes back: asked after the policies, may narrow or deny.
    Hello,
    /// A session ended: told.
    Bye,
    /// Before the policies: adds signals.
    Enrich,
    /// A flow is asked for: asked after the policies, may bound or deny.
    Open,
    /// A flow ended: told.
    Close,
    /// The head of an HTTP request is known: edits or replies.
    HttpRequest,
    /// The head of an HTTP response is known: edits.
    HttpResponse,
    /// A batch of log records leaves: covers values.
    Mask,
}

impl Hook {
    /// Every hook, in the order of a session's life.
    pub const ALL: [Self; 8] = [
        Self::Hello,
        Self::Bye,
        Self::Enrich,
        Self::Open,
        Self::Close,
        Self::HttpRequest,
        Self::HttpResponse,
        Self::Mask,
    ];

    /// The hook's name in configuration, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Bye => "bye",
            Self::Enrich => "enrich",
            Self::Open => "open",
            Self::Close => "close",
            Self::HttpRequest => "http_request",
            Self::HttpResponse => "http_response",
            Self::Mask => "mask",
        }
    }

    /// The hook of that name, `None` where there is no such hook.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.as_str() == name)
    }

    /// Interface of `wit/` that a plugin exports for this hook, without its version.
    pub(crate) const fn interface(self) -> &'static str {
        match self {
            Self::Hello => "hello-hook",
            Self::Bye => "bye-hook",
            Self::Enrich => "enrich-hook",
            Self::Open => "open-hook",
            Self::Close => "close-hook",
            Self::HttpRequest => "http-request-hook",
            Self::HttpResponse => "http-response-hook",
            Self::Mask => "mask-hook",
        }
    }

    /// The one function of that interface.
    pub(crate) const fn function(self) -> &'static str {
        match self {
            Self::Hello => "on-hello",
            Self::Bye => "on-bye",
            Self::Enrich => "signals",
            Self::Open => "on-open",
            Self::Close => "on-close",
            Self::HttpRequest => "on-request",
            Self::HttpResponse => "on-response",
            Self::Mask => "mask-entries",
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How one call of one plugin ended: the `outcome` label of its metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallOutcome {
    /// It answered.
    Ok,
    /// It answered no.
    Deny,
    /// It answered that it cannot answer.
    Error,
    /// It ran into an instruction that stops it, such as a panic or a stack overflow.
    Trap,
    /// It used up its guest time or its wall time.
    Timeout,
    /// It stopped after the host refused it more memory.
    Oom,
    /// It was not called: too many calls in flight, or quarantined.
    Shed,
    /// Its answer breaks the contract, a grant or the output limit.
    BadOutput,
}

impl CallOutcome {
    /// Every outcome.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::Deny,
        Self::Error,
        Self::Trap,
        Self::Timeout,
        Self::Oom,
        Self::Shed,
        Self::BadOutput,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Deny => "deny",
            Self::Error => "error",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Oom => "oom",
            Self::Shed => "shed",
            Self::BadOutput => "bad_output",
        }
    }

    /// The plugin is at fault, so that the outcome counts towards quarantine. A plugin that
    /// says `error` behaves, and shedding is the host's doing.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        match self {
            Self::Trap | Self::Timeout | Self::Oom | Self::BadOutput => true,
            Self::Ok | Self::Deny | Self::Error | Self::Shed => false,
        }
    }
}

impl fmt::Display for CallOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
