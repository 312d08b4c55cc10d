//! Who may publish a name, and what a client of the control API may do with one.

use std::net::SocketAddr;
use std::sync::Arc;

use nowconnect_policy::{
    Admin, AdminDeed, AdminTarget, AgentFacts, EndpointCreate, EndpointFacts, Name, OperatorFacts,
    Question,
};

use super::record::Draft;
use super::{Asking, Authorizer, Denial, Refused, net};
use crate::telemetry::decisions::DecisionAction;

/// The listener that the control API's callers come in by, as policies see it.
pub(crate) const CONTROL_LISTENER: &str = "control";

/// Who calls the control API with a management token.
#[derive(Clone, Debug)]
pub(crate) struct ControlClient {
    /// Tenant and client id.
    pub(crate) client: Name,
    /// Its role.
    pub(crate) role: Arc<str>,
}

/// What such a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlDeed {
    /// See which names its tenant has.
    List,
    /// Take a published name away.
    Close,
    /// Keep a name for its tenant.
    Reserve,
    /// See its tenant's agents.
    ListAgents,
    /// End the session of an agent, now or gently, or for good.
    EndAgent,
    /// See its tenant's flows.
    ListFlows,
    /// End a flow.
    CloseFlow,
    /// See how much tenants may have.
    ListQuotas,
    /// Say how much a tenant may have.
    SetQuota,
}

impl ControlDeed {
    const fn changes_something(self) -> bool {
        match self {
            Self::List | Self::ListAgents | Self::ListFlows | Self::ListQuotas => false,
            Self::Close | Self::Reserve | Self::EndAgent | Self::CloseFlow | Self::SetQuota => true,
        }
    }

    const fn deed(self) -> AdminDeed {
        match self {
            Self::List => AdminDeed::ListEndpoints,
            Self::Close => AdminDeed::CloseEndpoint,
            Self::Reserve => AdminDeed::ReserveEndpoint,
            Self::ListAgents => AdminDeed::Status,
            Self::EndAgent => AdminDeed::KickAgent,
            Self::ListFlows => AdminDeed::ListFlows,
            Self::CloseFlow => AdminDeed::CloseFlow,
            Self::ListQuotas => AdminDeed::ListQuotas,
            Self::SetQuota => AdminDeed::SetQuota,
        }
    }
}

/// What it is about.
#[derive(Clone, Debug)]
pub(crate) enum ControlSubject {
    /// All that is its tenant's.
    Hub,
    /// A name.
    Endpoint(Box<EndpointFacts>),
    /// An agent, connected or not.
    Agent(Box<AgentFacts>),
}

impl Authorizer {
    /// Asks the policies whether `agent` may publish `endpoint`.
    ///
    /// # Errors
    /// They do not allow it.
    pub(crate) fn publish(
        &self,
        from: SocketAddr,
        agent: AgentFacts,
        endpoint: EndpointFacts,
        open_endpoints: u32,
    ) -> Result<(), Denial> {
        let mut asking = Asking::begin(self);
        let (principal, resource) = (agent.agent.to_string(), endpoint.endpoint.to_string());
        let question = Arc::new(Question::EndpointCreate(EndpointCreate {
            net: net(from, Name::bare(CONTROL_LISTENER)),
            meta: self.meta(asking.now, &asking.request_id),
            agent: Arc::new(agent),
            endpoint,
            open_endpoints,
        }));
        let decision = asking.generation.policies().decide(&self.facts, &question);
        asking.policy_time = decision.took;
        self.shadow.saw(
            DecisionAction::EndpointCreate,
            asking.id,
            &asking.generation,
            &question,
            &decision,
        );
        let draft = Draft::new(self, &asking, DecisionAction::EndpointCreate)
            .principal("Agent", &principal)
            .resource("Endpoint", &resource)
            .dials_from(from)
            .question(&question)
            .policies(&decision);
        if decision.allow {
            draft.allow();
            return Ok(());
        }
        let refused = Refused::by_policy(&decision);
        draft.deny(&refused);
        Err(refused.into_denial(asking.id))
    }

    /// Asks the policies about a client's call. What is allowed and changes nothing leaves no
    /// record, as at the admin API.
    ///
    /// # Errors
    /// They do not allow it.
    pub(crate) fn control(
        &self,
        from: SocketAddr,
        client: &ControlClient,
        deed: ControlDeed,
        subject: ControlSubject,
    ) -> Result<(), Denial> {
        let mut asking = Asking::begin(self);
        let (kind, resource) = match &subject {
            ControlSubject::Hub => ("Node", self.hub.to_string()),
            ControlSubject::Endpoint(row) => ("Endpoint", row.endpoint.to_string()),
            ControlSubject::Agent(row) => ("Agent", row.agent.to_string()),
        };
        let target = match subject {
            ControlSubject::Hub => AdminTarget::Node(Arc::clone(&self.hub)),
            ControlSubject::Endpoint(row) => AdminTarget::Published(row),
            ControlSubject::Agent(row) => AdminTarget::KnownAgent(row),
        };
        let question = Arc::new(Question::Admin(Admin {
            net: net(from, Name::bare(CONTROL_LISTENER)),
            meta: self.meta(asking.now, &asking.request_id),
            operator: Arc::new(OperatorFacts {
                operator: client.client.clone(),
                roles: vec![Arc::clone(&client.role)],
                amr: vec!["token".to_owned()],
                break_glass: false,
            }),
            deed: deed.deed(),
            target,
        }));
        let decision = asking.generation.policies().decide(&self.facts, &question);
        asking.policy_time = decision.took;
        self.shadow.saw(
            DecisionAction::Admin,
            asking.id,
            &asking.generation,
            &question,
            &decision,
        );
        if decision.allow && !deed.changes_something() {
            return Ok(());
        }
        let draft = Draft::new(self, &asking, DecisionAction::Admin)
            .principal("Operator", &client.client.to_string())
            .resource(kind, &resource)
            .client(from)
            .question(&question)
            .policies(&decision);
        if decision.allow {
            draft.allow();
            return Ok(());
        }
        let refused = Refused::by_policy(&decision);
        draft.deny(&refused);
        Err(refused.into_denial(asking.id))
    }
}
