//! A tunnel that carries flows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use nowconnect_plugins as plugins;
use nowconnect_policy::{AgentFacts, Name};
use nowconnect_protocol::{
    CloseCode, ConnectorName, Epoch, FlowRef, InstanceId, Refusal, ResetCode, Role,
};
use nowconnect_tunnel::{
    DetachedSession, OpenFlow, RejectedOpen, TunnelHandle, TunnelStats, WorkerId,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::parked::ResumeHashes;
use super::refusals;
use crate::generation::Stamp;
use crate::hub::{Hub, now_ms};
use crate::identity::AgentIdentity;
use crate::limit::Rate;
use crate::registry::AgentKey;
use crate::router::Candidate;
use crate::telemetry::metrics::AgentMetrics;

/// How long a driver that has too much to do is left alone between two orders.
const ORDER_AGAIN: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug)]
pub(crate) struct LiveTunnel {
    pub(crate) key: AgentKey,
    /// The agent as policies know it.
    pub(crate) name: Name,
    pub(crate) session: u64,
    pub(crate) instance: InstanceId,
    pub(crate) role: Role,
    pub(crate) epoch: Epoch,
    pub(crate) remote: SocketAddr,
    pub(crate) agent_version: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) since: Instant,
    /// The worker that drives it.
    pub(crate) worker: Option<WorkerId>,
    pub(crate) metrics: Arc<AgentMetrics>,
    pub(crate) rate: Rate,
    /// The session that it takes the place of.
    pub(super) replaces: Option<u64>,
    /// The agent's row for policies, until the tunnel is in force.
    pub(super) facts: Arc<AgentFacts>,
    pub(super) renewals: Rate,
    pub(super) resume_hashes: ResumeHashes,
    /// Set once the tunnel has ended and what may go on is parked.
    pub(super) over: watch::Sender<bool>,
    pub(super) handle: TunnelHandle,
    pub(super) max_flows: u32,
    pub(super) standing: ArcSwap<Standing>,
    pub(super) expires_ms: AtomicU64,
    /// The stamp under which its agent was decided about last.
    pub(super) decided: AtomicU64,
    /// The newest round of re-checks when it was asked about last, or when it came.
    pub(crate) asked: AtomicU64,
    pub(super) flows_carried: AtomicU64,
    /// Takes no new flows: draining, expired or about to be closed.
    pub(super) closing: AtomicBool,
    /// Its flows must not go on in another tunnel.
    pub(super) final_end: AtomicBool,
    pub(super) expiry_handled: Mutex<Option<Instant>>,
}

/// What RENEW may change.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) identity: Arc<AgentIdentity>,
    /// The agent as plugins see it.
    pub(crate) agent: Arc<plugins::Agent>,
    pub(crate) connectors: Arc<[ConnectorName]>,
    pub(crate) refused: Vec<Refusal>,
    /// What plugins attached to the session.
    pub(crate) carry: plugins::Carry,
}

impl LiveTunnel {
    pub(crate) fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }

    /// Puts what a RENEW proved in force, but for connectors that were taken away while it was
    /// decided: who took them has the later word. Gives what is in force now. Whoever calls it
    /// holds [`Hub::presence`].
    pub(crate) fn renew(&self, proven: Standing) -> Arc<Standing> {
        let current = self.standing();
        let (kept, taken): (Vec<_>, Vec<_>) = proven
            .connectors
            .iter()
            .cloned()
            .partition(|name| current.connectors.contains(name));
        let mut refused = proven.refused;
        refused.extend(
            current
                .refused
                .iter()
                .filter(|refusal| taken.contains(&refusal.connector))
                .cloned(),
        );
        let next = Arc::new(Standing {
            refused: refusals::fitting(&kept, &refused),
            connectors: kept.into(),
            ..proven
        });
        self.expires_ms.store(
            crate::authorize::unix_ms(next.identity.expires_at),
            Ordering::Release,
        );
        self.standing.store(Arc::clone(&next));
        *self.expiry_handled.lock() = None;
        next
    }

    /// Whether nothing has changed since this standing was read. It stays so as long as whoever
    /// calls this holds [`Hub::presence`].
    pub(crate) fn still_stands(&self, standing: &Arc<Standing>) -> bool {
        Arc::ptr_eq(&self.standing.load(), standing)
    }

    /// The stamp under which its agent was decided about last.
    pub(crate) fn decided(&self) -> Stamp {
        Stamp::from_number(self.decided.load(Ordering::Acquire))
    }

    /// Its agent was decided about anew; what is older than the last decision says nothing.
    pub(crate) fn decided_under(&self, stamp: Stamp) {
        self.decided.fetch_max(stamp.to_number(), Ordering::AcqRel);
    }

    /// Takes connectors away that it may not serve any more. Gives those that are left. Whoever
    /// calls it holds [`Hub::presence`].
    pub(crate) fn lose(&self, refused: &[Refusal]) -> Vec<ConnectorName> {
        let is_lost = |name: &ConnectorName| refused.iter().any(|lost| lost.connector == *name);
        let keep = |standing: &Standing| -> Vec<ConnectorName> {
            let kept = standing.connectors.iter().filter(|name| !is_lost(name));
            kept.cloned().collect()
        };
        self.standing.rcu(|standing| {
            let mut told = standing.refused.clone();
            told.retain(|earlier| !is_lost(&earlier.connector));
            told.extend(refused.iter().cloned());
            Standing {
                identity: Arc::clone(&standing.identity),
                agent: Arc::clone(&standing.agent),
                connectors: keep(standing).into(),
                refused: told,
                carry: standing.carry.clone(),
            }
        });
        self.standing.load().connectors.to_vec()
    }

    /// Opens a flow here.
    ///
    /// The agent may have lost the connector since it was chosen. Who takes a connector away
    /// changes the standing first and then [withdraws](Self::withdraw) what runs; this orders the
    /// flow first and then reads the standing. So one of the two sees the other, and the flow ends.
    pub(crate) fn open(&self, flow: OpenFlow) -> Result<(), RejectedOpen> {
        let (flow_ref, connector) = (flow.flow_ref.clone(), flow.connector.clone());
        self.handle.open(flow)?;
        self.flows_carried.fetch_add(1, Ordering::Relaxed);
        // The other one is in `withdraw`: neither reads past its own write.
        fence(Ordering::SeqCst);
        if !self.standing.load().connectors.contains(&connector) {
            self.insist(move |handle| {
                handle.close_flow(flow_ref.clone(), ResetCode::ScopeLost, String::new())
            });
        }
        Ok(())
    }

    /// Ends one flow. `false` if the driver has too much to do or has ended; ask again.
    pub(crate) fn close_flow(&self, flow_ref: FlowRef, code: ResetCode, message: &str) -> bool {
        self.handle.close_flow(flow_ref, code, message.to_owned())
    }

    /// Ends the flows of connectors that it has lost. Take them out of the standing before.
    pub(crate) fn withdraw(&self, connectors: Vec<ConnectorName>) {
        fence(Ordering::SeqCst);
        self.insist(move |handle| handle.withdraw(connectors.clone()));
    }

    /// No new flows; the agent is asked to open a replacement and finish here.
    pub(crate) fn drain(&self, deadline: Duration) {
        self.closing.store(true, Ordering::Release);
        self.insist(move |handle| handle.drain(deadline));
    }

    /// Ends it with a GOODBYE.
    pub(crate) fn close(&self, code: CloseCode, message: &str) {
        self.closing.store(true, Ordering::Release);
        if !matches!(code, CloseCode::Replaced) {
            self.final_end.store(true, Ordering::Release);
        }
        let message = message.to_owned();
        self.insist(move |handle| handle.close(code, message.clone()));
    }

    /// Gives an order, and gives it again while the driver has too much to do to take it: nobody
    /// else would.
    fn insist(&self, order: impl Fn(&TunnelHandle) -> bool + Send + 'static) {
        if order(&self.handle) || self.handle.is_closed() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let handle = self.handle.clone();
        runtime.spawn(async move {
            // Ends with the driver at the latest.
            while !handle.is_closed() {
                tokio::time::sleep(ORDER_AGAIN).await;
                if order(&handle) {
                    return;
                }
            }
        });
    }

    /// Takes no new flows from now on.
    pub(super) fn stop(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) async fn answers(&self, within: Duration) -> bool {
        self.handle.probe(within).await
    }

    /// Its flows end with it.
    pub(super) fn let_flows_end(&self) {
        self.final_end.store(true, Ordering::Release);
    }

    /// Waits until the tunnel has ended and what may go on is parked.
    pub(super) async fn is_over(&self) {
        // The sender lives as long as this value.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    pub(super) async fn detach(&self) -> Option<DetachedSession> {
        self.closing.store(true, Ordering::Release);
        self.handle.detach().await
    }

    pub(crate) fn stats(&self) -> TunnelStats {
        self.handle.stats()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.handle.is_closed()
    }

    pub(super) fn may_resume(&self) -> bool {
        !self.final_end.load(Ordering::Acquire)
    }

    pub(super) fn flows_carried(&self) -> u64 {
        self.flows_carried.load(Ordering::Relaxed)
    }

    pub(crate) fn expires_at(&self) -> SystemTime {
        self.standing.load().identity.expires_at
    }

    /// Remembers why the tunnel ended, for the count of reconnects.
    pub(super) fn note_reason(&self, hub: &Hub, reason: &str) {
        hub.parked.note_reason(self.key.clone(), reason);
    }
}

impl Candidate for LiveTunnel {
    fn agent(&self) -> &AgentKey {
        &self.key
    }

    fn session(&self) -> u64 {
        self.session
    }

    fn flows(&self) -> usize {
        usize::try_from(self.handle.stats().flows).unwrap_or(usize::MAX)
    }

    fn takes_flows(&self) -> bool {
        !self.is_closing()
            && !self.is_gone()
            && self.handle.stats().flows < self.max_flows
            && now_ms() < self.expires_ms.load(Ordering::Acquire)
    }
}
