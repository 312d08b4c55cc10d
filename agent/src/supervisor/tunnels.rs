//! The life of tunnels: joining, welcomed, replaced, lost.

use std::rc::Rc;

use nowconnect_protocol::{CloseCode, Features, Hello, HelloAck, Refusal, Role, TunnelClosed};
use nowconnect_tunnel::{DetachedSession, ResumeFrom, TunnelEnd, agent_channel, serve_agent};
use tokio::task::JoinError;
use tokio::time::Instant;

use super::{Dialled, GRACE_DEFAULT, REPLACED_AFTER, Retired, Supervisor, Tunnel, millis};
use crate::backoff;
use crate::shell::{TunnelNews, TunnelShell};
use crate::state::Phase;

/// The protocol versions that this agent speaks.
const PROTOCOL_VERSION: u16 = nowconnect_protocol::frame::VERSION;

impl Supervisor {
    /// Says HELLO on a fresh WebSocket.
    pub(super) fn join(&mut self, dialled: Dialled) {
        let Dialled {
            websocket,
            token,
            hub,
        } = dialled;
        let number = self.next_number;
        self.next_number += 1;
        let (handle, commands) = agent_channel();
        let living = self
            .current
            .as_ref()
            .filter(|current| !self.foreign && !current.handle.is_closed());
        let resume = match (living, self.session.detached.take()) {
            (Some(current), _) => ResumeFrom::Living(current.handle.clone()),
            (None, Some(detached)) => ResumeFrom::Detached(detached),
            (None, None) => ResumeFrom::Nothing,
        };
        let mut hello = self.hello();
        if matches!(resume, ResumeFrom::Nothing) {
            hello.resume = None;
        }
        let shell = Rc::new(TunnelShell {
            number,
            shared: Rc::clone(&self.shared),
            news: self.news_sender.clone(),
        });
        let settings = self.settings();
        self.tunnels.spawn_local(async move {
            let end = serve_agent(*websocket, hello, resume, shell, commands, settings).await;
            (number, end)
        });
        self.token = Some(token);
        self.joining = Some(Tunnel {
            number,
            handle,
            since: Instant::now(),
            hub,
        });
    }

    fn hello(&self) -> Hello {
        let settings = self.settings();
        Hello {
            resume: self.session.resume.clone(),
            last_epoch: self.session.last_epoch.clone(),
            ..hello(
                &self.config,
                self.instance,
                &settings.config,
                &self.shared.offered(),
            )
        }
    }

    pub(super) fn handle_news(&mut self, number: u64, news: TunnelNews) {
        let is_current = self
            .current
            .as_ref()
            .is_some_and(|tunnel| tunnel.number == number);
        match news {
            TunnelNews::Welcomed(ack) => self.welcomed(number, &ack),
            TunnelNews::Renewed(ack) if is_current => self.renewed(&ack),
            TunnelNews::Drain(deadline) if is_current => {
                tracing::info!(
                    event = "drain_requested",
                    deadline_ms = millis(deadline),
                    "the hub is about to leave: opening a replacement"
                );
                self.replace_current();
            }
            TunnelNews::Suspect if is_current => {
                tracing::warn!(
                    event = "hub_silent",
                    "the hub does not answer: dialling a replacement beside the tunnel"
                );
                self.replace_current();
            }
            TunnelNews::RoundTrip(round_trip) if is_current => {
                self.publish
                    .send_modify(|state| state.round_trip = Some(round_trip));
            }
            // News of a tunnel that was replaced meanwhile changes nothing.
            TunnelNews::Renewed(_)
            | TunnelNews::Drain(_)
            | TunnelNews::Suspect
            | TunnelNews::RoundTrip(_) => {}
            TunnelNews::Quiet => self.check_stop(Instant::now()),
        }
    }

    /// Dials a second tunnel at once unless that is already under way.
    pub(super) fn replace_current(&mut self) {
        self.replace = true;
        if self.joining.is_none() && self.dial_at.is_none() && self.stop_at.is_none() {
            self.dial_at = Some(Instant::now());
        }
    }

    fn welcomed(&mut self, number: u64, ack: &HelloAck) {
        let Some(tunnel) = self.joining.take_if(|tunnel| tunnel.number == number) else {
            return;
        };
        if let Some(old) = self.current.take() {
            self.backoff
                .tunnel_ended(tunnel.since.saturating_duration_since(old.since));
            // Another hub or identity cannot take the flows over; they may finish where they are.
            let grace = if self.foreign {
                self.config.limits.shutdown_timeout
            } else {
                REPLACED_AFTER
            };
            self.retired.push(Retired {
                number: old.number,
                handle: old.handle,
                close_at: Instant::now() + grace,
            });
        }
        self.session.resume = Some(ack.resume.clone());
        self.session.last_epoch = Some(ack.epoch.clone());
        self.session.grace = Some(std::time::Duration::from_millis(u64::from(
            ack.resume_grace_ms,
        )));
        self.session.detached_until = None;
        let hub = tunnel.hub.clone();
        self.current = Some(tunnel);
        self.begin_at = 0;
        self.replace = false;
        self.foreign = false;
        self.dial_at = None;
        self.schedule_renewal(ack.token_expires_in_ms);
        let expires_at = self.token.as_ref().and_then(|token| token.expires_at);
        self.publish.send_modify(|state| {
            state.phase = Phase::Ready;
            state.replica = Some(ack.replica.clone());
            state.hub = Some(hub.clone());
            state.round_trip = None;
            state.session = Some(ack.session);
            state.accepted.clone_from(&ack.accepted);
            state.refused.clone_from(&ack.refused);
            state.tunnels += 1;
            state.resumed += u64::from(ack.resumed);
            state.problem = None;
            state.advice = None;
            state.token_expires_at = expires_at;
        });
        tracing::info!(
            event = "agent_connected",
            agent_id = %self.config.agent_id,
            connectors = %joined(&ack.accepted),
            %hub,
            replica = %ack.replica,
            session = ack.session,
            epoch = ack.epoch.counter,
            resumed = ack.resumed,
            "tunnel is up"
        );
        log_refused(&ack.refused);
        self.offer_what_changed(&ack.accepted, &ack.refused);
    }

    pub(super) fn handle_end(&mut self, ended: Result<(u64, TunnelEnd), JoinError>) {
        let (number, end) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // The driver panicked. Which tunnel it was follows from whose commands are closed.
                tracing::error!(event = "tunnel_fault", %error, "a tunnel's driver broke");
                self.forget_closed();
                return;
            }
        };
        self.retired.retain(|retired| retired.number != number);
        let was_joining = self
            .joining
            .take_if(|tunnel| tunnel.number == number)
            .is_some();
        let was_current = self.current.take_if(|tunnel| tunnel.number == number);
        let had_the_session = was_joining || was_current.is_some();
        if let Some(detached) = end.detached {
            self.keep_or_lose(detached, had_the_session);
        }
        if let Some(current) = &was_current {
            self.backoff.tunnel_ended(current.since.elapsed());
            self.renew_at = None;
        }
        if self.stop_at.is_some() {
            return;
        }
        if had_the_session {
            self.tunnel_lost(&end.closed, was_joining);
        }
    }

    /// What a broken tunnel leaves waits for the next one of its session. A tunnel that another
    /// has replaced has none: the hub that knew its flows gave them to the other, or has been left
    /// for good.
    fn keep_or_lose(&mut self, detached: DetachedSession, had_the_session: bool) {
        if !had_the_session {
            self.shared.flows_lost(detached.len());
            return;
        }
        let grace = self.session.grace.unwrap_or(GRACE_DEFAULT);
        self.session.detached = Some(detached);
        self.session
            .detached_until
            .get_or_insert_with(|| Instant::now() + grace);
    }

    fn forget_closed(&mut self) {
        self.joining.take_if(|tunnel| tunnel.handle.is_closed());
        self.current.take_if(|tunnel| tunnel.handle.is_closed());
        self.retired.retain(|retired| !retired.handle.is_closed());
        if self.current.is_none() && self.joining.is_none() {
            self.dial_at = Some(Instant::now() + self.backoff.next_wait(backoff::draw()));
            self.set_phase(Phase::Connecting);
        }
    }

    fn tunnel_lost(&mut self, closed: &TunnelClosed, was_joining: bool) {
        let draw = backoff::draw();
        let wait = if closed.is_retryable() {
            self.backoff.next_wait(draw)
        } else {
            self.backoff.at_least(backoff::REFUSED_WAIT, draw)
        };
        if closed.code == CloseCode::Unauthenticated
            && let Some(source) = &mut self.token_source
        {
            source.forget();
        }
        if self.joining.is_none() && (self.current.is_none() || self.replace) {
            self.dial_at = Some(Instant::now() + wait);
        }
        let advice = advice(closed.code);
        if self.current.is_none() {
            self.publish.send_modify(|state| {
                state.phase = Phase::Connecting;
                state.replica = None;
                state.hub = None;
                state.round_trip = None;
                state.session = None;
                state.problem = Some(closed.to_string());
                state.advice = Some(advice);
            });
        }
        if was_joining {
            self.begin_at += 1;
        }
        let what = if was_joining {
            "HELLO was not accepted"
        } else {
            "tunnel is lost"
        };
        if closed.is_retryable() {
            tracing::warn!(
                event = "agent_disconnected",
                code = closed.code.as_str(),
                reason = %closed.detail,
                retry_in_ms = millis(wait),
                "{what}: {advice}"
            );
        } else {
            tracing::error!(
                event = "agent_refused",
                code = closed.code.as_str(),
                reason = %closed.detail,
                agent_id = %self.config.agent_id,
                retry_in_ms = millis(wait),
                "{what}: {advice}"
            );
        }
    }

    pub(super) fn close_retired(&mut self, now: Instant) {
        for retired in &self.retired {
            if retired.close_at <= now {
                retired
                    .handle
                    .close(CloseCode::Replaced, "a newer tunnel took over".to_owned());
            }
        }
        self.retired.retain(|retired| retired.close_at > now);
    }
}

/// A HELLO without a session to come back to.
pub(crate) fn hello(
    config: &crate::config::AgentConfig,
    instance: nowconnect_protocol::InstanceId,
    tunnel: &nowconnect_protocol::TunnelConfig,
    connectors: &[nowconnect_protocol::ConnectorName],
) -> Hello {
    Hello {
        ver_min: PROTOCOL_VERSION,
        ver_max: PROTOCOL_VERSION,
        agent_id: config.agent_id.clone(),
        tenant: config.tenant.clone(),
        instance,
        role: if config.standby {
            Role::Standby
        } else {
            Role::Primary
        },
        connectors: connectors.to_vec(),
        labels: config
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        transports: vec!["wss".to_owned()],
        features: Features::RESUME.or(Features::DRAIN),
        last_epoch: None,
        resume: None,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        max_data_payload: tunnel.max_data_payload,
        flow_window: tunnel.flow_window,
    }
}

pub(super) fn log_refused(refused: &[Refusal]) {
    for refusal in refused {
        tracing::warn!(
            event = "connector_refused",
            connector = %refusal.connector,
            code = %refusal.code,
            decision = %refusal.decision,
            "the hub does not let this agent offer the connector: {}",
            refusal.message
        );
    }
}

pub(super) fn joined(names: &[nowconnect_protocol::ConnectorName]) -> String {
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    names.join(",")
}

/// What a person can do about a closed tunnel.
pub(crate) fn advice(code: CloseCode) -> &'static str {
    match code {
        CloseCode::AgentIdMismatch => {
            "the token proves another agent: set `tunnel.agent_id` to the token's `agent_id` claim, or get a token for this agent"
        }
        CloseCode::AgentIdInUse => {
            "another live agent uses this identity: give each agent its own `tunnel.agent_id`, or stop the other one"
        }
        CloseCode::Denied => {
            "the hub's policies do not let this agent join; its operator finds the reason with `nowconnect policy explain`"
        }
        CloseCode::NoConnectors => {
            "the hub accepted none of the connectors; compare `tunnel.exported_connectors` with the token's scopes and the hub's policies"
        }
        CloseCode::ConnectorLimit => {
            "too many connectors are offered; name the needed ones in `tunnel.exported_connectors`"
        }
        CloseCode::Revoked => {
            "the hub's operator has revoked this credential; a new token is needed"
        }
        CloseCode::VersionUnsupported => {
            "hub and agent share no protocol version; update the older of the two"
        }
        CloseCode::TransportUnsupported => {
            "hub and agent share no transport; update the older of the two"
        }
        CloseCode::TokenExpired => "the token ran out and was not renewed",
        CloseCode::Unauthenticated => "the hub no longer accepts the token",
        CloseCode::Overloaded => "the hub takes no more agents now",
        CloseCode::Shutdown | CloseCode::DrainDone => "the hub is leaving; coming back",
        CloseCode::Replaced | CloseCode::EpochLost => {
            "another tunnel of this agent took over; coming back"
        }
        CloseCode::HelloTimeout | CloseCode::PingTimeout | CloseCode::TransportLost => {
            "the way to the hub broke; coming back"
        }
        CloseCode::ProtocolViolation | CloseCode::Internal => {
            "hub and agent misunderstood each other; coming back, and worth a report"
        }
    }
}
