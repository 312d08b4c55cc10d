//! The hub as the admin API sees it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use nowconnect_policy::{BundleArchive, Question, TrustedKeys};
use nowconnect_protocol::{AgentId, CloseCode, ConnectorName, ResetCode, Role, TenantName};
use serde_json::Value;

use crate::admin::UNSIGNED;
use crate::admin::view::{
    AdminAction, AdminCaller, AdminRefusal, AgentAddress, AgentAddressPage, AgentAddressQuery,
    AgentState, AgentStatus, BundlePush, ConnectorStatus, DrainProgress, DrainRequest,
    ExplainRequest, FlowPage, FlowQuery, FlowStatus, GenerationStatus, HubStatus, HubView,
    ListenerStatus, PluginStatus, RefusedConnector, ReloadReport, Totals, no_state,
};
use crate::authorize::{AdminSubject, policy_name, unix_ms};
use crate::bundle::board::Order;
use crate::bundle::state::Origin;
use crate::bundle::view::{
    ActivateReport, ActivateRequest, BundleStatus, DeliverReport, ShadowStatus,
};
use crate::certificates::view::CertificateStatus;
use crate::certificates::{self, Ask};
use crate::cluster::ClusterStatus;
use crate::drain::Phase;
use crate::flow_table::FlowEntry;
use crate::gateway::ask_reload;
use crate::hub::Hub;
use crate::registry::{AgentKey, ConnectorKey};
use crate::session::LiveTunnel;
use crate::telemetry::decisions::{DecisionAction, DecisionFilter, DecisionId, DecisionRecord};
use crate::telemetry::redact;

impl HubView for Hub {
    fn authorize<'a>(
        &'a self,
        caller: &'a AdminCaller,
        action: AdminAction,
        resource: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), AdminRefusal>> {
        let subject = match action {
            AdminAction::StagePolicy
            | AdminAction::ActivatePolicy
            | AdminAction::RollbackPolicy => bundle_subject(resource),
            AdminAction::Status
            | AdminAction::ListFlows
            | AdminAction::ReadAgentAddress
            | AdminAction::Explain
            | AdminAction::CloseFlow
            | AdminAction::KickAgent
            | AdminAction::Reload
            | AdminAction::SetLogLevel
            | AdminAction::Drain
            | AdminAction::ManageState => resource
                .and_then(|name| agent_key(name).ok())
                .map_or(AdminSubject::Hub, |key| {
                    AdminSubject::Agent(policy_name(&key.tenant, key.agent.as_str()))
                }),
        };
        let answer = self
            .authorizer
            .admin(caller, action, &subject)
            .map_err(|denial| AdminRefusal::Denied(denial.to_string()));
        ready(answer).boxed()
    }

    fn status(&self) -> BoxFuture<'_, HubStatus> {
        ready(self.status_now()).boxed()
    }

    fn agents(&self) -> BoxFuture<'_, Vec<AgentStatus>> {
        ready(self.agents_now()).boxed()
    }

    fn agent_addresses<'a>(
        &'a self,
        query: &'a AgentAddressQuery,
    ) -> BoxFuture<'a, Result<AgentAddressPage, AdminRefusal>> {
        ready(self.addresses_now(query)).boxed()
    }

    fn flows<'a>(&'a self, query: &'a FlowQuery) -> BoxFuture<'a, FlowPage> {
        ready(self.flows_now(query)).boxed()
    }

    fn close_flow<'a>(&'a self, flow: &'a str) -> BoxFuture<'a, Result<(), AdminRefusal>> {
        ready(self.close_flow_now(flow)).boxed()
    }

    fn generation(&self) -> BoxFuture<'_, GenerationStatus> {
        ready(self.generation_now()).boxed()
    }

    fn cluster(&self) -> ClusterStatus {
        self.cluster.status(&self.config())
    }

    fn certificates(&self) -> Vec<CertificateStatus> {
        certificates::all(self)
    }

    fn renew_certificate<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), AdminRefusal>> {
        self.renew_now(name).boxed()
    }

    fn reload(&self) -> BoxFuture<'_, ReloadReport> {
        ask_reload(self).boxed()
    }

    fn kick_agent<'a>(&'a self, agent: &'a str) -> BoxFuture<'a, Result<(), AdminRefusal>> {
        ready(self.kick_now(agent)).boxed()
    }

    fn drain<'a>(&'a self, request: &'a DrainRequest) -> BoxFuture<'a, Result<(), AdminRefusal>> {
        ready(self.drain_asked(request)).boxed()
    }

    fn drain_progress(&self, wait: Duration) -> BoxFuture<'_, DrainProgress> {
        async move {
            self.drains.follow(wait).await;
            let agents = number(self.router.agent_count());
            self.drains
                .progress(self.current_phase(), number(self.flows.len()), agents)
        }
        .boxed()
    }

    fn backup_state<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), AdminRefusal>> {
        async move {
            let plane = self.control().ok_or_else(no_state)?;
            let (plane, path) = (Arc::clone(plane), path.to_path_buf());
            let written = self.runtime.spawn_blocking(move || plane.backup(&path));
            match written.await {
                Ok(written) => written.map_err(|error| AdminRefusal::Invalid(error.to_string())),
                Err(_) => Err(AdminRefusal::Unavailable(
                    "writing the backup panicked; please report this".to_owned(),
                )),
            }
        }
        .boxed()
    }

    fn rotate_keys(&self, distrust: bool) -> BoxFuture<'_, Result<String, AdminRefusal>> {
        async move {
            let plane = Arc::clone(self.control().ok_or_else(no_state)?);
            let rotated = self.runtime.spawn_blocking(move || plane.rotate(distrust));
            match rotated.await {
                Ok(rotated) => {
                    rotated.map_err(|error| AdminRefusal::Unavailable(error.to_string()))
                }
                Err(_) => Err(AdminRefusal::Unavailable(
                    "changing the keys panicked; please report this".to_owned(),
                )),
            }
        }
        .boxed()
    }

    fn explain<'a>(
        &'a self,
        request: &'a ExplainRequest,
    ) -> BoxFuture<'a, Result<Value, AdminRefusal>> {
        ready(self.explain_now(request)).boxed()
    }

    fn bundles(&self) -> BundleStatus {
        self.bundles.status().as_ref().clone()
    }

    fn shadow(&self) -> ShadowStatus {
        let report = self.authorizer.shadow().report();
        report.map_or_else(ShadowStatus::default, ShadowStatus::from)
    }

    fn max_bundle_bytes(&self) -> u64 {
        let config = self.config();
        config
            .policy
            .bundle
            .as_ref()
            .map_or(0, |bundle| bundle.max_bytes)
    }

    fn trusted_keys(&self) -> TrustedKeys {
        let config = self.config();
        let bundle = config.policy.bundle.as_ref();
        bundle.map_or_else(TrustedKeys::default, |bundle| bundle.trusted.clone())
    }

    fn push_bundle(
        &self,
        archive: BundleArchive,
        push: BundlePush,
    ) -> BoxFuture<'_, Result<DeliverReport, AdminRefusal>> {
        let origin = if push.rollback {
            Origin::Rollback
        } else {
            Origin::Push
        };
        async move {
            let order = self.bundles.order(|answer| Order::Deliver {
                archive: Box::new(archive),
                origin,
                stage_only: push.stage_only,
                answer,
            });
            let mut report = order.await?;
            if let Some(activation) = &mut report.activation {
                self.settle(activation).await;
            }
            Ok(report)
        }
        .boxed()
    }

    fn activate_bundle<'a>(
        &'a self,
        request: &'a ActivateRequest,
    ) -> BoxFuture<'a, Result<ActivateReport, AdminRefusal>> {
        async move {
            let order = self.bundles.order(|answer| Order::Activate {
                request: request.clone(),
                answer,
            });
            let mut report = order.await?;
            self.settle(&mut report).await;
            Ok(report)
        }
        .boxed()
    }

    fn discard_bundle(&self) -> BoxFuture<'_, Result<u64, AdminRefusal>> {
        async move {
            Ok(self
                .bundles
                .order(|answer| Order::Discard { answer })
                .await?)
        }
        .boxed()
    }

    fn bundle_bytes(&self, revision: u64) -> BoxFuture<'_, Result<Vec<u8>, AdminRefusal>> {
        async move {
            let order = self
                .bundles
                .order(|answer| Order::Read { revision, answer });
            Ok(order.await?)
        }
        .boxed()
    }
}

/// `REVISION` or `REVISION unsigned`; without either, whatever it is.
fn bundle_subject(resource: Option<&str>) -> AdminSubject {
    let text = resource.unwrap_or_default();
    let (revision, signed) = match text.strip_suffix(UNSIGNED) {
        Some(revision) => (revision, false),
        None => (text, true),
    };
    AdminSubject::Bundle {
        revision: revision.parse().unwrap_or(0),
        signed: signed && !revision.is_empty(),
    }
}

impl Hub {
    async fn renew_now(&self, name: &str) -> Result<(), AdminRefusal> {
        let busy = || AdminRefusal::Unavailable("too much was asked for; try again".to_owned());
        let (known, answered) = tokio::sync::oneshot::channel();
        let ask = Ask {
            name: name.to_ascii_lowercase(),
            known,
        };
        if !self.ingress.issued().ask(ask) {
            return Err(busy());
        }
        match answered.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(AdminRefusal::NotFound {
                what: "issued certificate",
                name: name.to_owned(),
            }),
            Err(_) => Err(busy()),
        }
    }

    /// Waits a moment for the re-check that an activation ordered, and reports what it did.
    async fn settle(&self, report: &mut ActivateReport) {
        let Some(begun) = &report.recheck else {
            return;
        };
        let recheck = self.rounds.settled(begun.round).await;
        report.flows_closed = recheck.flows_closed;
        report.sessions_closed = recheck.sessions_closed;
        report.connectors_lost = recheck.connectors_lost;
        report.recheck = Some(recheck);
    }

    fn status_now(&self) -> HubStatus {
        let (bytes_c2a, bytes_a2c) = self.metrics.traffic.bytes_total();
        let tunnels = self.router.agent_count();
        let detached = self.parked.len();
        HubStatus {
            hub: self.replica.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.uptime().as_secs(),
            readiness: self.readiness(),
            generation: self.generation_now(),
            listeners: self.listeners_now(),
            http: crate::ingress::status(self),
            tunnel_address: self.tunnel_address.load().as_deref().copied(),
            totals: Totals {
                agents: number(tunnels + detached),
                tunnels: number(tunnels),
                sessions_detached: number(detached),
                flows: number(self.flows.len()),
                flows_total: self.flows.opened(),
                denied_total: self.denied.load(Ordering::Relaxed),
                bytes_c2a,
                bytes_a2c,
            },
        }
    }

    fn listeners_now(&self) -> Vec<ListenerStatus> {
        let ports = self.ports.lock().clone();
        ports
            .iter()
            .map(|port| {
                let rules = port.rules();
                let agents = self
                    .router
                    .pool(&rules.connector.key)
                    .map_or(0, |pool| pool.len());
                ListenerStatus {
                    name: rules.text.to_string(),
                    address: port.address,
                    connector: rules.connector.key.to_string(),
                    agents: number(agents),
                    flows: number(rules.open_flows()),
                }
            })
            .collect()
    }

    pub(crate) fn agents_now(&self) -> Vec<AgentStatus> {
        let mut flows: HashMap<(AgentKey, ConnectorName), u64> = HashMap::new();
        for entry in self.flows.collect(|_| true) {
            let key = (entry.agent.clone(), entry.connector.name.clone());
            *flows.entry(key).or_default() += 1;
        }
        let of = |agent: &AgentKey, connector: &ConnectorName| ConnectorStatus {
            name: connector.to_string(),
            flows: flows
                .get(&(agent.clone(), connector.clone()))
                .copied()
                .unwrap_or(0),
            down: self.why_down(agent, connector),
        };
        let mut agents: Vec<AgentStatus> = self
            .router
            .tunnels()
            .iter()
            .map(|(tunnel, connectors)| live_agent(tunnel, connectors, of))
            .collect();
        agents.extend(self.parked.agents().iter().map(|agent| {
            let connectors: BTreeMap<&ConnectorName, u64> = flows
                .iter()
                .filter(|((owner, _), _)| owner == agent)
                .map(|((_, connector), flows)| (connector, *flows))
                .collect();
            parked_agent(agent, &connectors)
        }));
        agents.sort_by(|a, b| a.agent.cmp(&b.agent));
        agents
    }

    /// Why the target of a connector counts as down behind an agent, where it does.
    fn why_down(&self, agent: &AgentKey, connector: &ConnectorName) -> Option<String> {
        let key = ConnectorKey {
            tenant: agent.tenant.clone(),
            name: connector.clone(),
        };
        let connector = self.connectors.find(&key)?;
        connector.down().of(agent).map(|down| down.why.clone())
    }

    fn flows_now(&self, query: &FlowQuery) -> FlowPage {
        let mut selected = self.flows.collect(|entry| {
            query.selects(
                &entry.agent.to_string(),
                &entry.connector.to_string(),
                entry.client,
            )
        });
        let total = number(selected.len());
        selected.reverse();
        selected.truncate(query.effective_limit());
        FlowPage {
            flows: selected.iter().map(|entry| flow_status(entry)).collect(),
            selected: total,
        }
    }

    pub(crate) fn close_flow_now(&self, flow: &str) -> Result<(), AdminRefusal> {
        let missing = || AdminRefusal::NotFound {
            what: "flow",
            name: flow.to_owned(),
        };
        let number = flow
            .rsplit('.')
            .next()
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| {
                AdminRefusal::Invalid(format!("`{flow}` is no flow: it looks like `hub.1f.42`"))
            })?;
        let entry = self
            .flows
            .find(number)
            .filter(|entry| entry.flow_ref.to_string() == flow)
            .ok_or_else(missing)?;
        let tunnel = self.router.tunnel_of(&entry.agent).ok_or_else(missing)?;
        if tunnel.close_flow(entry.flow_ref.clone(), ResetCode::OperatorClosed, "") {
            Ok(())
        } else {
            Err(AdminRefusal::Unavailable(
                "the tunnel has too much to do; try again".to_owned(),
            ))
        }
    }

    fn generation_now(&self) -> GenerationStatus {
        let generation = self.generations.current();
        let bundles = self.bundles.status();
        GenerationStatus {
            number: generation.number(),
            activated_ms: unix_ms(generation.built_at()),
            digest: generation.policies().digest().to_owned(),
            policies: number(generation.policies().policy_count()),
            plugins: generation
                .plugins()
                .status()
                .into_iter()
                .map(|plugin| PluginStatus {
                    name: plugin.name,
                    digest: plugin.digest,
                    hooks: plugin.hooks.iter().map(ToString::to_string).collect(),
                    quarantined: plugin.quarantined,
                })
                .collect(),
            policy_revision: generation.revision(),
            staged_revision: bundles.staged.as_ref().map(|entry| entry.revision),
            last_errors: self.last_errors.load().as_ref().clone(),
            recheck: self.rounds.status(),
        }
    }

    fn drain_asked(&self, request: &DrainRequest) -> Result<(), AdminRefusal> {
        let already = || AdminRefusal::Unavailable("the hub is draining already".to_owned());
        if self.current_phase() >= Phase::Draining {
            return Err(already());
        }
        let within = request
            .deadline_ms
            .map_or_else(|| self.config().tunnel.drain_timeout, Duration::from_millis);
        self.end.try_send(within).map_err(|_| already())
    }

    pub(crate) fn kick_now(&self, agent: &str) -> Result<(), AdminRefusal> {
        let key = agent_key(agent)?;
        let parked = self.parked.end(|parked, _| *parked == key);
        match self.router.tunnel_of(&key) {
            Some(tunnel) => {
                let reason = "an operator ended the session";
                crate::session::end_session(self, &tunnel, CloseCode::Shutdown, reason);
                Ok(())
            }
            None if parked > 0 => Ok(()),
            None => Err(AdminRefusal::NotFound {
                what: "agent",
                name: agent.to_owned(),
            }),
        }
    }

    fn addresses_now(&self, query: &AgentAddressQuery) -> Result<AgentAddressPage, AdminRefusal> {
        let Some(text) = &query.decision else {
            return Ok(self.addresses.of(query.agent.as_deref(), query.at_ms));
        };
        let id: DecisionId = text
            .parse()
            .map_err(|error| AdminRefusal::Invalid(format!("`{text}`: {error}")))?;
        let missing = || AdminRefusal::NotFound {
            what: "decision about an agent",
            name: text.clone(),
        };
        let record = self.decisions.by_id(id).ok_or_else(missing)?;
        // Its own question, which it may have been denied: there is no tunnel then.
        if let Some(address) = record.agent_address {
            let agent = record.agent.as_deref().unwrap_or(&record.principal);
            return Ok(AgentAddressPage {
                addresses: vec![AgentAddress {
                    agent: agent.to_owned(),
                    session: None,
                    address,
                    since_ms: record.time_ms,
                }],
                forgotten: 0,
            });
        }
        let agent = record.agent.as_deref().ok_or_else(missing)?;
        Ok(self.addresses.of(Some(agent), Some(record.time_ms)))
    }

    /// What ended a flow where a re-check did, and else what let it in, as long as it runs.
    fn decision_about(&self, flow: &str) -> Option<Arc<DecisionRecord>> {
        let about = DecisionFilter {
            flow: Some(flow),
            ..DecisionFilter::default()
        };
        if let Some(record) = self.decisions.recent(&about, 1).pop() {
            return Some(record);
        }
        let number = flow.rsplit('.').next()?.parse().ok()?;
        let entry = self.flows.find(number)?;
        (entry.flow_ref.to_string() == flow)
            .then(|| self.decisions.by_id(entry.decision))
            .flatten()
    }

    fn explain_now(&self, request: &ExplainRequest) -> Result<Value, AdminRefusal> {
        let generation = self.generations.current();
        let policies = generation.policies();
        let asked = (
            &request.decision,
            &request.client,
            &request.flow,
            &request.question,
        );
        let mut explanation = match asked {
            (None, None, None, Some(question)) => policies
                .explain_json(&question.to_string())
                .map_err(AdminRefusal::Invalid)?,
            (Some(id), None, None, None) => {
                let id: DecisionId = id.parse().map_err(
                    |error: crate::telemetry::decisions::ParseDecisionIdError| {
                        AdminRefusal::Invalid(error.to_string())
                    },
                )?;
                let record = self
                    .decisions
                    .by_id(id)
                    .ok_or_else(|| AdminRefusal::NotFound {
                        what: "decision",
                        name: id.to_string(),
                    })?;
                return self.explain_record(&record);
            }
            (None, Some(client), None, None) => {
                let filter = client_filter(client)?;
                // The operator who asks may sit at the client's address; his own calls, this
                // one among them, are not what he asks about.
                let record = self
                    .decisions
                    .recent(&filter, usize::MAX)
                    .into_iter()
                    .find(|record| record.action != DecisionAction::Admin)
                    .ok_or_else(|| AdminRefusal::NotFound {
                        what: "decision about client",
                        name: client.clone(),
                    })?;
                return self.explain_record(&record);
            }
            (None, None, Some(flow), None) => {
                let record = self
                    .decision_about(flow)
                    .ok_or_else(|| AdminRefusal::NotFound {
                        what: "decision about flow",
                        name: flow.clone(),
                    })?;
                return self.explain_record(&record);
            }
            _ => {
                return Err(AdminRefusal::Invalid(
                    "give one of `decision`, `client`, `flow` and `question`".to_owned(),
                ));
            }
        };
        explanation.decision.generation = generation.number();
        Ok(shown(&explanation, None))
    }

    /// What was decided then, and what the policies in force say to the same question.
    fn explain_record(&self, record: &Arc<DecisionRecord>) -> Result<Value, AdminRefusal> {
        let question = record
            .question
            .as_ref()
            .and_then(|kept| kept.downcast::<Question>());
        let Some(question) = question else {
            // A limit or an address rule: the policies were not asked.
            return Ok(shown(&Value::Null, Some(record)));
        };
        let generation = self.generations.current();
        let mut explanation = generation
            .policies()
            .explain(self.authorizer.facts(), &question);
        explanation.decision.generation = generation.number();
        Ok(shown(&explanation, Some(record)))
    }
}

/// The answer of `explain`, through the redaction step.
fn shown(explanation: &impl serde::Serialize, record: Option<&Arc<DecisionRecord>>) -> Value {
    let mut answer = serde_json::json!({
        "explanation": serde_json::to_value(explanation).unwrap_or(Value::Null),
        "record": record.map(|record| serde_json::to_value(record.as_ref()).unwrap_or(Value::Null)),
    });
    redact_texts(&mut answer);
    answer
}

fn redact_texts(value: &mut Value) {
    match value {
        Value::String(text) => redact::in_place(text),
        Value::Array(values) => values.iter_mut().for_each(redact_texts),
        Value::Object(fields) => fields.values_mut().for_each(redact_texts),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn client_filter(client: &str) -> Result<DecisionFilter<'static>, AdminRefusal> {
    let (ip, port) = match client.parse::<SocketAddr>() {
        Ok(address) => (address.ip(), Some(address.port())),
        Err(_) => match client.parse::<IpAddr>() {
            Ok(ip) => (ip, None),
            Err(_) => {
                return Err(AdminRefusal::Invalid(format!(
                    "`{client}` is neither an address nor an address with a port"
                )));
            }
        },
    };
    Ok(DecisionFilter {
        client_ip: Some(ip),
        client_port: port,
        ..DecisionFilter::default()
    })
}

pub(crate) fn agent_key(text: &str) -> Result<AgentKey, AdminRefusal> {
    let invalid = |error: nowconnect_protocol::NameError| AdminRefusal::Invalid(error.to_string());
    let (tenant, agent) = match text.split_once('/') {
        Some((tenant, agent)) => (TenantName::parse(tenant).map_err(invalid)?, agent),
        None => (TenantName::default(), text),
    };
    Ok(AgentKey {
        tenant,
        agent: AgentId::parse(agent).map_err(invalid)?,
    })
}

fn live_agent(
    tunnel: &LiveTunnel,
    connectors: &[ConnectorName],
    connector: impl Fn(&AgentKey, &ConnectorName) -> ConnectorStatus,
) -> AgentStatus {
    let stats = tunnel.stats();
    let standing = tunnel.standing();
    AgentStatus {
        agent: tunnel.key.to_string(),
        session: tunnel.session,
        state: if tunnel.is_closing() {
            AgentState::Draining
        } else {
            AgentState::Up
        },
        role: match tunnel.role {
            Role::Primary => "primary".to_owned(),
            Role::Standby => "standby".to_owned(),
        },
        network: Some(redact::network_of(tunnel.remote.ip())),
        version: tunnel.agent_version.clone(),
        connectors: connectors
            .iter()
            .map(|name| connector(&tunnel.key, name))
            .collect(),
        refused: standing
            .refused
            .iter()
            .map(|refusal| RefusedConnector {
                name: refusal.connector.to_string(),
                code: refusal.code.clone(),
                decision: refusal.decision.clone(),
            })
            .collect(),
        tunnel_seconds: tunnel.since.elapsed().as_secs(),
        rtt_us: (stats.rtt_us > 0).then_some(u64::from(stats.rtt_us)),
        flows: u64::from(stats.flows),
        bytes_c2a: stats.bytes_c2a,
        bytes_a2c: stats.bytes_a2c,
        token_expires_seconds: Some(seconds_until(standing.identity.expires_at)),
        labels: tunnel.labels.iter().cloned().collect(),
    }
}

fn parked_agent(agent: &AgentKey, connectors: &BTreeMap<&ConnectorName, u64>) -> AgentStatus {
    AgentStatus {
        agent: agent.to_string(),
        session: 0,
        state: AgentState::Detached,
        role: "primary".to_owned(),
        network: None,
        version: String::new(),
        connectors: connectors
            .iter()
            .map(|(name, flows)| ConnectorStatus {
                name: name.to_string(),
                flows: *flows,
                down: None,
            })
            .collect(),
        refused: Vec::new(),
        tunnel_seconds: 0,
        rtt_us: None,
        flows: connectors.values().sum(),
        bytes_c2a: 0,
        bytes_a2c: 0,
        token_expires_seconds: None,
        labels: BTreeMap::new(),
    }
}

fn flow_status(entry: &FlowEntry) -> FlowStatus {
    FlowStatus {
        flow: entry.flow_ref.to_string(),
        connector: entry.connector.to_string(),
        agent: entry.agent.to_string(),
        listener: entry.listener.to_string(),
        client: entry.client,
        age_seconds: entry.opened.elapsed().as_secs(),
        bytes_c2a: entry.bytes_c2a.load(Ordering::Relaxed),
        bytes_a2c: entry.bytes_a2c.load(Ordering::Relaxed),
        generation: entry.generation.load(Ordering::Relaxed),
        decision: entry.decision.to_string(),
    }
}

fn seconds_until(time: SystemTime) -> i64 {
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::now()) {
        Ok(left) => seconds(left),
        Err(past) => -seconds(past.duration()),
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
