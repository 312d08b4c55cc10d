//! Instances that are kept between calls, where the operator chose that over fresh ones.
//!
//! A kept instance serves calls of the same tenant and mode only, one at a time, and goes after
//! so many calls, after so long without one, and at once where a call ended in anything but an
//! answer. Idle and busy instances together are never more than the plugin's `concurrency`.
//!
//! A kept instance holds its plugin, which holds the instances; so they are dropped by hand when
//! the last set that uses the plugin goes.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use wasmtime::Store;
use wasmtime::component::Instance;

use crate::host_functions::HostState;
use crate::plugin::Plugin;

/// An instance between two calls.
pub(crate) struct Kept {
    pub(crate) store: Store<HostState>,
    pub(crate) instance: Instance,
    /// Calls that it has answered.
    pub(crate) calls: u32,
}

struct Idle {
    kept: Kept,
    tenant: Box<str>,
    shadow: bool,
    since: Instant,
}

/// The idle instances of one plugin.
#[derive(Default)]
pub(crate) struct WarmPool {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    idle: Vec<Idle>,
    /// Sets that use the plugin.
    users: u32,
    /// The task that looks after idle instances, while there are some.
    watcher: Option<AbortHandle>,
}

impl WarmPool {
    /// A set uses the plugin.
    pub(crate) fn join(&self) {
        self.state.lock().users += 1;
    }

    /// A set uses it no more.
    pub(crate) fn leave(&self) {
        let dropped = {
            let mut state = self.state.lock();
            state.users = state.users.saturating_sub(1);
            if state.users > 0 {
                return;
            }
            if let Some(watcher) = state.watcher.take() {
                watcher.abort();
            }
            std::mem::take(&mut state.idle)
        };
        drop(dropped);
    }

    /// The instance that was used last for this tenant and mode; where there is none, room is
    /// made for a new one beside `busy` others.
    pub(crate) fn take(&self, tenant: &str, shadow: bool, busy: usize, max: usize) -> Option<Kept> {
        let mut surplus = Vec::new();
        let taken = {
            let mut state = self.state.lock();
            let found = state
                .idle
                .iter()
                .rposition(|idle| &*idle.tenant == tenant && idle.shadow == shadow);
            if found.is_none() {
                let over = (state.idle.len() + busy).saturating_sub(max);
                let over = over.min(state.idle.len());
                surplus.extend(state.idle.drain(..over));
            }
            found.map(|at| state.idle.remove(at).kept)
        };
        drop(surplus);
        taken
    }

    /// Drops what was idle for too long; says whether something is left.
    fn sweep(&self, max_idle: Duration) -> bool {
        let (dropped, left) = {
            let mut state = self.state.lock();
            let fresh = state
                .idle
                .partition_point(|idle| idle.since.elapsed() >= max_idle);
            let dropped: Vec<Idle> = state.idle.drain(..fresh).collect();
            let left = !state.idle.is_empty();
            if !left {
                state.watcher = None;
            }
            (dropped, left)
        };
        drop(dropped);
        left
    }
}

/// Keeps an instance that has answered.
pub(crate) fn keep(
    plugin: &Arc<Plugin>,
    kept: Kept,
    tenant: &str,
    shadow: bool,
    max_idle: Duration,
) {
    let mut state = plugin.warm.state.lock();
    if state.users == 0 {
        return;
    }
    state.idle.push(Idle {
        kept,
        tenant: tenant.into(),
        shadow,
        since: Instant::now(),
    });
    if state.watcher.is_none() {
        let watcher = tokio::spawn(watch(Arc::downgrade(plugin), max_idle));
        state.watcher = Some(watcher.abort_handle());
    }
}

/// Looks after idle instances until there are none, or nobody uses the plugin any more.
async fn watch(plugin: Weak<Plugin>, max_idle: Duration) {
    loop {
        tokio::time::sleep(max_idle).await;
        match plugin.upgrade() {
            Some(plugin) if plugin.warm.sweep(max_idle) => {}
            Some(_) | None => return,
        }
    }
}
