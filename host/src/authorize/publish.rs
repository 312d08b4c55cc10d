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
    /// See what its tenant has.
    List,
    /// Take a published name away.
    Close,
    /// Keep a name for its tenant.
    Reserve,
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
        endpoint: Option<EndpointFacts>,
    ) -> Result<(), Denial> {
        let mut asking = Asking::begin(self);
        let resource = endpoint.as_ref().map_or_else(
            || self.hub.to_string(),
            |endpoint| endpoint.endpoint.to_string(),
        );
        let target = match endpoint {
            Some(endpoint) => AdminTarget::Published(Box::new(endpoint)),
            None => AdminTarget::Node(Arc::clone(&self.hub)),
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
            deed: match deed {
                ControlDeed::List => AdminDeed::ListEndpoints,
                ControlDeed::Close => AdminDeed::CloseEndpoint,
                ControlDeed::Reserve => AdminDeed::ReserveEndpoint,
            },
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
        if decision.allow && deed == ControlDeed::List {
            return Ok(());
        }
        let draft = Draft::new(self, &asking, DecisionAction::Admin)
            .principal("Operator", &client.client.to_string())
            .resource("Endpoint", &resource)
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
