//! One call of one plugin: slot, instance, limits, outcome.
//!
//! Each call gets a store and an instance of its own and drops both at its end, whatever
//! happened, unless the operator chose to keep good ones. Three clocks bound it: the processor
//! time of the guest, looked at in each epoch (where the guest also yields to the executor); wall
//! time, which also covers waits; and the deadline of the pipeline that asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::SemaphorePermit;
use tokio::time::timeout;
use wasmtime::component::{ComponentNamedList, Instance, Lift, Lower};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;

use crate::breaker::{Admission, Change};
use crate::component::{Function, cause_line};
use crate::contract::ContractVersion;
use crate::facts::CallInfo;
use crate::guest_time::metered;
use crate::hook::{CallOutcome, Hook};
use crate::host_functions::HostState;
use crate::observer::CallReport;
use crate::plugin::Plugin;
use crate::spec::{ALL_TENANTS, Instances, Mode};
use crate::warm::{self, Kept};
use crate::wire::{self, Question};

/// A call that gave no answer to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) outcome: CallOutcome,
    pub(crate) detail: String,
    /// It counts towards quarantine.
    is_fault: bool,
}

impl Failure {
    pub(crate) fn new(outcome: CallOutcome, detail: impl Into<String>) -> Self {
        Self {
            outcome,
            detail: detail.into(),
            is_fault: outcome.is_fault(),
        }
    }

    pub(crate) fn bad_output(detail: impl Into<String>) -> Self {
        Self::new(CallOutcome::BadOutput, detail)
    }
}

impl From<wire::PluginError> for Failure {
    fn from(error: wire::PluginError) -> Self {
        Self::new(CallOutcome::Error, error.to_string())
    }
}

/// Calls a hook. `judge` turns the raw answer into what the chain acts on, and says whether it
/// was a yes or a no; it refuses answers that break a rule.
pub(crate) async fn call<Q: Question, T>(
    plugin: &Arc<Plugin>,
    question: Q,
    judge: impl FnOnce(Q::Answer) -> Result<(T, CallOutcome), Failure>,
) -> Result<T, Failure> {
    let mut record = Record::start(plugin, Q::HOOK, question.info());
    let answer = match record.admit().await {
        Ok(_slot) => {
            let answer = record.ask(question).await.and_then(judge);
            record.leave(answer.is_ok());
            answer
        }
        Err(failure) => Err(failure),
    };
    match answer {
        Ok((value, outcome)) => {
            record.end(outcome, false, None);
            Ok(value)
        }
        Err(failure) => {
            record.end(failure.outcome, failure.is_fault, Some(&failure.detail));
            Err(failure)
        }
    }
}

/// What is known about a call while it runs.
struct Record<'p, 'a> {
    plugin: &'p Arc<Plugin>,
    hook: Hook,
    info: CallInfo<'a>,
    shadow: bool,
    admission: Admission,
    started: Instant,
    waited: Duration,
    instantiate: Duration,
    memory_peak_bytes: usize,
    /// The instance that answered, where it may be kept.
    warm: Option<(Kept, Duration)>,
    ended: bool,
}

impl<'p, 'a> Record<'p, 'a> {
    fn start(plugin: &'p Arc<Plugin>, hook: Hook, info: &CallInfo<'a>) -> Self {
        // Log records are of all tenants at once, so what a masker keeps, in the table or in a
        // warm instance, belongs to none of them.
        let tenant = match hook {
            Hook::Mask => Some(ALL_TENANTS),
            Hook::Hello
            | Hook::Bye
            | Hook::Enrich
            | Hook::Open
            | Hook::Close
            | Hook::HttpRequest
            | Hook::HttpResponse => info.tenant,
        };
        Self {
            plugin,
            hook,
            info: CallInfo { tenant, ..*info },
            shadow: plugin.spec.mode == Mode::Shadow,
            admission: Admission::Call,
            started: Instant::now(),
            waited: Duration::ZERO,
            instantiate: Duration::ZERO,
            memory_peak_bytes: 0,
            warm: None,
            ended: false,
        }
    }

    async fn admit(&mut self) -> Result<SemaphorePermit<'p>, Failure> {
        let shed = |detail: &str| Failure::new(CallOutcome::Shed, detail);
        self.admission = self.plugin.breaker.admit(self.started);
        if self.admission == Admission::Quarantined {
            return Err(shed("it is quarantined after too many faults"));
        }
        if let Ok(slot) = self.plugin.slots.try_acquire() {
            return Ok(slot);
        }
        let _waiting = Waiting::join(&self.plugin.waiting, self.plugin.waiting_max())
            .ok_or_else(|| shed("too many calls wait for it"))?;
        let slot = timeout(
            self.plugin.spec.limits.queue_time,
            self.plugin.slots.acquire(),
        )
        .await;
        self.waited = self.started.elapsed();
        match slot {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(shed("no slot became free in time")),
        }
    }

    /// Asks in the version that the plugin speaks.
    async fn ask<Q: Question>(&mut self, question: Q) -> Result<Q::Answer, Failure> {
        let Some(function) = self.plugin.compiled.hooks[self.hook.index()] else {
            return Err(Failure::new(CallOutcome::Shed, "it has no such hook"));
        };
        Ok(match function.version {
            ContractVersion::V0_1 => {
                let answer = self.run(function, |terms| question.ask_v0_1(terms)).await?;
                Q::hear_v0_1(answer)?
            }
            ContractVersion::V0_2 => {
                let answer = self.run(function, |terms| question.ask_v0_2(terms)).await?;
                Q::hear_v0_2(answer)?
            }
        })
    }

    async fn run<P, R>(
        &mut self,
        function: Function,
        params: impl FnOnce(wire::Terms) -> P,
    ) -> Result<R, Failure>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let budget = self.budget()?;
        let params = params(wire::Terms {
            budget_ns: u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX),
            shadow: self.shadow,
        });
        let state = HostState::new(self.plugin, &self.info, self.shadow);
        let mut run = match self.take_warm() {
            Some(kept) => Run::again(self.plugin, kept, state),
            None => Run::new(self.plugin, state),
        };
        let result = timeout(budget, metered(run.call(function, params))).await;
        self.instantiate = run.instantiate;
        self.memory_peak_bytes = run.store.data().limiter.memory_peak_bytes;
        run.store.data_mut().settle();
        match result {
            Ok(Ok(answer)) => {
                self.warm = run.keep();
                Ok(answer)
            }
            Ok(Err(error)) => Err(classify(&error, run.store.data())),
            Err(_) => Err(out_of_wall_time(budget, run.store.data())),
        }
    }

    fn tenant(&self) -> &'a str {
        self.info.tenant.unwrap_or_default()
    }

    /// A kept instance for this call, where the plugin's instances are kept and one is there.
    fn take_warm(&self) -> Option<Kept> {
        let Instances::Warm { .. } = self.plugin.spec.instances else {
            return None;
        };
        let concurrency =
            usize::try_from(self.plugin.spec.limits.concurrency).unwrap_or(usize::MAX);
        let busy = concurrency.saturating_sub(self.plugin.slots.available_permits());
        let warm = &self.plugin.warm;
        warm.take(self.tenant(), self.shadow, busy, concurrency)
    }

    /// The call has ended, its slot is still held: a good instance is put aside, any other dropped.
    fn leave(&mut self, good: bool) {
        if let Some((kept, max_idle)) = self.warm.take().filter(|_| good) {
            warm::keep(self.plugin, kept, self.tenant(), self.shadow, max_idle);
        }
    }

    /// What is left of the plugin's wall time and of the pipeline's deadline.
    fn budget(&self) -> Result<Duration, Failure> {
        let wall = self.plugin.spec.limits.wall_time;
        let Some(deadline) = self.info.deadline else {
            return Ok(wall);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Not the plugin's doing, so it must not count against it.
            return Err(Failure::new(CallOutcome::Shed, "the deadline has passed"));
        }
        Ok(wall.min(left))
    }

    fn end(&mut self, outcome: CallOutcome, is_fault: bool, detail: Option<&str>) {
        self.ended = true;
        let now = Instant::now();
        let fault = (outcome != CallOutcome::Shed).then_some(is_fault);
        if self.admission != Admission::Quarantined {
            self.note(now, fault);
        }
        self.plugin.engine.observer.call_ended(&CallReport {
            plugin: &self.plugin.name,
            digest: &self.plugin.digest,
            hook: self.hook,
            outcome,
            shadow: self.shadow,
            request_id: self.info.request_id,
            took: now.duration_since(self.started),
            instantiate: self.instantiate,
            waited: self.waited,
            memory_peak_bytes: self.memory_peak_bytes as u64,
            detail,
        });
    }

    fn note(&self, now: Instant, fault: Option<bool>) {
        let quarantined = match self.plugin.breaker.record(now, self.admission, fault) {
            Change::None => return,
            Change::Opened => true,
            Change::Closed => false,
        };
        let observer = &self.plugin.engine.observer;
        observer.quarantine(&self.plugin.name, quarantined);
    }
}

/// A call whose caller went away says nothing about the plugin, but a probe must not stay
/// outstanding for ever.
impl Drop for Record<'_, '_> {
    fn drop(&mut self) {
        if !self.ended && self.admission == Admission::Probe {
            self.note(Instant::now(), None);
        }
    }
}

/// A store and the call that is made in it.
pub(crate) struct Run<'p> {
    plugin: &'p Arc<Plugin>,
    pub(crate) store: Store<HostState>,
    pub(crate) instantiate: Duration,
    instance: Option<Instance>,
    /// Calls that the instance answered before.
    calls: u32,
}

impl<'p> Run<'p> {
    pub(crate) fn new(plugin: &'p Arc<Plugin>, state: HostState) -> Self {
        let mut store = Store::new(&plugin.engine.wasm, state);
        store.limiter(|state| &mut state.limiter);
        store.epoch_deadline_callback(|mut cx| {
            Ok(if cx.data_mut().may_compute_on() {
                UpdateDeadline::Yield(1)
            } else {
                UpdateDeadline::Interrupt
            })
        });
        Self {
            plugin,
            store,
            instantiate: Duration::ZERO,
            instance: None,
            calls: 0,
        }
    }

    /// Another call in an instance that was kept.
    fn again(plugin: &'p Arc<Plugin>, kept: Kept, state: HostState) -> Self {
        let mut store = kept.store;
        store.data_mut().begin(state);
        Self {
            plugin,
            store,
            instantiate: Duration::ZERO,
            instance: Some(kept.instance),
            calls: kept.calls,
        }
    }

    /// The instance, where it may serve another call.
    fn keep(self) -> Option<(Kept, Duration)> {
        let Instances::Warm {
            max_calls,
            max_idle,
        } = self.plugin.spec.instances
        else {
            return None;
        };
        let calls = self.calls + 1;
        let instance = self.instance.filter(|_| calls < max_calls)?;
        let kept = Kept {
            store: self.store,
            instance,
            calls,
        };
        Some((kept, max_idle))
    }

    /// Makes the instance, which may run code of the guest's already.
    pub(crate) async fn instantiate(&mut self) -> wasmtime::Result<Instance> {
        self.store
            .set_hostcall_fuel(self.plugin.spec.limits.output_bytes);
        self.store.set_epoch_deadline(1);
        let _awake = self.plugin.engine.ticker.awake();
        if let Some(instance) = self.instance {
            return Ok(instance);
        }
        let before = Instant::now();
        let instance = self.plugin.pre.instantiate_async(&mut self.store).await?;
        self.instantiate = before.elapsed();
        self.instance = Some(instance);
        Ok(instance)
    }

    pub(crate) async fn call<P, R>(&mut self, function: Function, params: P) -> wasmtime::Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let _awake = self.plugin.engine.ticker.awake();
        let instance = self.instantiate().await?;
        let function = instance.get_typed_func::<P, R>(&mut self.store, function.index)?;
        function.call_async(&mut self.store, params).await
    }
}

/// A guest that cannot wait and computed for little of the time was kept from computing by other
/// work of the thread or machine: not its fault, though the answer is as late.
fn out_of_wall_time(budget: Duration, state: &HostState) -> Failure {
    let computed = state.computed;
    let detail = format!("no answer after {budget:?} of wall time, it computed for {computed:?}");
    Failure {
        is_fault: state.plugin.may_wait() || computed * 2 >= budget,
        ..Failure::new(CallOutcome::Timeout, detail)
    }
}

/// Names the outcome of a call that the runtime ended.
pub(crate) fn classify(error: &wasmtime::Error, state: &HostState) -> Failure {
    if state.out_of_time {
        let limit = state.guest_time;
        return Failure::new(
            CallOutcome::Timeout,
            format!("it computed for over {limit:?}"),
        );
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Failure::new(CallOutcome::Shed, "the instance pool is used up");
    }
    if state.limiter.refused {
        let limit = state.plugin.spec.limits.memory_bytes;
        return Failure::new(
            CallOutcome::Oom,
            format!("it wanted over {limit} bytes of memory or too large a table"),
        );
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Failure::new(CallOutcome::Trap, format!("it exited with {}", exit.0));
    }
    match error.downcast_ref::<Trap>() {
        Some(trap) => Failure::new(CallOutcome::Trap, trap.to_string()),
        None => Failure::bad_output(cause_line(error)),
    }
}

/// A place among the calls that wait for a slot.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn join(waiting: &'a AtomicU32, max: u32) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < max).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
