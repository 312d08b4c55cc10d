//! What the supervisor is told: another config, or to stop.

use std::rc::Rc;

use nowconnect_protocol::{CloseCode, ConnectorName, Refusal};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{CLOSE_TIMEOUT, Supervisor};
use crate::agent::Order;
use crate::backoff::Backoff;
use crate::config::AgentConfig;
use crate::connectors::{ConnectorMap, MapError};
use crate::state::Phase;
use crate::token::TokenSource;

impl Supervisor {
    /// `None` means that every grip on the agent is gone.
    pub(super) fn handle_order(&mut self, order: Option<Order>) {
        match order {
            Some(Order::Reload(config, answer)) => self.reload(*config, answer),
            Some(Order::Stop) => self.stop(),
            Some(Order::StopNow) | None => self.stop_now(),
        }
    }

    fn reload(&mut self, config: AgentConfig, answer: oneshot::Sender<Result<(), MapError>>) {
        let result = ConnectorMap::build(&config).map(|map| self.put_in_force(config, map));
        // Whoever asked may have gone; the change holds all the same.
        let _ = answer.send(result);
    }

    fn put_in_force(&mut self, config: AgentConfig, map: ConnectorMap) {
        let old = std::mem::replace(&mut self.config, config);
        let offered_before = self.shared.offered();
        self.shared.replace(Rc::new(map));
        let offered = self.shared.offered();
        let elsewhere = old.hub != self.config.hub
            || old.agent_id != self.config.agent_id
            || old.tenant != self.config.tenant;
        let anew = elsewhere
            || old.labels != self.config.labels
            || old.standby != self.config.standby
            || old.outbound != self.config.outbound
            || old.tunnel != self.config.tunnel
            || old.limits != self.config.limits
            // Only an upgrade shows whether it fits.
            || old.signing_secret != self.config.signing_secret;
        if old.tunnel.backoff != self.config.tunnel.backoff {
            self.backoff = Backoff::new(self.config.tunnel.backoff.clone());
        }
        let source_changed = old.auth != self.config.auth || old.outbound != self.config.outbound;
        if source_changed {
            // A dial or fetch under way has the old source; it is dropped with it.
            let dropped = self.work.take().is_some();
            self.token_source = Some(TokenSource::new(&self.config.auth, &self.config.outbound));
            if dropped {
                self.dial_at = Some(Instant::now());
            }
        }
        tracing::info!(
            event = "config_reloaded",
            connectors = offered.len(),
            new_tunnel = anew,
            "the new configuration is in force"
        );
        if elsewhere {
            self.foreign = true;
            self.session.resume = None;
            self.drop_detached();
        }
        if self.current.is_none() {
            // Whatever held the last dial back may have been mended by this.
            if self.joining.is_none() && self.work.is_none() && self.stop_at.is_none() {
                self.dial_at = Some(Instant::now());
            }
        } else if anew {
            self.replace_current();
        } else {
            if offered != offered_before {
                self.offer(offered);
            }
            if source_changed && self.work.is_none() {
                self.start_fetch();
            }
        }
    }

    fn drop_detached(&mut self) {
        self.session.detached_until = None;
        if let Some(lost) = self.session.detached.take() {
            self.shared.flows_lost(lost.len());
        }
    }

    /// A reload may have come between HELLO and its answer.
    pub(super) fn offer_what_changed(&self, accepted: &[ConnectorName], refused: &[Refusal]) {
        let offered = self.shared.offered();
        let known = |name: &ConnectorName| {
            accepted.contains(name) || refused.iter().any(|refusal| refusal.connector == *name)
        };
        let same = offered.len() == accepted.len() + refused.len() && offered.iter().all(known);
        if !same {
            self.offer(offered);
        }
    }

    fn offer(&self, connectors: Vec<ConnectorName>) {
        if let Some(current) = &self.current {
            current.handle.renew(None, Some(connectors));
        }
    }

    fn stop(&mut self) {
        if self.stop_at.is_some() {
            return;
        }
        let limit = self.config.limits.shutdown_timeout;
        tracing::info!(
            event = "agent_stopping",
            flows = self.shared.busy(),
            "no new flows; running ones may finish"
        );
        self.shared.draining.set(true);
        self.work = None;
        self.dial_at = None;
        self.renew_at = None;
        self.stop_at = Some(Instant::now() + limit);
        self.set_phase(Phase::Stopping);
        self.check_stop(Instant::now());
    }

    fn stop_now(&mut self) {
        self.stop();
        self.close_all();
    }

    /// Closes the tunnels once nothing runs in them any more or the time for that is over.
    pub(super) fn check_stop(&mut self, now: Instant) {
        let Some(stop_at) = self.stop_at else {
            return;
        };
        if self.closing_until.is_none() && (self.shared.busy() == 0 || stop_at <= now) {
            self.close_all();
        }
    }

    fn close_all(&mut self) {
        if self.closing_until.is_some() {
            return;
        }
        self.closing_until = Some(Instant::now() + CLOSE_TIMEOUT);
        let living = [self.current.as_ref(), self.joining.as_ref()]
            .into_iter()
            .flatten()
            .map(|tunnel| &tunnel.handle)
            .chain(self.retired.iter().map(|retired| &retired.handle));
        for handle in living {
            handle.close(CloseCode::Shutdown, "the agent is shutting down".to_owned());
        }
    }
}
