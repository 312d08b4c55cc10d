//! A bench for whoever writes a plugin: the real engine, with a recorder and a key-value table
//! that can be looked into.
//!
//! Nothing here imitates the host. A plugin is loaded and called by [`PluginSet`] as the hub
//! does it; what is added is a way to say a question as JSON ([`Case`]), to read the answer as
//! JSON ([`Ran`]), and to ask many of them: a table of cases, hostile inputs
//! ([`Workbench::conformance`]), the same call over and over ([`Workbench::time`]).
//!
//! **Absent on purpose:** a shadow or optional mode. Whoever tries a plugin wants to see its
//! faults.

mod answer;
mod case;
mod compare;
mod componentize;
mod conformance;
mod hostile;
mod inputs;
mod recorder;
mod timing;

#[cfg(test)]
mod tests;

pub use case::{Case, CaseError, Expect, Ran, read_cases};
pub use compare::differences;
pub use componentize::{ComponentizeError, componentize};
pub use conformance::{HookConformance, Trial};
pub use inputs::Question;
pub use recorder::Recorded;
pub use timing::{Percentiles, Timing};

use std::sync::Arc;

use parking_lot::Mutex;

use crate::answer::Carry;
use crate::engine::{EngineSettings, PluginEngine};
use crate::error::{EngineError, LoadError, LoadProblem};
use crate::facts::{Attribute, CallInfo};
use crate::hook::CallOutcome;
use crate::inspect::Inspection;
use crate::set::PluginSet;
use crate::source::{Door, RegistryCredentials, RegistryUpload, WayOut};
use crate::spec::PluginSpec;

use self::recorder::{Recorder, WorkbenchKv};

/// Sets that are kept, so that the code of one plugin is compiled once however often it is
/// loaded with other settings.
const SETS_KEPT_MAX: usize = 4;

/// One engine for plugins on trial.
#[derive(Debug)]
pub struct Workbench {
    engine: PluginEngine,
    recorder: Arc<Recorder>,
    kv: Arc<WorkbenchKv>,
    kept: Mutex<Vec<Arc<PluginSet>>>,
}

/// A plugin on trial, alone in its set.
#[derive(Clone, Debug)]
pub struct Mounted {
    set: Arc<PluginSet>,
    name: Arc<str>,
    spec: PluginSpec,
}

impl Mounted {
    /// What the hub would show about it.
    pub fn status(&self) -> Option<crate::set::PluginStatus> {
        self.set.status().into_iter().next()
    }

    /// The plugin exports this hook, and it is not switched off by its configuration.
    pub fn has(&self, hook: crate::hook::Hook) -> bool {
        self.set.has(hook)
    }

    /// As what it was mounted.
    pub const fn spec(&self) -> &PluginSpec {
        &self.spec
    }
}

impl Workbench {
    /// Makes an engine with the hub's own defaults.
    ///
    /// # Errors
    /// The engine cannot be made, such as where the address space is bounded.
    pub fn new() -> Result<Self, EngineError> {
        let recorder = Arc::new(Recorder::default());
        let kv = Arc::new(WorkbenchKv::default());
        let engine = PluginEngine::new(
            EngineSettings::default(),
            Arc::clone(&kv) as Arc<_>,
            Arc::clone(&recorder) as Arc<_>,
        )?;
        Ok(Self {
            engine,
            recorder,
            kv,
            kept: Mutex::default(),
        })
    }

    /// Goes into a repository of a registry, to push to it; `tls` is
    /// whether it is spoken to over TLS, `token_hosts` are those beside it that may hand out its
    /// tokens. The caller bounds the time.
    ///
    /// # Errors
    /// It cannot be reached, does not let us in, or sends us for a token to another host.
    pub async fn enter_registry<'a>(
        &'a self,
        (registry, tls): (&str, bool),
        repository: &str,
        credentials: Option<RegistryCredentials>,
        token_hosts: &[String],
    ) -> Result<RegistryUpload<'a>, LoadProblem> {
        let door = Door {
            engine: &self.engine.inner,
            registry,
            tls,
            repository,
            actions: "pull,push",
            token_hosts,
            credentials,
            way_out: WayOut::CommandLine,
        };
        let (target, entry) = door.knock().await?;
        let engine = &self.engine.inner;
        Ok(RegistryUpload::new(engine, target, repository, &entry))
    }

    /// Looks into a component without running it.
    ///
    /// # Errors
    /// The bytes are no valid component.
    pub async fn inspect(&self, bytes: Vec<u8>) -> Result<Inspection, LoadProblem> {
        self.engine.inspect(bytes).await
    }

    /// Loads a plugin as the hub would: digest, contract, grants, types, `check-config`.
    ///
    /// # Errors
    /// What the hub would say when it refuses it.
    pub async fn mount(&self, spec: PluginSpec) -> Result<Mounted, Vec<LoadError>> {
        // A fault on the bench is for the author to see, not a reason to stop asking.
        let mut lenient = spec.clone();
        lenient.limits.quarantine.faults = u32::MAX;
        let set = Arc::new(PluginSet::load(&self.engine, vec![lenient]).await?);
        let mut kept = self.kept.lock();
        if kept.len() == SETS_KEPT_MAX {
            kept.remove(0);
        }
        kept.push(Arc::clone(&set));
        Ok(Mounted {
            set,
            name: spec.name.as_str().into(),
            spec,
        })
    }

    /// Asks one question, with a key-value table that holds nothing but what `case` puts there.
    pub async fn run(&self, mounted: &Mounted, case: &Case) -> Ran {
        self.kv.start_anew();
        self.kv.fill(&mounted.name, case);
        self.ask(mounted, case).await
    }

    /// Asks one question and leaves the key-value table as it is.
    async fn ask(&self, mounted: &Mounted, case: &Case) -> Ran {
        self.recorder.start_anew();
        let carry = carry(&mounted.name, &case.carry);
        let info = CallInfo {
            request_id: &case.call.request_id,
            trace_parent: case.call.trace_parent.as_deref(),
            tenant: case.call.tenant.as_deref(),
            session_id: case.call.session_id.as_deref(),
            flow_id: case.call.flow_id.as_deref(),
            generation: case.call.generation,
            carry: Some(&carry),
            deadline: None,
        };
        let answer = answer::ask(&mounted.set, &info, &case.question, &carry).await;
        let recorded = self.recorder.take();
        let outcome = recorded.outcome;
        let answered = matches!(outcome, Some(CallOutcome::Ok | CallOutcome::Deny));
        let answer = if answered {
            answer
        } else {
            answer::failed(outcome, recorded.detail.as_deref())
        };
        Ran {
            answer,
            kv_after: self.kv.entries(&mounted.name, case),
            recorded,
        }
    }
}

fn carry(plugin: &Arc<str>, attributes: &[Attribute]) -> Carry {
    let mut carry = Carry::default();
    carry.attach(plugin, attributes.to_vec());
    carry
}
