//! What becomes of a flow: metrics, log, the close hook, a second try.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nowconnect_plugins::{CallInfo, Carry, Closed, Hook, Viewer};
use nowconnect_protocol::{FlowCause, FlowSummary, OpenAck, ResetClass, ResetCode};
use nowconnect_tunnel::{FailedOpen, FlowIo, FlowObserver, FlowProgress};
use tracing::{Span, debug, info};

use super::client::Client;
use crate::authorize::plugin_peer;
use crate::flow_table::FlowEntry;
use crate::hub::Hub;
use crate::telemetry::events;
use crate::telemetry::metrics::{GaugeGuard, ListenerError, Side};
use crate::telemetry::traces;

/// A client whose flow a tunnel carries.
#[derive(Debug)]
pub(super) struct Carried {
    /// `None` once the client has gone back for another try.
    client: Option<Client>,
    hub: Arc<Hub>,
    entry: Arc<FlowEntry>,
    address: SocketAddr,
    carry: Carry,
    /// From OPEN to the agent's answer.
    open: Span,
    /// What the metrics know already.
    told: FlowProgress,
    _counted: GaugeGuard,
}

impl Carried {
    pub(super) fn new(client: Client, entry: Arc<FlowEntry>, carry: Carry, open: Span) -> Self {
        Self {
            _counted: client.hub.metrics.hub.flow(),
            hub: Arc::clone(&client.hub),
            address: client.address,
            client: Some(client),
            entry,
            carry,
            open,
            told: FlowProgress::default(),
        }
    }

    fn count(&self, summary: &FlowSummary) {
        let hub = &self.hub;
        hub.metrics.traffic.flow_ended(summary.cause.as_str());
        let Some(client) = &self.client else {
            return;
        };
        let connector = &client.rules.connector.metrics;
        connector.bytes(
            summary.bytes_c2a.saturating_sub(self.told.bytes_c2a),
            summary.bytes_a2c.saturating_sub(self.told.bytes_a2c),
        );
        connector.inbound_queue_changed(self.told.pending_bytes, 0);
        if let FlowCause::Reset { code, local, .. } = &summary.cause {
            match (code, local) {
                (ResetCode::QueueOverflow, true) => connector.queue_overflow(Side::Hub),
                (ResetCode::QueueOverflow, false) => connector.queue_overflow(Side::Agent),
                (ResetCode::ClientReset, true) => connector.listener_error(ListenerError::Write),
                _ => {}
            }
            if matches!(code, ResetCode::Revoked) {
                hub.metrics.hub.revoked("flow");
            }
        }
    }
}

impl FlowObserver for Carried {
    fn acknowledged(&mut self, ack: &OpenAck) {
        self.entry.acknowledged.store(true, Ordering::Relaxed);
        let Some(client) = &mut self.client else {
            return;
        };
        self.hub.metrics.hub.opened(client.accepted.elapsed());
        // The trace ends here; dropping a span closes it.
        self.open = Span::none();
        let root = std::mem::replace(&mut client.span, Span::none());
        if !root.is_disabled() {
            root.record("agent_id", tracing::field::display(&self.entry.agent));
            root.record("flow", tracing::field::display(&self.entry.flow_ref));
            root.record("decision", tracing::field::display(&self.entry.decision));
            root.record("result", "open");
        }
        let _traced = root.enter();
        info!(
            event = events::CONNECTION_OPEN,
            flow = %self.entry.flow_ref,
            cid = ack.cid,
            agent_id = %self.entry.agent,
            connector = %self.entry.connector,
            listener = %self.entry.listener,
            client = %self.address,
            decision = %self.entry.decision,
            "a flow is open"
        );
    }

    fn progress(&mut self, progress: &FlowProgress) {
        let told = std::mem::replace(&mut self.told, *progress);
        let entry = &self.entry;
        entry.bytes_c2a.store(progress.bytes_c2a, Ordering::Relaxed);
        entry.bytes_a2c.store(progress.bytes_a2c, Ordering::Relaxed);
        let Some(client) = &self.client else {
            return;
        };
        let connector = &client.rules.connector.metrics;
        connector.bytes(
            progress.bytes_c2a.saturating_sub(told.bytes_c2a),
            progress.bytes_a2c.saturating_sub(told.bytes_a2c),
        );
        connector.inbound_queue_changed(told.pending_bytes, progress.pending_bytes);
    }

    fn wrote(&mut self, took: Duration) {
        if let Some(client) = &self.client {
            client.rules.connector.metrics.wrote(took);
        }
    }

    fn drained(&mut self, waited: Duration) {
        if let Some(client) = &self.client {
            client.rules.connector.metrics.drained(waited);
        }
    }

    fn not_started(mut self: Box<Self>, failed: FailedOpen) {
        let Some(client) = self.client.take() else {
            return;
        };
        traces::failed(&self.open, failed.code.as_str());
        debug!(
            flow = %self.entry.flow_ref,
            agent_id = %self.entry.agent,
            code = failed.code.as_str(),
            message = %failed.message,
            "a flow did not start"
        );
        let retries = failed.code.class() == ResetClass::NotStarted && client.may_try_again();
        if !retries {
            return client.not_reached(failed.code, &failed.message);
        }
        let Some(io) = loosen(failed.io) else {
            return;
        };
        let early = failed.early;
        let runtime = self.hub.runtime.clone();
        self.hub.metrics.hub.open_retried();
        // Removed before the second try, which has a flow reference of its own.
        drop(self);
        runtime.spawn(client.open(io, early));
    }

    fn ended(mut self: Box<Self>, summary: FlowSummary) {
        self.count(&summary);
        let (local, message) = match &summary.cause {
            FlowCause::Finished => (false, ""),
            FlowCause::Reset { local, message, .. } => (*local, message.as_str()),
        };
        info!(
            event = events::CONNECTION_CLOSED,
            flow = %self.entry.flow_ref,
            cid = summary.cid,
            agent_id = %self.entry.agent,
            connector = %self.entry.connector,
            client = %self.address,
            cause = summary.cause.as_str(),
            by_hub = local,
            message,
            bytes_c2a = summary.bytes_c2a,
            bytes_a2c = summary.bytes_a2c,
            lasted_ms = millis(summary.lasted),
            resumes = summary.resumes,
            "a flow ended"
        );
        self.client = None;
        let generation = self.hub.generations.current();
        if generation.plugins().has(Hook::Close) {
            let Some(slot) = self.hub.closing_hooks.take() else {
                return debug!("a close hook was skipped: too many are under way");
            };
            let (hub, entry) = (Arc::clone(&self.hub), Arc::clone(&self.entry));
            let carry = std::mem::take(&mut self.carry);
            let address = self.address;
            hub.runtime.spawn(async move {
                let _slot = slot;
                let flow = entry.flow_ref.to_string();
                let decision = entry.decision.to_string();
                let call = CallInfo {
                    request_id: &decision,
                    tenant: (!entry.connector.tenant.is_default())
                        .then(|| entry.connector.tenant.as_str()),
                    flow_id: Some(&flow),
                    generation: generation.number(),
                    ..CallInfo::default()
                };
                let (peer, viewer) = (plugin_peer(address), Viewer::default());
                let closed = Closed {
                    connector: entry.connector.name.as_str(),
                    listener: &entry.listener,
                    peer: &peer,
                    viewer: &viewer,
                    agent_id: entry.agent.agent.as_str(),
                    cause: summary.cause.as_str(),
                    bytes_c2a: summary.bytes_c2a,
                    bytes_a2c: summary.bytes_a2c,
                    lasted_ms: millis(summary.lasted),
                };
                generation.plugins().close(&call, &closed, &carry).await;
            });
        }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        // Whatever the way to the end, the table holds running flows only.
        self.hub.flows.remove(self.entry.flow_ref.number);
    }
}

/// Takes the socket off the reactor of the tunnel's worker: the next one may be elsewhere.
fn loosen(io: FlowIo) -> Option<FlowIo> {
    match io {
        FlowIo::Tcp(stream) => stream.into_std().ok().map(FlowIo::Std),
        other @ (FlowIo::Std(_) | FlowIo::Unix(_) | FlowIo::Boxed(_)) => Some(other),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
