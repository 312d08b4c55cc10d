//! What a chain of plugins answered, as the hub acts on it.

use std::sync::Arc;

use crate::facts::{Attribute, Field};

/// What plugins attached to their answers about one session, flow or request. Keep it beside
/// that session, flow or request and hand it to the later hooks: each plugin gets its own part
/// back and no other. At most 4 KiB per plugin; cheap to clone; empty costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carry {
    pub(crate) parts: Vec<(Arc<str>, Arc<[Attribute]>)>,
}

impl Carry {
    /// No plugin attached anything.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(crate) fn of(&self, plugin: &str) -> &[Attribute] {
        self.parts
            .iter()
            .find(|(name, _)| &**name == plugin)
            .map_or(&[], |(_, attributes)| attributes)
    }

    /// A plugin's newer carry takes the place of its older one; an empty one leaves it.
    pub(crate) fn attach(&mut self, plugin: &Arc<str>, attributes: Vec<Attribute>) {
        if attributes.is_empty() {
            return;
        }
        let attributes = attributes.into();
        match self.parts.iter_mut().find(|(name, _)| name == plugin) {
            Some((_, older)) => *older = attributes,
            None => self.parts.push((Arc::clone(plugin), attributes)),
        }
    }
}

/// A plugin said no, or failed and its failure mode says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The plugin's name in the configuration.
    pub plugin: Arc<str>,
    /// Stable and machine-readable; `plugin_failed` where the plugin did not answer.
    pub code: String,
    /// May reach the peer.
    pub public: String,
    /// For the decision log only.
    pub private: String,
}

/// Answer of the `hello` chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloOutcome {
    /// The agent may join.
    Accept(Welcome),
    /// The agent may not join at all.
    Deny(Denial),
}

/// What an accepted agent gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// Subset of the announced connectors, in their order.
    pub accepted: Vec<String>,
    /// The others, each with the plugin that left it out.
    pub refused: Vec<(String, Arc<str>)>,
    /// Facts for the session, named `plugin/name`.
    pub attributes: Vec<Attribute>,
    /// For the `bye` hook.
    pub carry: Carry,
}

/// Answer of the `enrich` chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Granted signals, named `plugin/signal`, sorted, each once.
    pub signals: Vec<String>,
    /// Enrichers that failed and are not optional, sorted: `context.signalsMissing`.
    pub missing: Vec<String>,
    /// For the later hooks of the same flow or request.
    pub carry: Carry,
}

/// Answer of the `open` chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenOutcome {
    /// The flow may start within these terms.
    Allow(Terms),
    /// The flow may not start.
    Deny(Denial),
}

/// Bounds of an allowed flow: the smallest that any plugin set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Both directions together; `None` is no bound by plugins.
    pub max_bytes: Option<u64>,
    /// Seconds from start to end.
    pub max_seconds: Option<u32>,
    /// Seconds without a byte.
    pub idle_seconds: Option<u32>,
    /// Metadata of the flow, named `plugin/name`.
    pub attributes: Vec<Attribute>,
    /// For the `close` hook.
    pub carry: Carry,
}

/// One change to a set of HTTP fields, already checked against the plugin's grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Replace every field of that name by this one.
    Set(Field),
    /// Add one more field of that name.
    Append(Field),
    /// Take away every field of that name.
    Remove(String),
}

impl Edit {
    /// Applies the change to a list of fields with lower-case names.
    pub fn apply(&self, headers: &mut Vec<Field>) {
        match self {
            Self::Set(field) => {
                headers.retain(|(name, _)| *name != field.0);
                headers.push(field.clone());
            }
            Self::Append(field) => headers.push(field.clone()),
            Self::Remove(removed) => headers.retain(|(name, _)| name != removed),
        }
    }
}

/// Answer of the `http-request` chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpRequestOutcome {
    /// Forward the request after these edits, in this order.
    Forward {
        /// Changes to the request's fields.
        edits: Vec<Edit>,
        /// For the `http-response` hook.
        carry: Carry,
    },
    /// Answer this in place of the origin.
    Reply {
        /// Who answered.
        plugin: Arc<str>,
        /// 200 to 599.
        status: u16,
        /// No hop-by-hop fields among them.
        headers: Vec<Field>,
        /// At most the plugin's output limit.
        body: Vec<u8>,
    },
    /// A plugin says no: answer 403 with the denial's code.
    Deny(Denial),
    /// A plugin failed: answer 503 `plugin_failed`.
    Failed(Denial),
}

/// Answer of the `http-response` chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpResponseOutcome {
    /// Send the response after these edits, in this order.
    Forward(Vec<Edit>),
    /// Send this in place of the origin's response.
    Reply {
        /// Who answered.
        plugin: Arc<str>,
        /// 200 to 599.
        status: u16,
        /// No hop-by-hop fields among them.
        headers: Vec<Field>,
        /// At most the plugin's output limit.
        body: Vec<u8>,
    },
    /// A plugin failed: answer 503 `plugin_failed` instead.
    Failed(Denial),
}

/// What masking did to a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masked {
    /// Values covered because a plugin asked for it.
    pub covered: usize,
    /// A plugin failed: message and values of (part of) the batch were erased.
    pub erased_by_failure: bool,
}
