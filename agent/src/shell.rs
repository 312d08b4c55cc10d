//! What one tunnel's driver calls: dialling targets, counting flows, passing events on.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use nowconnect_protocol::{ConnectorName, HelloAck, RenewAck, ResetCode};
use nowconnect_tunnel::{AgentEvent, AgentShell, Dial, DialError, Dialed};
use tokio::sync::mpsc;
use tracing::Instrument;

use crate::connectors::{Asked, ConnectorMap};
use crate::tap::Tap;
use crate::telemetry;

/// What all tunnels of one agent share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Replaced whole by a reload.
    pub(crate) connectors: RefCell<Rc<ConnectorMap>>,
    /// Set by a stop: no new flow is taken.
    pub(crate) draining: Cell<bool>,
    /// Dials that have not ended; the tunnel counts a flow only from its connect on.
    pub(crate) dials: Cell<u32>,
    /// Flows over all tunnels.
    pub(crate) flows: Arc<AtomicU32>,
    /// Shows a person what passes, where one watches.
    tap: Option<Tap>,
    /// Keeps a target that is down from filling the log.
    failures: RefCell<Told>,
}

/// Lines about failed dials in one second; the rest are only counted. A client can ask for a
/// target that is down as often as it likes.
const FAILURES_PER_SECOND: u32 = 20;

/// How many failures were told in the second of now.
#[derive(Debug)]
struct Told {
    since: Instant,
    lines: u32,
    held_back: u64,
}

impl Told {
    fn may_tell(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            if self.held_back > 0 {
                tracing::warn!(
                    event = "dial_failures_held_back",
                    count = self.held_back,
                    "more targets were not reached than are told one by one"
                );
            }
            *self = Self {
                since: now,
                lines: 0,
                held_back: 0,
            };
        }
        self.lines += 1;
        let may = self.lines <= FAILURES_PER_SECOND;
        self.held_back += u64::from(!may);
        may
    }
}

impl Shared {
    pub(crate) fn new(
        connectors: Rc<ConnectorMap>,
        flows: Arc<AtomicU32>,
        tap: Option<Tap>,
    ) -> Self {
        Self {
            connectors: RefCell::new(connectors),
            draining: Cell::new(false),
            dials: Cell::new(0),
            flows,
            tap,
            failures: RefCell::new(Told {
                since: Instant::now(),
                lines: 0,
                held_back: 0,
            }),
        }
    }

    /// Puts another connector map in force.
    pub(crate) fn replace(&self, connectors: Rc<ConnectorMap>) {
        self.connectors.replace(connectors);
    }

    /// The connectors that are offered now.
    pub(crate) fn offered(&self) -> Vec<ConnectorName> {
        self.connectors.borrow().offered().to_vec()
    }

    /// Flows and dials that a graceful stop waits for.
    pub(crate) fn busy(&self) -> u32 {
        self.flows
            .load(Ordering::Relaxed)
            .saturating_add(self.dials.get())
    }

    /// Flows ended of which no tunnel will tell.
    pub(crate) fn flows_lost(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        // All writers are on this thread; the atomic only lets others read.
        let flows = self.flows.load(Ordering::Relaxed);
        self.flows
            .store(flows.saturating_sub(count), Ordering::Relaxed);
    }
}

/// What a tunnel tells its supervisor.
#[derive(Debug)]
pub(crate) enum TunnelNews {
    Welcomed(Box<HelloAck>),
    Renewed(Box<RenewAck>),
    /// The hub wants a replacement within this time.
    Drain(Duration),
    /// The hub has gone silent.
    Suspect,
    /// A measured round trip, where a person watches.
    RoundTrip(Duration),
    /// The last flow ended while the agent is stopping.
    Quiet,
}

/// News that wait for the supervisor. A tunnel makes a handful in its life, so a full queue
/// means that the supervisor hangs.
pub(crate) const NEWS_QUEUE: usize = 256;

/// The shell of one tunnel.
#[derive(Debug)]
pub(crate) struct TunnelShell {
    pub(crate) number: u64,
    pub(crate) shared: Rc<Shared>,
    pub(crate) news: mpsc::Sender<(u64, TunnelNews)>,
}

impl AgentShell for TunnelShell {
    fn dial(&self, dial: Dial) -> LocalBoxFuture<'static, Result<Dialed, DialError>> {
        if self.shared.draining.get() {
            let refused = DialError {
                code: ResetCode::Draining,
                message: "the agent is shutting down".to_owned(),
            };
            return async move { Err(refused) }.boxed_local();
        }
        let target = self.shared.connectors.borrow().find(&dial.connector);
        let span = telemetry::open_span(&dial);
        let counted = Counted::new(Rc::clone(&self.shared));
        async move {
            let counted = counted;
            let dialed = match target {
                Ok(target) => target.dial(&Asked::of(&dial)).await,
                Err(refused) => Err(refused),
            };
            report(&counted.0, &dial, &dialed);
            match (&counted.0.tap, dialed) {
                (Some(tap), Ok(dialed)) => Ok(tap.follow(dialed)),
                (Some(tap), Err(error)) => {
                    tap.unreachable(&error);
                    Err(error)
                }
                (None, dialed) => dialed,
            }
        }
        .instrument(span)
        .boxed_local()
    }

    fn event(&self, event: AgentEvent) {
        let news = match event {
            AgentEvent::Welcomed(ack) => TunnelNews::Welcomed(ack),
            AgentEvent::Renewed(ack) => TunnelNews::Renewed(ack),
            AgentEvent::Drain { deadline } => TunnelNews::Drain(deadline),
            AgentEvent::Suspect => TunnelNews::Suspect,
            AgentEvent::FlowOpened {
                flow_ref,
                connector,
                cid,
            } => {
                self.shared.flows.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(event = "flow_opened", %flow_ref, cid, %connector, "connection open");
                return;
            }
            AgentEvent::FlowEnded { connector, summary } => {
                // A flow that never opened was never counted.
                if summary.acknowledged {
                    self.shared.flows_lost(1);
                    if let Some(tap) = &self.shared.tap {
                        tap.ended(&summary);
                    }
                }
                tracing::debug!(
                    event = "flow_ended",
                    flow_ref = %summary.flow_ref,
                    cid = summary.cid,
                    %connector,
                    cause = ?summary.cause,
                    bytes_c2a = summary.bytes_c2a,
                    bytes_a2c = summary.bytes_a2c,
                    lasted_ms = summary.lasted.as_secs_f64() * 1e3,
                    "connection closed"
                );
                if !self.shared.draining.get() || self.shared.busy() > 0 {
                    return;
                }
                TunnelNews::Quiet
            }
            AgentEvent::RoundTrip(round_trip) if self.shared.tap.is_some() => {
                TunnelNews::RoundTrip(round_trip)
            }
            AgentEvent::RoundTrip(_) => return,
        };
        if self.news.try_send((self.number, news)).is_err() {
            tracing::error!(
                event = "supervisor_stalled",
                "news of a tunnel were lost: the agent's supervisor does not answer"
            );
        }
    }
}

/// A dial on its way, counted until it ends or is dropped.
struct Counted(Rc<Shared>);

impl Counted {
    fn new(shared: Rc<Shared>) -> Self {
        shared.dials.set(shared.dials.get() + 1);
        Self(shared)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dials.set(self.0.dials.get().saturating_sub(1));
    }
}

fn report(shared: &Shared, dial: &Dial, dialed: &Result<Dialed, DialError>) {
    match dialed {
        Ok(dialed) => {
            if let Some(alpn) = &dialed.alpn {
                tracing::debug!(
                    event = "target_tls",
                    cid = dial.cid,
                    connector = %dial.connector,
                    alpn,
                    "target agreed on a protocol"
                );
            }
        }
        Err(error) => {
            telemetry::mark_failed(error);
            if !shared.failures.borrow_mut().may_tell(Instant::now()) {
                return;
            }
            tracing::warn!(
                event = "dial_failed",
                cid = dial.cid,
                flow_ref = %dial.flow_ref,
                connector = %dial.connector,
                code = error.code.as_str(),
                reason = %error.message,
                "target was not reached"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_failures_is_told_in_part_and_then_counted() {
        let start = Instant::now();
        let mut told = Told {
            since: start,
            lines: 0,
            held_back: 0,
        };
        let lines = (0..100).filter(|_| told.may_tell(start)).count();
        assert_eq!(lines, 20);
        assert_eq!(told.held_back, 80);
        assert!(told.may_tell(start + Duration::from_secs(1)));
        assert_eq!(told.held_back, 0);
    }
}
