//! What the hub answers one tunnel: HELLO and RENEW.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nowconnect_plugins::Carry;
use nowconnect_policy::AgentFacts;
use nowconnect_protocol::{CloseCode, ConnectorName, Hello, Renew, ResumeToken, TunnelCounters};
use nowconnect_store::AgentTunnel;
use nowconnect_tunnel::{
    DetachedSession, HelloVerdict, HubShell, RenewVerdict, TunnelHandle, Welcome, WorkerId,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{Instrument as _, Span, info, warn};

use super::Newcomer;
use super::duplicate::{self, Verdict};
use super::keeper;
use super::live::{LiveTunnel, Standing};
use super::parked::{ResumeHashes, TokenHash};
use super::refusals;
use super::turns::HelloTurn;
use crate::authorize::{self, HelloAsk, HelloPermit, HelloReason};
use crate::connector;
use crate::control::admit;
use crate::drain::Phase;
use crate::hub::{Hub, now_ms};
use crate::identity::AgentIdentity;
use crate::limit::Rate;
use crate::recheck;
use crate::registry::{AgentKey, ConnectorKey, RegistryError};
use crate::telemetry::events;
use crate::telemetry::metrics::FrameCounts;
use crate::telemetry::traces;
use crate::tunnel_endpoint::{Admission, TRANSPORT};

/// The session of a tunnel, once it has one. Shared by the shell and whoever serves it.
#[derive(Clone, Debug, Default)]
pub(super) struct SessionCell(Arc<Mutex<Option<Welcomed>>>);

/// A session whose HELLO was accepted.
#[derive(Debug)]
struct Welcomed {
    live: Arc<LiveTunnel>,
    /// Its agent's turn, until it is in force.
    turn: Option<HelloTurn>,
}

impl SessionCell {
    pub(super) fn take(&self) -> Option<Arc<LiveTunnel>> {
        self.0.lock().take().map(|welcomed| welcomed.live)
    }

    fn live(&self) -> Option<Arc<LiveTunnel>> {
        let welcomed = self.0.lock();
        welcomed.as_ref().map(|welcomed| Arc::clone(&welcomed.live))
    }

    fn set(&self, live: Arc<LiveTunnel>, turn: HelloTurn) {
        let turn = Some(turn);
        *self.0.lock() = Some(Welcomed { live, turn });
    }

    /// The session is in force, or will not be.
    fn end_turn(&self) {
        let turn = self.0.lock().as_mut().and_then(|one| one.turn.take());
        drop(turn);
    }
}

/// The hub's side of one tunnel; holds the identity that its token proved.
#[derive(Debug)]
pub(super) struct Shell {
    at: At,
    admission: Option<Admission>,
    /// The root of the HELLO's trace; none once it is answered.
    span: Span,
    /// What the metrics know of this tunnel's frames already.
    counted: TunnelCounters,
}

#[derive(Clone, Debug)]
struct At {
    hub: Arc<Hub>,
    identity: Arc<AgentIdentity>,
    remote: SocketAddr,
    /// When its connection was accepted.
    began: Instant,
    cell: SessionCell,
}

impl Shell {
    pub(super) fn new(hub: Arc<Hub>, newcomer: Newcomer, cell: SessionCell) -> Self {
        Self {
            at: At {
                hub,
                identity: newcomer.identity,
                remote: newcomer.remote,
                began: newcomer.admission.began(),
                cell,
            },
            admission: Some(newcomer.admission),
            span: newcomer.span,
            counted: TunnelCounters::default(),
        }
    }
}

impl HubShell for Shell {
    fn hello(&mut self, hello: Hello, handle: TunnelHandle) -> BoxFuture<'static, HelloVerdict> {
        let at = self.at.clone();
        // Dropping a span closes it: with the answer, or with a tunnel that ends before.
        let span = std::mem::replace(&mut self.span, Span::none());
        if !span.is_disabled() {
            span.record("agent_id", tracing::field::display(at.key()));
        }
        async move {
            match at.hello(hello, handle, &span).await {
                Ok(welcome) => {
                    span.record("session", welcome.session);
                    span.record("result", "accepted");
                    HelloVerdict::Accept(Box::new(welcome))
                }
                Err((code, message)) => {
                    traces::failed(&span, code.as_str());
                    at.refused(code, &message);
                    HelloVerdict::Refuse { code, message }
                }
            }
        }
        .boxed()
    }

    fn renew(&mut self, renew: Renew) -> BoxFuture<'static, RenewVerdict> {
        let at = self.at.clone();
        async move { at.renew(renew).await }.boxed()
    }

    fn established(&mut self) {
        if let Some(admission) = &mut self.admission {
            admission.done();
        }
        self.admission = None;
        if let Some(live) = self.at.cell.live() {
            self.at.established(&live);
            self.at.cell.end_turn();
        }
    }

    fn counted(&mut self, counters: &TunnelCounters) {
        let told = std::mem::replace(&mut self.counted, *counters);
        self.at.hub.metrics().traffic.frames(FrameCounts {
            fin_sent: counters.fin_sent.saturating_sub(told.fin_sent),
            fin_received: counters.fin_received.saturating_sub(told.fin_received),
            rst_sent: counters.rst_sent.saturating_sub(told.rst_sent),
            rst_received: counters.rst_received.saturating_sub(told.rst_received),
        });
    }
}

/// How long an earlier tunnel may take to hand its flows over, or to park them if it just broke.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(2);

/// A token lives for minutes at least; what comes more often costs a signature's check and a
/// question about each connector for nothing.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// RENEW that may come at once: a token and a list of connectors that changed together, and again.
const RENEW_BURST: u32 = 3;

type Refused = (CloseCode, String);

/// What a new tunnel comes into.
struct Place {
    /// The session that it was settled to replace.
    replaces: Option<u64>,
    epoch: nowconnect_protocol::Epoch,
    resumed: bool,
}

/// Whether a tunnel is another instance's than HELLO was settled with.
fn is_foreign(live: &LiveTunnel, current: &LiveTunnel) -> bool {
    live.replaces != Some(current.session) && live.instance != current.instance
}

fn in_use() -> Refused {
    (
        CloseCode::AgentIdInUse,
        "another instance of this agent is connected".to_owned(),
    )
}

fn was_deleted() -> Refused {
    (CloseCode::Revoked, "its tunnel was deleted".to_owned())
}

fn too_many_agents() -> Refused {
    (
        CloseCode::Overloaded,
        "the hub carries as many agents as it may".to_owned(),
    )
}

impl At {
    fn key(&self) -> AgentKey {
        AgentKey {
            tenant: self.identity.tenant.clone(),
            agent: self.identity.agent_id.clone(),
        }
    }

    async fn hello(
        &self,
        hello: Hello,
        handle: TunnelHandle,
        span: &Span,
    ) -> Result<Welcome, Refused> {
        let hub = &self.hub;
        let config = hub.config();
        if hub.current_phase() != Phase::Serving {
            return Err((CloseCode::Shutdown, "the hub is shutting down".to_owned()));
        }
        let key = self.key();
        let earlier = hub.router().tunnel_of(&key);
        let max_agents = usize::try_from(config.limits.max_agents).unwrap_or(usize::MAX);
        if earlier.is_none() && hub.router().agent_count() >= max_agents {
            return Err(too_many_agents());
        }
        let max_connectors =
            usize::try_from(config.limits.max_connectors_per_agent).unwrap_or(usize::MAX);
        if hello.connectors.len() > max_connectors {
            let message = format!(
                "{} connectors were announced, at most {max_connectors} are allowed",
                hello.connectors.len()
            );
            return Err((CloseCode::ConnectorLimit, message));
        }
        // An agent of before transports had names says nothing and means the one that it uses.
        if !hello.transports.is_empty() && !hello.transports.iter().any(|one| one == TRANSPORT) {
            return Err((
                CloseCode::TransportUnsupported,
                format!("this hub serves tunnels over `{TRANSPORT}` only"),
            ));
        }
        let reason = if hello.resume.is_some() {
            HelloReason::Resume
        } else {
            HelloReason::New
        };
        let permit = self
            .ask(&hello, &hello.connectors, earlier.is_some(), reason, None)
            .instrument(traces::decision_span(span))
            .await?;
        if permit.accepted().is_empty() && !hello.connectors.is_empty() {
            return Err((CloseCode::NoConnectors, no_connectors(&permit)));
        }
        // Another HELLO of the agent may have come into force while this one was decided about: it
        // must not be claimed over by one that is refused for it.
        let turn = hub.hellos.turn(&key).await;
        let earlier = hub.router().tunnel_of(&key);
        let replaces = earlier.as_ref().map(|earlier| earlier.session);
        match duplicate::settle(hub, earlier, &hello).await {
            Verdict::InUse => {
                return Err(in_use());
            }
            Verdict::Free => {}
            Verdict::TakesOver(earlier) => self.end_earlier(&earlier, &hello).await,
        }
        // Nothing after the claim may fail: who would give it up?
        let resume_token = new_token()?;
        let claim = hub.cluster().claim(&key, hello.last_epoch.clone()).await;
        let claim = claim.map_err(not_claimed)?;
        if let Some(previous) = claim.previous.filter(|one| one.owner != *hub.replica()) {
            hub.metrics().cluster.taken_over();
            info!(
                target: events::SECURITY,
                event = events::AGENT_MOVED,
                agent_id = %key,
                owner = %previous.owner,
                peer = %self.remote,
                "an agent that another hub has comes here"
            );
        }
        let epoch = claim.epoch;
        // Not before all that may take time or fail: a newcomer that goes away leaves the flows
        // where its next HELLO finds them.
        let resume = self.parked(&key, &hello);
        let live = self.live(
            &hello,
            &permit,
            handle,
            Place {
                replaces,
                epoch: epoch.clone(),
                resumed: resume.is_some(),
            },
            &resume_token,
        );
        let welcome = Welcome {
            session: live.session,
            replica: hub.replica().clone(),
            epoch,
            accepted: permit.accepted().to_vec(),
            refused: live.standing().refused.clone(),
            resume_token,
            resume,
            token_expires_in: Some(expires_in(&self.identity)),
        };
        self.cell.set(live, turn);
        Ok(welcome)
    }

    async fn ask(
        &self,
        hello: &Hello,
        connectors: &[ConnectorName],
        replacing: bool,
        reason: HelloReason,
        carry: Option<&Carry>,
    ) -> Result<HelloPermit, Refused> {
        let config = self.hub.config();
        let ask = HelloAsk {
            identity: &self.identity,
            claimed_agent: &hello.agent_id,
            claimed_tenant: hello.tenant.as_ref(),
            agent_version: &hello.agent_version,
            labels: &hello.labels,
            connectors,
            remote: self.remote,
            replacing,
            reason,
            carry,
            pipeline_timeout: config.plugins.pipeline_timeout,
        };
        self.hub.authorizer().hello(&ask).await.map_err(|denial| {
            let code = close_code(&denial.code);
            if code == CloseCode::Revoked {
                self.hub.metrics().hub.revoked("session");
            }
            (code, denial.to_string())
        })
    }

    /// The flows that an earlier tunnel left behind.
    fn parked(&self, key: &AgentKey, hello: &Hello) -> Option<DetachedSession> {
        let token = hello.resume.as_ref()?;
        let found = self.hub.parked.take(key, token);
        let result = if found.is_some() {
            "resumed"
        } else {
            "refused"
        };
        self.hub.metrics().hub.resume(result);
        found
    }

    /// The earlier tunnel ends. Its flows are parked if the agent shows their token, and end with
    /// it if not.
    async fn end_earlier(&self, earlier: &Arc<LiveTunnel>, hello: &Hello) {
        let proven = hello
            .resume
            .as_ref()
            .is_some_and(|token| earlier.resume_hashes.has(token));
        if !proven {
            earlier.let_flows_end();
        } else if self.hand_over(earlier).await {
            return;
        }
        earlier.close(
            CloseCode::Replaced,
            "a newer tunnel of this agent took over",
        );
        if proven {
            // It broke a moment ago, and its flows are about to be parked.
            let _ = tokio::time::timeout(HANDED_OVER_WITHIN, earlier.is_over()).await;
        }
    }

    /// Takes the flows out of a living tunnel and parks them. `false` where it has none to give:
    /// it has ended, or its driver hangs, which must not keep the agent out.
    ///
    /// A task of its own, because between the two steps the flows are nobody's: the newcomer's
    /// tunnel may break at any time, and what is awaited for it is dropped then.
    async fn hand_over(&self, earlier: &Arc<LiveTunnel>) -> bool {
        let (hub, earlier) = (Arc::clone(&self.hub), Arc::clone(earlier));
        let parking = self.hub.runtime.spawn(async move {
            let taken = tokio::time::timeout(HANDED_OVER_WITHIN, earlier.detach()).await;
            let Ok(Some(session)) = taken else {
                return false;
            };
            super::hand_over(&hub, &earlier, session);
            true
        });
        parking.await.unwrap_or(false)
    }

    fn live(
        &self,
        hello: &Hello,
        permit: &HelloPermit,
        handle: TunnelHandle,
        place: Place,
        resume_token: &ResumeToken,
    ) -> Arc<LiveTunnel> {
        let hub = &self.hub;
        let config = hub.config();
        let key = self.key();
        Arc::new(LiveTunnel {
            name: permit.facts().agent.clone(),
            session: hub.next_session(),
            instance: hello.instance,
            role: hello.role,
            epoch: place.epoch,
            remote: self.remote,
            agent_version: hello.agent_version.clone(),
            labels: hello.labels.clone(),
            since: Instant::now(),
            worker: WorkerId::current(),
            metrics: hub.metrics().traffic.agent(&key.to_string()),
            rate: Rate::new(config.limits.rate_per_agent),
            replaces: place.replaces,
            facts: Arc::clone(permit.facts()),
            renewals: Rate::every(RENEW_EVERY, RENEW_BURST),
            resume_hashes: ResumeHashes {
                own: TokenHash::of(resume_token),
                taken_over: hello
                    .resume
                    .as_ref()
                    .filter(|_| place.resumed)
                    .map(TokenHash::of),
            },
            over: watch::channel(false).0,
            handle,
            max_flows: config.limits.max_flows_per_agent,
            standing: ArcSwap::from_pointee(Standing {
                identity: Arc::clone(&self.identity),
                agent: Arc::clone(permit.agent()),
                connectors: permit.accepted().into(),
                refused: refusals::fitting(permit.accepted(), permit.refused()),
                carry: permit.carry().clone(),
            }),
            expires_ms: AtomicU64::new(authorize::unix_ms(self.identity.expires_at)),
            decided: AtomicU64::new(permit.stamp().to_number()),
            asked: AtomicU64::new(hub.rounds().newest()),
            flows_carried: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            final_end: AtomicBool::new(false),
            expiry_handled: Mutex::new(None),
            key,
        })
    }

    fn publish_facts(&self, agent: &AgentFacts, connectors: &[ConnectorName]) {
        let facts = self.hub.authorizer().facts();
        facts.put_agent(agent);
        let config = self.hub.config();
        for name in connectors {
            let key = ConnectorKey {
                tenant: self.identity.tenant.clone(),
                name: name.clone(),
            };
            connector::put_facts(facts, &config, &key);
        }
    }

    /// HELLO_ACK is on its way: flows may come.
    fn established(&self, live: &Arc<LiveTunnel>) {
        let hub = &self.hub;
        let connectors = live.standing().connectors.to_vec();
        match self.attach(live, &connectors) {
            Ok(Some(earlier)) => earlier.close(
                CloseCode::Replaced,
                "a newer tunnel of this agent took over",
            ),
            Ok(None) => {}
            Err((code, message)) => {
                self.refused(code, &message);
                return live.close(code, &message);
            }
        }
        bring_listeners(hub, live, &connectors);
        if let Some(reason) = hub.parked.last_reason(&live.key) {
            hub.metrics()
                .traffic
                .tunnel_reconnected(&live.metrics, &reason);
        }
        hub.addresses.came(AgentTunnel {
            agent: live.key.to_string(),
            session: live.session,
            address: live.remote,
            since_ms: now_ms(),
        });
        hub.metrics().hub.joined(self.began.elapsed());
        let names: Vec<&str> = connectors.iter().map(ConnectorName::as_str).collect();
        info!(
            event = events::AGENT_CONNECTED,
            agent_id = %live.key,
            connectors = %names.join(","),
            session = live.session,
            epoch = live.epoch.counter,
            peer = %live.remote,
            version = %live.agent_version,
            "an agent is connected"
        );
        hub.cluster().offer(hub, live);
        recheck::agent_came(hub, &live.key);
        recheck::tunnel_came(hub, live);
        keeper::end_if_revoked(hub, live);
    }

    /// Puts the tunnel in force with its agent's rows. What HELLO was settled with may have
    /// changed while it was decided about: another HELLO of the agent may have been faster, or
    /// other agents may have taken the last places.
    fn attach(
        &self,
        live: &Arc<LiveTunnel>,
        connectors: &[ConnectorName],
    ) -> Result<Option<Arc<LiveTunnel>>, Refused> {
        let hub = &self.hub;
        let max_agents = usize::try_from(hub.config().limits.max_agents).unwrap_or(usize::MAX);
        // Asked while the router takes nobody else in: whoever deletes it later finds the tunnel.
        let deleted = || {
            self.identity.ephemeral
                && !connectors.iter().all(|connector| {
                    hub.published.leads_to(&ConnectorKey {
                        tenant: live.key.tenant.clone(),
                        name: connector.clone(),
                    })
                })
        };
        let refuse = |current: Option<&LiveTunnel>, agents: usize| match current {
            _ if deleted() => Some(was_deleted()),
            Some(current) if is_foreign(live, current) => Some(in_use()),
            Some(_) => None,
            None => (agents >= max_agents).then(too_many_agents),
        };
        let _presence = hub.presence.lock();
        let earlier = hub
            .router()
            .attach_unless(Arc::clone(live), connectors.to_vec(), refuse)?;
        hub.cluster().uphold(live);
        self.publish_facts(&live.facts, connectors);
        live.metrics.tunnel_up();
        Ok(earlier)
    }

    async fn renew(&self, renew: Renew) -> RenewVerdict {
        let Some(live) = self.cell.live() else {
            return RenewVerdict::Refuse {
                message: "there is no session yet".to_owned(),
            };
        };
        let paced = if live.renewals.allows(self.hub.uptime()) {
            self.renewed(&live, renew).await
        } else {
            Err(Unrenewed::Close(
                CloseCode::ProtocolViolation,
                format!("more RENEW than one in {} s", RENEW_EVERY.as_secs()),
            ))
        };
        match paced {
            Ok(verdict) => verdict,
            Err(Unrenewed::Keep(message)) => {
                warn!(agent_id = %live.key, message, "a renewal was refused");
                RenewVerdict::Refuse { message }
            }
            Err(Unrenewed::Close(code, message)) => {
                warn!(
                    target: events::SECURITY,
                    event = events::AUTH_FAILED,
                    agent_id = %live.key,
                    code = code.as_str(),
                    "a renewal ended a tunnel"
                );
                live.close(code, &message);
                RenewVerdict::Close { code, message }
            }
        }
    }

    async fn renewed(
        &self,
        live: &Arc<LiveTunnel>,
        renew: Renew,
    ) -> Result<RenewVerdict, Unrenewed> {
        let standing = live.standing();
        let identity = match renew.token {
            Some(token) => Arc::new(self.prove(token).await?),
            None => Arc::clone(&standing.identity),
        };
        let before: Vec<ConnectorName> = standing.connectors.to_vec();
        // RENEW only narrows: what the agent did not have needs a new HELLO.
        let wanted: Vec<ConnectorName> = match renew.connectors {
            Some(list) => list
                .into_iter()
                .filter(|name| before.contains(name))
                .collect(),
            None => before.clone(),
        };
        let hello = renew_hello(live, &identity);
        let at = Self {
            identity: Arc::clone(&identity),
            ..self.clone()
        };
        let permit = at
            .ask(
                &hello,
                &wanted,
                true,
                HelloReason::Renew,
                Some(&standing.carry),
            )
            .await
            .map_err(|(code, message)| {
                if matches!(code, CloseCode::Revoked | CloseCode::AgentIdMismatch) {
                    Unrenewed::Close(code, message)
                } else {
                    Unrenewed::Keep(message)
                }
            })?;
        let expires_in = expires_in(&identity);
        let renewed = at.publish_renewed(live, identity, &permit);
        let accepted = renewed.connectors.to_vec();
        let lost: Vec<ConnectorName> = before
            .into_iter()
            .filter(|name| !accepted.contains(name))
            .collect();
        recheck::tunnel_came(&self.hub, live);
        self.hub.cluster().offer(&self.hub, live);
        if !lost.is_empty() {
            live.withdraw(lost);
        }
        recheck::agent_came(&self.hub, &live.key);
        Ok(RenewVerdict::Accept {
            accepted,
            refused: renewed.refused.clone(),
            token_expires_in: Some(expires_in),
        })
    }

    /// Puts what was renewed in force and gives it; others do not see it if another tunnel has
    /// taken its place meanwhile.
    fn publish_renewed(
        &self,
        live: &Arc<LiveTunnel>,
        identity: Arc<AgentIdentity>,
        permit: &HelloPermit,
    ) -> Arc<Standing> {
        let router = self.hub.router();
        let _presence = self.hub.presence.lock();
        let renewed = live.renew(Standing {
            identity,
            agent: Arc::clone(permit.agent()),
            connectors: permit.accepted().into(),
            refused: permit.refused().to_vec(),
            carry: permit.carry().clone(),
        });
        // Also where a round has decided since then: it was about what this replaced.
        live.decided
            .store(permit.stamp().to_number(), Ordering::Release);
        let in_force = router
            .tunnel_of(&live.key)
            .is_some_and(|current| current.session == live.session);
        if in_force {
            self.publish_facts(permit.facts(), &renewed.connectors);
            router.set_connectors(live, renewed.connectors.to_vec());
        }
        renewed
    }

    async fn prove(&self, token: String) -> Result<AgentIdentity, Unrenewed> {
        let token = crate::config::Secret::new(token);
        let identity = self
            .hub
            .authenticator()
            .verify(&token)
            .await
            .map_err(|error| {
                self.hub.metrics().hub.auth_failure(error.code().as_str());
                Unrenewed::Keep(format!("{}: {error}", error.code()))
            })?;
        if identity.tenant != self.identity.tenant || identity.agent_id != self.identity.agent_id {
            return Err(Unrenewed::Close(
                CloseCode::AgentIdMismatch,
                "the new token is another agent's".to_owned(),
            ));
        }
        admit::once(&self.hub, &identity)
            .await
            .map_err(|(code, message)| {
                self.hub.metrics().hub.auth_failure(code.as_str());
                Unrenewed::Keep(format!("{code}: {message}"))
            })?;
        Ok(identity)
    }

    fn refused(&self, code: CloseCode, message: &str) {
        self.hub.metrics().hub.handshake(code.as_str());
        warn!(
            target: events::SECURITY,
            event = events::AGENT_REFUSED,
            agent_id = %self.key(),
            code = code.as_str(),
            peer = %self.remote,
            message,
            "an agent was refused"
        );
    }
}

/// What an agent is told that could not be claimed.
fn not_claimed(error: RegistryError) -> Refused {
    let code = match &error {
        RegistryError::Lost { .. } => CloseCode::EpochLost,
        // It is not believed, and says the same wherever it goes.
        RegistryError::CounterSpent { .. } => CloseCode::Denied,
        RegistryError::ReplicaTaken { .. }
        | RegistryError::TooMuch { .. }
        | RegistryError::Unavailable(_)
        | RegistryError::Refused { .. } => CloseCode::Overloaded,
    };
    (code, error.to_string())
}

/// Listeners whose only tunnel this is accept on its worker from now on.
fn bring_listeners(hub: &Hub, live: &LiveTunnel, connectors: &[ConnectorName]) {
    let ports = hub.ports.lock().clone();
    for port in ports {
        let key = &port.rules().connector.key;
        if key.tenant == live.key.tenant && connectors.contains(&key.name) {
            port.move_to_tunnel(hub);
        }
    }
}

enum Unrenewed {
    /// What was in force stays.
    Keep(String),
    /// The tunnel ends.
    Close(CloseCode, String),
}

/// A HELLO that states what the living tunnel proved.
fn renew_hello(live: &LiveTunnel, identity: &AgentIdentity) -> Hello {
    Hello {
        ver_min: nowconnect_protocol::frame::VERSION,
        ver_max: nowconnect_protocol::frame::VERSION,
        agent_id: identity.agent_id.clone(),
        tenant: None,
        instance: live.instance,
        role: live.role,
        connectors: Vec::new(),
        labels: live.labels.clone(),
        transports: Vec::new(),
        features: nowconnect_protocol::Features::default(),
        last_epoch: None,
        resume: None,
        agent_version: live.agent_version.clone(),
        max_data_payload: 0,
        flow_window: 0,
    }
}

fn no_connectors(permit: &HelloPermit) -> String {
    /// Names in one message; the others are in the decision log.
    const NAMED: usize = 8;
    let reasons: Vec<String> = permit
        .refused()
        .iter()
        .take(NAMED)
        .map(|refusal| format!("`{}` ({})", refusal.connector, refusal.code))
        .collect();
    format!("no connector was accepted: {}", reasons.join(", "))
}

fn expires_in(identity: &AgentIdentity) -> Duration {
    identity
        .expires_at
        .duration_since(SystemTime::now())
        .unwrap_or(Duration::ZERO)
}

fn new_token() -> Result<ResumeToken, Refused> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| {
        (
            CloseCode::Internal,
            "the system has no randomness".to_owned(),
        )
    })?;
    Ok(ResumeToken(bytes))
}

/// The wire's code for a denial of the pipeline.
fn close_code(code: &str) -> CloseCode {
    match code {
        "agent_id_mismatch" => CloseCode::AgentIdMismatch,
        "token_expired" => CloseCode::TokenExpired,
        "revoked" => CloseCode::Revoked,
        // Trouble that may be over soon: the agent dials again.
        "overloaded" | "decision_timeout" | authorize::CHANGING | crate::pdp::UNAVAILABLE => {
            CloseCode::Overloaded
        }
        _ => CloseCode::Denied,
    }
}
