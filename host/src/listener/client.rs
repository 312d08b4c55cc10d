//! One client, from accept until its flow is with an agent.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use ipnet::IpNet;
use nowconnect_protocol::{FlowTerms, ResetCode};
use nowconnect_tunnel::{FailedOpen, FlowIo, OpenFlow, Rejected};
use socket2::{SockRef, TcpKeepalive};
use tracing::{Instrument as _, Span, debug, info};

use super::Rules;
use super::observer::Carried;
use crate::authorize::{Denial, OpenAsk, OpenPermit, Refused};
use crate::cluster::{Carrier, RemoteAgent};
use crate::codes::DenialCode;
use crate::config::ProxyProtocolAccept;
use crate::flow_table::FlowEntry;
use crate::hub::Hub;
use crate::limit::{Pass, Slot};
use crate::proxy_protocol;
use crate::recheck;
use crate::router::Candidate;
use crate::session::LiveTunnel;
use crate::telemetry::decisions::Why;
use crate::telemetry::events;
use crate::telemetry::metrics::{ConnectionGuard, ListenerError};
use crate::telemetry::traces;

/// A client's place in the bounds on number; given back at the flow's end.
#[derive(Debug)]
pub(crate) struct Place {
    pub(super) _in_all: Pass,
    pub(super) _here: Pass,
}

/// A client without a flow yet.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) hub: Arc<Hub>,
    pub(super) rules: Arc<Rules>,
    /// The socket's peer, then what a trusted PROXY header says.
    pub(super) address: SocketAddr,
    pub(super) accepted: Instant,
    /// Agents' sessions that were tried in vain.
    pub(super) tried: Vec<u64>,
    /// The root of the flow's trace; none once the flow is open.
    pub(super) span: Span,
    _place: Place,
    _counted: Option<Counted>,
}

/// What is counted once the client is let in.
#[derive(Debug)]
struct Counted {
    _connection: ConnectionGuard,
    _slot: Slot,
    _flow: FlowCount,
}

#[derive(Debug)]
struct FlowCount(Arc<AtomicUsize>);

impl FlowCount {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for FlowCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Client {
    pub(super) fn new(hub: Arc<Hub>, rules: Arc<Rules>, address: SocketAddr, place: Place) -> Self {
        Self {
            hub,
            rules,
            address,
            accepted: Instant::now(),
            tried: Vec::new(),
            span: Span::none(),
            _place: place,
            _counted: None,
        }
    }

    /// Does all that comes before the flow. A client that is refused sees a close; the log, the
    /// decision record and the metrics say why.
    pub(super) async fn begin(mut self, stream: TcpStream) {
        let stream = match self.identified(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                self.rules
                    .connector
                    .metrics
                    .listener_error(ListenerError::Session);
                return info!(
                    event = events::PROXY_HEADER_REFUSED,
                    listener = %self.rules.text,
                    peer = %self.address,
                    %error,
                    "a client was closed"
                );
            }
        };
        self.span = traces::flow_span(&self.rules.text, &self.rules.connector.key, self.address);
        if let Err(refused) = self.admit() {
            let denial = self.hub.authorizer().refuse_client(
                self.address,
                &self.rules.text,
                &self.rules.connector.name,
                refused,
            );
            return self.log_denial(&denial);
        }
        self.open(FlowIo::Std(stream), Vec::new()).await;
    }

    /// Finds out who the client is, and readies its socket.
    async fn identified(&mut self, stream: TcpStream) -> Result<TcpStream, String> {
        prepare(&stream).map_err(|error| error.to_string())?;
        if self.rules.config.proxy_protocol.accept == ProxyProtocolAccept::Off {
            return Ok(stream);
        }
        let mut stream =
            tokio::net::TcpStream::from_std(stream).map_err(|error| error.to_string())?;
        let header = proxy_protocol::read_header(
            &mut stream,
            self.address,
            &self.rules.config.proxy_protocol,
        )
        .await
        .map_err(|error| error.to_string())?;
        if let Some(source) = header.source {
            self.address = source;
        }
        stream.into_std().map_err(|error| error.to_string())
    }

    /// Limits and address rules, the cheapest first.
    fn admit(&mut self) -> Result<(), Refused> {
        let rules = &self.rules;
        let source = self.address.ip().to_canonical();
        if !allowed(&rules.allow_cidrs, source) || !allowed(&rules.config.allow_cidrs, source) {
            info!(
                event = events::CIDR_BLOCKED,
                listener = %rules.text,
                connector = %rules.connector.key,
                client = %self.address,
                "a client's address is not allowed"
            );
            return Err(Refused::by_hub(
                Why::Address,
                DenialCode::CidrBlocked,
                "the client's address is not in allow_cidrs",
            ));
        }
        let now = self.hub.uptime();
        // What one source is refused must not cost the others anything.
        if !rules.rate_per_source.allows(source, now) {
            return Err(limited(
                "this address opens too many connections in a second",
            ));
        }
        if !rules.rate.allows(now) || !self.hub.rate.allows(now) {
            return Err(limited(
                "the listener takes no more new clients in this second",
            ));
        }
        if !rules.connector.rate.allows(now) {
            return Err(limited(
                "the connector takes no more new flows in this second",
            ));
        }
        let Some(slot) = rules.connector.flows.take() else {
            return Err(Refused::by_hub(
                Why::Limit,
                DenialCode::ConnectionLimit,
                "the connector carries as many flows as it may",
            ));
        };
        self._counted = Some(Counted {
            _connection: rules.connector.metrics.connection(),
            _slot: slot,
            _flow: FlowCount::new(&rules.flows),
        });
        Ok(())
    }

    /// Gives the client to an agent that was not tried yet. Where that one does not start the
    /// flow, its observer comes back here.
    pub(super) async fn open(mut self, io: FlowIo, early: Vec<Bytes>) {
        let tunnel = match self.carrier().await {
            Carrier::Local(tunnel) => tunnel,
            Carrier::Remote(agent) => return self.no_way_to(&agent),
            Carrier::Nobody => return self.no_agent(),
        };
        let permit = match self.ask(&tunnel).await {
            Ok(permit) => permit,
            Err(denial) => return self.log_denial(&denial),
        };
        self.tried.push(tunnel.session());
        let (hub, decided) = (Arc::clone(&self.hub), permit.stamp());
        let (flow, entry) = self.flow(&tunnel, permit, io, early);
        match tunnel.open(flow) {
            Ok(()) => recheck::flow_came(&hub, &entry, decided),
            Err(rejected) => {
                let code = match rejected.reason {
                    Rejected::Closed | Rejected::Draining => ResetCode::Draining,
                    Rejected::Busy => ResetCode::AgentBusy,
                };
                let flow = *rejected.flow;
                flow.observer.not_started(FailedOpen {
                    code,
                    message: format!("the tunnel took no flow: {:?}", rejected.reason),
                    io: flow.io,
                    early: flow.early,
                });
            }
        }
    }

    /// Whether another agent may be tried.
    pub(super) fn may_try_again(&self) -> bool {
        let attempts = usize::try_from(self.hub.config.load().limits.open_attempts)
            .unwrap_or(usize::MAX)
            .max(1);
        self.tried.len() < attempts && self.agent().is_some()
    }

    /// No agent reached the target.
    pub(super) fn not_reached(self, code: ResetCode, message: &str) {
        traces::failed(&self.span, code.as_str());
        let _traced = self.span.enter();
        info!(
            event = events::CONNECTION_CLOSED,
            listener = %self.rules.text,
            connector = %self.rules.connector.key,
            client = %self.address,
            cause = code.as_str(),
            message,
            tried = self.tried.len(),
            "a target was not reached"
        );
        self.rules
            .connector
            .metrics
            .listener_error(ListenerError::Session);
        self.hub.metrics.traffic.flow_ended(code.as_str());
    }

    /// Who carries the flow: an agent of this hub where one may, else one of another hub. After a
    /// first try here the client stays here.
    async fn carrier(&self) -> Carrier {
        if let Some(tunnel) = self.agent() {
            return Carrier::Local(tunnel);
        }
        if !self.tried.is_empty() {
            return Carrier::Nobody;
        }
        let key = &self.rules.connector.key;
        let revocations = self.hub.authorizer().revocations();
        match self.hub.cluster().find(key, &revocations).await {
            Ok(agents) => agents
                .into_iter()
                .next()
                .map_or(Carrier::Nobody, |agent| Carrier::Remote(Box::new(agent))),
            // Known by `/readyz` and the metrics: there are this hub's own agents only.
            Err(_) => Carrier::Nobody,
        }
    }

    fn agent(&self) -> Option<Arc<LiveTunnel>> {
        let pool = self.hub.router.pool(&self.rules.connector.key)?;
        let now = self.hub.uptime();
        let down = self.rules.connector.down();
        let mut skipped = Vec::new();
        loop {
            let left_out: &[u64] = if skipped.is_empty() {
                &self.tried
            } else {
                &skipped
            };
            let usable = |tunnel: &LiveTunnel| {
                !left_out.contains(&tunnel.session()) && !down.has(tunnel.agent())
            };
            let tunnel = pool.pick_among(self.rules.config.balance, self.address.ip(), usable)?;
            if tunnel.rate.allows(now) {
                return Some(tunnel);
            }
            if skipped.is_empty() {
                skipped.clone_from(&self.tried);
            }
            skipped.push(tunnel.session());
        }
    }

    async fn ask(&self, tunnel: &LiveTunnel) -> Result<OpenPermit, Denial> {
        let rules = &self.rules;
        let standing = tunnel.standing();
        let ask = OpenAsk {
            listener: &rules.name,
            listener_text: &rules.text,
            connector: &rules.connector.name,
            connector_text: rules.connector.key.name.as_str(),
            tenant: &rules.connector.key.tenant,
            client: self.address,
            identity: &standing.identity,
            agent: &tunnel.name,
            plugin_agent: &standing.agent,
            open_flows: u32::try_from(rules.connector.flows.taken().saturating_sub(1))
                .unwrap_or(u32::MAX),
            pipeline_timeout: self.hub.config.load().plugins.pipeline_timeout,
        };
        let decision = traces::decision_span(&self.span);
        self.hub.authorizer.open(&ask).instrument(decision).await
    }

    /// The permit becomes a flow. Consumes the client, which comes back if the tunnel does not
    /// take it.
    fn flow(
        self,
        tunnel: &Arc<LiveTunnel>,
        mut permit: OpenPermit,
        io: FlowIo,
        early: Vec<Bytes>,
    ) -> (OpenFlow, Arc<FlowEntry>) {
        let (metadata, carry) = permit.take_attachments();
        let terms = terms(&self.rules, &permit);
        let flow_ref = self.hub.next_flow_ref();
        let open = traces::open_span(&self.span, &tunnel.key);
        let entry = Arc::new(FlowEntry {
            flow_ref: flow_ref.clone(),
            agent: tunnel.key.clone(),
            connector: self.rules.connector.key.clone(),
            listener: Arc::clone(&self.rules.text),
            client: Some(self.address),
            decision: permit.decision(),
            question: Arc::clone(permit.question()),
            generation: AtomicU64::new(permit.generation()),
            asked: AtomicU64::new(self.hub.rounds.newest()),
            opened: Instant::now(),
            opened_at: SystemTime::now(),
            acknowledged: false.into(),
            is_condemned: false.into(),
            is_insisted: false.into(),
            bytes_c2a: AtomicU64::new(0),
            bytes_a2c: AtomicU64::new(0),
        });
        self.hub.flows.insert(Arc::clone(&entry));
        let flow = OpenFlow {
            flow_ref,
            connector: self.rules.connector.key.name.clone(),
            client_address: Some(self.address.to_string()),
            metadata,
            trace_parent: traces::trace_parent(&open).map(|parent| parent.to_string()),
            proxy_protocol: self.rules.proxy_protocol_out,
            terms,
            io,
            early,
            observer: Box::new(Carried::new(self, Arc::clone(&entry), carry, open)),
        };
        (flow, entry)
    }

    /// The agent is at another hub, and no link leads there.
    fn no_way_to(self, agent: &RemoteAgent) {
        debug!(
            connector = %self.rules.connector.key,
            agent_id = %agent.key,
            owner = %agent.owner,
            "the agent is at another hub"
        );
        self.denied_for("the connector's agents are at other hubs, and no link leads there");
    }

    fn no_agent(self) {
        let why = if self.tried.is_empty() {
            "no agent that is connected offers the connector"
        } else {
            "no agent that offers the connector took the flow"
        };
        self.denied_for(why);
    }

    fn denied_for(self, why: &'static str) {
        const CODE: DenialCode = DenialCode::NoAgentForConnector;
        traces::failed(&self.span, CODE.as_str());
        let _traced = self.span.enter();
        self.hub.denied.fetch_add(1, Ordering::Relaxed);
        // Leaves a record, so that `policy explain` can tell this client too.
        let denial = self.hub.authorizer().refuse_client(
            self.address,
            &self.rules.text,
            &self.rules.connector.name,
            Refused::by_hub(Why::NoAgent, CODE, why),
        );
        info!(
            event = events::NO_AGENT_FOR_CONNECTOR,
            listener = %self.rules.text,
            connector = %self.rules.connector.key,
            client = %self.address,
            tried = self.tried.len(),
            decision = %denial.decision,
            "no agent takes the client"
        );
        self.rules
            .connector
            .metrics
            .listener_error(ListenerError::Session);
    }

    fn log_denial(&self, denial: &Denial) {
        if denial.why == Why::Pdp {
            self.rules
                .connector
                .metrics
                .listener_error(ListenerError::Pdp);
        }
        traces::failed(&self.span, &denial.code);
        let _traced = self.span.enter();
        self.hub.denied.fetch_add(1, Ordering::Relaxed);
        info!(
            event = events::CONNECTION_DENIED,
            listener = %self.rules.text,
            connector = %self.rules.connector.key,
            client = %self.address,
            code = %denial.code,
            by = denial.by.as_deref().unwrap_or("hub"),
            decision = %denial.decision,
            "a client got no flow"
        );
    }
}

fn terms(rules: &Rules, permit: &OpenPermit) -> FlowTerms {
    let bounds = permit.terms();
    let idle = bounds
        .idle_seconds
        .map(|seconds| std::time::Duration::from_secs(u64::from(seconds)));
    FlowTerms {
        max_bytes: bounds.max_bytes,
        max_seconds: bounds.max_seconds,
        // A plugin may only shorten what the operator set.
        idle_timeout: idle.map_or(rules.times.idle_timeout, |idle| {
            idle.min(rules.times.idle_timeout)
        }),
        stall_timeout: rules.times.stall_timeout,
        linger: rules.times.linger,
    }
}

fn limited(message: &'static str) -> Refused {
    Refused::by_hub(Why::Limit, DenialCode::RateLimited, message)
}

/// An empty list lets everybody in.
fn allowed(nets: &[IpNet], address: std::net::IpAddr) -> bool {
    nets.is_empty() || nets.iter().any(|net| net.contains(&address))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    const IDLE: std::time::Duration = std::time::Duration::from_secs(60);
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(IDLE))
}
