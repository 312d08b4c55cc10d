//! A question becomes a request of the engine, with just the entities that it needs.
//!
//! Policies are checked to follow at most one reference (level 1), so principal, resource,
//! action and the entities named in the context are all that an evaluation can look at.

use std::sync::Arc;

use cedar_policy::{Context, Entities, EntityUid, Request, RestrictedExpression, Schema};

use crate::context::{ContextReaders, Part, Parts};
use crate::core_schema::{Action, CoreVersion};
use crate::diagnostic::with_causes;
use crate::facts::{Facts, Tables};
use crate::groups::Groups;
use crate::question::{
    Admin, AdminDeed, AdminTarget, Announce, EndpointCreate, Hello, Http, HttpRequest, MeshForward,
    MeshJoin, Meta, Net, Open, Question, Signals, Tls, UpstreamOpen, Viewer,
};
use crate::row::{Row, agent_uid, attribute, connector_uid, long, string, strings};
use crate::slices::Slices;
use crate::time::datetime;
use crate::vocabulary::Vocabulary;
use crate::{AgentFacts, ConnectorFacts, Name};

/// A question, ready for the engine.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) action: &'static Action,
    pub(crate) principal: Arc<Row>,
    pub(crate) resource: Arc<Row>,
    pub(crate) request: Request,
    pub(crate) entities: Arc<Entities>,
}

/// What the questions of one HELLO have in common.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    agent: Option<(Arc<AgentFacts>, Arc<Row>)>,
}

/// Why a question cannot be asked; a sentence for the log.
type Unanswerable = String;

impl Asked {
    pub(crate) fn new(
        question: &Question,
        facts: &Facts,
        kit: Kit<'_>,
        shared: &mut Shared,
    ) -> Result<Self, Unanswerable> {
        let action = kit
            .vocabulary
            .action(action_of(question, kit.vocabulary.core.version))
            .ok_or_else(|| "the schema has no such action".to_owned())?;
        let mut form = Form {
            read: kit
                .readers
                .map_or(Parts::ALL, |readers| readers.of_action(&action.uid)),
            tables: &facts.read(),
            kit,
            context: Vec::with_capacity(8),
            rows: Vec::with_capacity(8),
            lasting: true,
        };
        let (principal, resource) = match question {
            Question::Hello(hello) => form.hello(hello, shared)?,
            Question::Announce(announce) => form.announce(announce, shared)?,
            Question::EndpointCreate(create) => form.endpoint_create(create, shared)?,
            Question::Open(open) => form.open(open)?,
            Question::HttpRequest(request) => form.http_request(request)?,
            Question::UpstreamOpen(open) => form.upstream_open(open)?,
            Question::MeshJoin(join) => form.mesh_join(join)?,
            Question::MeshForward(forward) => form.mesh_forward(forward)?,
            Question::Admin(admin) => form.admin(admin)?,
        };
        form.finish(action, principal, resource)
    }
}

/// What a bundle has for making questions ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kit<'a> {
    pub(crate) vocabulary: &'a Vocabulary,
    pub(crate) groups: &'a Groups,
    pub(crate) slices: &'a Slices,
    /// Which parts of the context policies read; `None` gives all to all requests.
    pub(crate) readers: Option<&'a ContextReaders>,
    pub(crate) generation: u64,
}

/// Principal and resource.
type Scope = (Arc<Row>, Arc<Row>);

/// A request being filled in.
struct Form<'a> {
    tables: &'a Tables,
    kit: Kit<'a>,
    /// The parts of the context that some policy about this action reads.
    read: Parts,
    context: Vec<(Part, RestrictedExpression)>,
    /// What the context names.
    rows: Vec<Arc<Row>>,
    /// Whether all rows are likely to be met again.
    lasting: bool,
}

impl Form<'_> {
    fn finish(
        mut self,
        action: &'static Action,
        principal: Arc<Row>,
        resource: Arc<Row>,
    ) -> Result<Asked, Unanswerable> {
        self.rows.push(Arc::clone(&principal));
        self.rows.push(Arc::clone(&resource));
        // Requests have the schema's shape by construction. Checking each one again would cost
        // a third of a decision, so that is done where tests run.
        if cfg!(debug_assertions) {
            let whole = self.context.clone();
            let schema = &self.kit.vocabulary.schema;
            request(&principal, action, &resource, whole, Some(schema))?;
        }
        if cfg!(debug_assertions) {
            let read = self.read;
            self.context.retain(|(part, _)| read.has(*part));
        }
        let request = request(&principal, action, &resource, self.context, None)?;
        let entities = self.kit.slices.of(action, self.rows, self.lasting)?;
        Ok(Asked {
            action,
            principal,
            resource,
            request,
            entities,
        })
    }

    fn hello(&mut self, hello: &Hello, shared: &mut Shared) -> Result<Scope, Unanswerable> {
        let agent = self.proven_agent(&hello.agent, shared);
        let node = self.node(&hello.meta.hub);
        self.net(&hello.net)?;
        self.meta(&hello.meta);
        self.fact(Part::Claimed, || entity(&agent_uid(&hello.claimed)));
        self.fact(Part::AgentVersion, || string(&hello.agent_version));
        self.fact(Part::Announced, || {
            let announced = hello.announced.iter();
            RestrictedExpression::new_set(announced.map(|name| entity(&connector_uid(name))))
        });
        self.fact(Part::Replacing, || boolean(hello.replacing));
        if hello.claimed != hello.agent.agent
            && let Some(row) = self.tables.agents.get(&hello.claimed)
        {
            self.rows.push(self.kit.groups.join(Arc::clone(row)));
        }
        Ok((agent, node))
    }

    fn announce(
        &mut self,
        announce: &Announce,
        shared: &mut Shared,
    ) -> Result<Scope, Unanswerable> {
        let agent = self.proven_agent(&announce.agent, shared);
        let connector = match self.tables.connectors.get(&announce.connector) {
            Some(row) => Arc::clone(row),
            None => Arc::new(Row::connector(&ConnectorFacts::tcp(
                announce.connector.clone(),
            ))),
        };
        let connector = self.kit.groups.join(connector);
        self.net(&announce.net)?;
        self.meta(&announce.meta);
        self.fact(Part::ScopesRequired, || boolean(announce.scopes_required));
        Ok((agent, connector))
    }

    fn endpoint_create(
        &mut self,
        create: &EndpointCreate,
        shared: &mut Shared,
    ) -> Result<Scope, Unanswerable> {
        let agent = self.proven_agent(&create.agent, shared);
        let endpoint = self
            .kit
            .groups
            .join(Arc::new(Row::endpoint(&create.endpoint)));
        self.net(&create.net)?;
        self.meta(&create.meta);
        self.fact(Part::OpenEndpoints, || long(create.open_endpoints.into()));
        Ok((agent, endpoint))
    }

    fn open(&mut self, open: &Open) -> Result<Scope, Unanswerable> {
        let viewer = self.viewer(&open.viewer);
        let connector = self.connector(&open.connector)?;
        self.net(&open.net)?;
        self.meta(&open.meta);
        self.agent(&open.agent)?;
        self.fact(Part::OpenFlows, || long(open.open_flows.into()));
        self.fact(Part::ViaMesh, || boolean(open.via_mesh));
        self.signals(&open.signals);
        Ok((viewer, connector))
    }

    fn http_request(&mut self, request: &HttpRequest) -> Result<Scope, Unanswerable> {
        let viewer = self.viewer(&request.viewer);
        let endpoint = self
            .tables
            .endpoints
            .get(&request.endpoint)
            .ok_or_else(|| missing("endpoint", &request.endpoint))?;
        let endpoint = self.kit.groups.join(Arc::clone(endpoint));
        let connector = self.connector(&request.connector)?;
        self.net(&request.net)?;
        self.meta(&request.meta);
        self.agent(&request.agent)?;
        self.fact(Part::Connector, || entity(&connector.uid));
        self.rows.push(Arc::clone(&connector));
        self.fact(Part::Http, || http(&request.http));
        self.signals(&request.signals);
        Ok((viewer, endpoint))
    }

    fn upstream_open(&mut self, open: &UpstreamOpen) -> Result<Scope, Unanswerable> {
        let node = self.node(&open.meta.hub);
        let connector = self.connector(&open.connector)?;
        self.meta(&open.meta);
        self.agent(&open.agent)?;
        self.fact(Part::Why, || string(&open.why));
        Ok((node, connector))
    }

    fn mesh_join(&mut self, join: &MeshJoin) -> Result<Scope, Unanswerable> {
        let peer = self.node(&join.peer);
        let hub = self.node(&join.meta.hub);
        self.net(&join.net)?;
        self.meta(&join.meta);
        Ok((peer, hub))
    }

    fn mesh_forward(&mut self, forward: &MeshForward) -> Result<Scope, Unanswerable> {
        let origin = self.node(&forward.origin);
        let connector = self.connector(&forward.connector)?;
        let viewer = self.viewer(&forward.viewer);
        self.net(&forward.net)?;
        self.meta(&forward.meta);
        self.agent(&forward.agent)?;
        let replica = self.node(&forward.epoch_replica);
        self.fact(Part::Epoch, || {
            record(vec![
                attribute("counter", long(forward.epoch_counter)),
                attribute("replica", entity(&replica.uid)),
            ])
        });
        self.rows.push(Arc::clone(&replica));
        self.fact(Part::OriginViewer, || entity(&viewer.uid));
        self.rows.push(Arc::clone(&viewer));
        self.fact(Part::OriginGeneration, || long(forward.origin_generation));
        self.signals(&forward.signals);
        Ok((origin, connector))
    }

    fn admin(&mut self, admin: &Admin) -> Result<Scope, Unanswerable> {
        self.lasting = false;
        let operator = self
            .kit
            .groups
            .join(Arc::new(Row::operator(&admin.operator)));
        let target = if self.speaks_of_node(admin.deed) {
            self.target(&admin.target)?
        } else {
            Arc::new(Row::policy_bundle(
                &Name::bare("hub"),
                self.kit.generation,
                false,
            ))
        };
        self.net(&admin.net)?;
        self.meta(&admin.meta);
        Ok((operator, target))
    }

    /// Whether the deed is asked on the hub itself, or in a core that has no word for it on what
    /// stands for it: see [`deed`].
    fn speaks_of_node(&self, deed: AdminDeed) -> bool {
        self.kit.vocabulary.core.version > CoreVersion::V1
            || !matches!(
                deed,
                AdminDeed::CloseFlow
                    | AdminDeed::ReadAgentAddress
                    | AdminDeed::Reload
                    | AdminDeed::SetLogLevel
                    | AdminDeed::Drain
                    | AdminDeed::ManageState
            )
    }

    fn target(&self, target: &AdminTarget) -> Result<Arc<Row>, Unanswerable> {
        let (table, name, what) = match target {
            AdminTarget::Node(replica) => return Ok(self.node(replica)),
            AdminTarget::PolicyBundle {
                bundle,
                revision,
                signed,
            } => {
                return Ok(Arc::new(Row::policy_bundle(bundle, *revision, *signed)));
            }
            AdminTarget::Plugin {
                plugin,
                digest,
                signed,
            } => {
                return Ok(Arc::new(Row::plugin(plugin, digest, *signed)));
            }
            AdminTarget::Published(endpoint) => {
                return Ok(self.kit.groups.join(Arc::new(Row::endpoint(endpoint))));
            }
            AdminTarget::KnownAgent(agent) => {
                return Ok(self.kit.groups.join(Arc::new(Row::agent(agent))));
            }
            AdminTarget::Endpoint(name) => (&self.tables.endpoints, name, "endpoint"),
            AdminTarget::Connector(name) => (&self.tables.connectors, name, "connector"),
            AdminTarget::Agent(name) => (&self.tables.agents, name, "agent"),
        };
        let row = table.get(name).ok_or_else(|| missing(what, name))?;
        Ok(self.kit.groups.join(Arc::clone(row)))
    }

    /// Makes a part of the context, if a policy reads it. Where tests run all are made, so that
    /// each is held against the schema.
    fn fact(&mut self, part: Part, value: impl FnOnce() -> RestrictedExpression) {
        if cfg!(debug_assertions) || self.read.has(part) {
            self.context.push((part, value()));
        }
    }

    fn proven_agent(&mut self, agent: &Arc<AgentFacts>, shared: &mut Shared) -> Arc<Row> {
        self.lasting = false;
        if let Some((facts, row)) = &shared.agent
            && Arc::ptr_eq(facts, agent)
        {
            return Arc::clone(row);
        }
        let row = self.kit.groups.join(Arc::new(Row::agent(agent)));
        shared.agent = Some((Arc::clone(agent), Arc::clone(&row)));
        row
    }

    fn agent(&mut self, name: &Name) -> Result<(), Unanswerable> {
        let row = self
            .tables
            .agents
            .get(name)
            .ok_or_else(|| missing("agent", name))?;
        let row = self.kit.groups.join(Arc::clone(row));
        self.fact(Part::Agent, || entity(&row.uid));
        self.rows.push(Arc::clone(&row));
        Ok(())
    }

    fn connector(&self, name: &Name) -> Result<Arc<Row>, Unanswerable> {
        let row = self
            .tables
            .connectors
            .get(name)
            .ok_or_else(|| missing("connector", name))?;
        Ok(self.kit.groups.join(Arc::clone(row)))
    }

    fn viewer(&self, viewer: &Viewer) -> Arc<Row> {
        match viewer {
            Viewer::Anonymous => Row::anonymous(),
            Viewer::Known(facts) => self.kit.groups.join(self.kit.slices.viewer(facts)),
        }
    }

    fn node(&self, replica: &str) -> Arc<Row> {
        self.kit.groups.join(self.kit.slices.node(replica))
    }

    fn net(&mut self, net: &Net) -> Result<(), Unanswerable> {
        let row = self
            .tables
            .listeners
            .get(&net.listener)
            .ok_or_else(|| missing("listener", &net.listener))?;
        self.rows.push(Arc::clone(row));
        let slices = self.kit.slices;
        self.fact(Part::Net, || {
            let mut fields = vec![
                attribute("srcIp", slices.address(net.source_ip)),
                attribute("srcPort", long(net.source_port.into())),
                attribute("listener", entity(&row.uid)),
            ];
            fields.extend(
                net.tls
                    .as_ref()
                    .map(|tls| attribute("tls", tls_record(tls))),
            );
            record(fields)
        });
        Ok(())
    }

    fn meta(&mut self, meta: &Meta) {
        let hub = self.node(&meta.hub);
        self.rows.push(Arc::clone(&hub));
        let core = self.kit.vocabulary.core.version;
        self.fact(Part::Meta, || {
            let mut fields = vec![
                attribute("now", datetime(meta.now_ms)),
                attribute("hub", entity(&hub.uid)),
                attribute("requestId", string(&meta.request_id)),
            ];
            let trace_id = meta.trace_id.as_deref();
            fields.extend(trace_id.map(|id| attribute("traceId", string(id))));
            if core > CoreVersion::V1 {
                fields.push(attribute("recheck", boolean(meta.recheck)));
            }
            record(fields)
        });
    }

    fn signals(&mut self, signals: &Signals) {
        self.fact(Part::Signals, || strings(&signals.present));
        self.fact(Part::SignalsMissing, || strings(&signals.missing));
    }
}

fn request(
    principal: &Row,
    action: &Action,
    resource: &Row,
    context: Vec<(Part, RestrictedExpression)>,
    schema: Option<&Schema>,
) -> Result<Request, Unanswerable> {
    let context = context
        .into_iter()
        .map(|(part, value)| attribute(part.name(), value));
    let context = Context::from_pairs(context).map_err(|error| with_causes(&error))?;
    Request::new(
        principal.uid.clone(),
        action.uid.clone(),
        resource.uid.clone(),
        context,
        schema,
    )
    .map_err(|error| with_causes(&error))
}

fn missing(what: &str, name: &Name) -> Unanswerable {
    format!("{what} `{name}` is not known to this hub")
}

/// A record of fields whose names stand in this module, each once.
fn record(fields: Vec<(String, RestrictedExpression)>) -> RestrictedExpression {
    RestrictedExpression::new_record(fields).expect("the names of a record's fields differ")
}

fn entity(uid: &EntityUid) -> RestrictedExpression {
    RestrictedExpression::new_entity_uid(uid.clone())
}

fn boolean(value: bool) -> RestrictedExpression {
    RestrictedExpression::new_bool(value)
}

fn tls_record(tls: &Tls) -> RestrictedExpression {
    let mut fields = vec![attribute("version", string(&tls.version))];
    let sni = tls.sni.as_deref();
    fields.extend(sni.map(|sni| attribute("sni", string(sni))));
    let san = tls.client_san.as_deref();
    fields.extend(san.map(|san| attribute("clientSan", string(san))));
    record(fields)
}

fn http(http: &Http) -> RestrictedExpression {
    record(vec![
        attribute("method", string(&http.method)),
        attribute("host", string(&http.host)),
        attribute("path", string(&http.path)),
        attribute("headers", strings(&http.header_names)),
    ])
}

fn action_of(question: &Question, core: CoreVersion) -> &'static str {
    match question {
        Question::Hello(_) => "hello",
        Question::Announce(_) => "announce",
        Question::EndpointCreate(_) => "endpoint-create",
        Question::Open(_) => "open",
        Question::HttpRequest(_) => "http-request",
        Question::UpstreamOpen(_) => "upstream-open",
        Question::MeshJoin(_) => "mesh-join",
        Question::MeshForward(_) => "mesh-forward",
        Question::Admin(admin) => deed(admin.deed, core),
    }
}

/// The action of a deed. The first core had no words for some: whoever may see the state of the
/// hub may see its flows there, and whoever may put a generation in force may do the rest.
fn deed(deed: AdminDeed, core: CoreVersion) -> &'static str {
    match deed {
        // Whoever may change all that counts could see it anyway.
        AdminDeed::ReadAgentAddress if core == CoreVersion::V1 => "admin-activate-policy",
        AdminDeed::ReadAgentAddress => "admin-read-agent-address",
        AdminDeed::ListFlows | AdminDeed::ListQuotas if core == CoreVersion::V1 => "admin-status",
        AdminDeed::CloseFlow
        | AdminDeed::Reload
        | AdminDeed::SetLogLevel
        | AdminDeed::Drain
        | AdminDeed::ManageState
        | AdminDeed::SetQuota
            if core == CoreVersion::V1 =>
        {
            "admin-activate-policy"
        }
        AdminDeed::ListFlows => "admin-list-flows",
        AdminDeed::ListQuotas => "admin-list-quotas",
        AdminDeed::SetQuota => "admin-set-quota",
        AdminDeed::CloseFlow => "admin-close-flow",
        AdminDeed::Reload => "admin-reload",
        AdminDeed::SetLogLevel => "admin-set-log-level",
        AdminDeed::Drain => "admin-drain",
        AdminDeed::ManageState => "admin-manage-state",
        AdminDeed::Status => "admin-status",
        AdminDeed::Explain => "admin-explain",
        AdminDeed::ListEndpoints => "admin-list-endpoints",
        AdminDeed::ReserveEndpoint if core == CoreVersion::V1 => "admin-close-endpoint",
        AdminDeed::CloseEndpoint => "admin-close-endpoint",
        AdminDeed::ReserveEndpoint => "admin-reserve-endpoint",
        AdminDeed::KickAgent => "admin-kick-agent",
        AdminDeed::StagePolicy => "admin-stage-policy",
        AdminDeed::ActivatePolicy => "admin-activate-policy",
        AdminDeed::RollbackPolicy => "admin-rollback-policy",
        AdminDeed::LoadPlugin => "admin-load-plugin",
        AdminDeed::DisablePlugin => "admin-disable-plugin",
    }
}
