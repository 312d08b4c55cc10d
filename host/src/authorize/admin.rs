//! What an operator may do at the admin API.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use nowconnect_policy::{
    Admin, AdminDeed, AdminTarget, Decision, Name, OperatorFacts, Question, ReasonKind,
};

use super::record::Draft;
use super::{ADMIN_LISTENER, Asking, Authorizer, Denial, Refused, net};
use crate::admin::view::{AdminAction, AdminCaller};
use crate::telemetry::decisions::DecisionAction;

impl Authorizer {
    /// Asks the policies about an admin call. Ordinary reads that are allowed leave no record: a
    /// dashboard's polling would push everything else out of the ring.
    ///
    /// # Errors
    /// The policies do not allow it.
    pub(crate) fn admin(
        &self,
        caller: &AdminCaller,
        action: AdminAction,
        subject: &AdminSubject,
    ) -> Result<(), Denial> {
        let mut asking = Asking::begin(self);
        let (operator, from) = operator(caller);
        let question = Arc::new(Question::Admin(Admin {
            net: net(from, Name::bare(ADMIN_LISTENER)),
            meta: self.meta(asking.now, &asking.request_id),
            operator: Arc::new(operator),
            deed: deed(action),
            target: self.target(&asking, action, subject),
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
        let allow = decision.allow || owns_the_hub(caller, &decision);
        if allow && !action.is_recorded() {
            return Ok(());
        }
        let draft = Draft::new(self, &asking, DecisionAction::Admin)
            .principal("Operator", caller_name(caller))
            .resource("Node", action.as_str())
            .client(from)
            .question(&question)
            .policies(&decision);
        if allow {
            draft.allow();
            return Ok(());
        }
        let refused = Refused::by_policy(&decision);
        draft.deny(&refused);
        Err(refused.into_denial(asking.id))
    }

    fn target(&self, asking: &Asking, action: AdminAction, subject: &AdminSubject) -> AdminTarget {
        match (action, subject) {
            (AdminAction::KickAgent, AdminSubject::Agent(agent)) => {
                AdminTarget::Agent(agent.clone())
            }
            (
                AdminAction::StagePolicy
                | AdminAction::ActivatePolicy
                | AdminAction::RollbackPolicy,
                AdminSubject::Bundle { revision, signed },
            ) => AdminTarget::PolicyBundle {
                bundle: Name::bare("hub"),
                revision: *revision,
                signed: *signed,
            },
            (
                AdminAction::Status
                | AdminAction::ListFlows
                | AdminAction::ReadAgentAddress
                | AdminAction::Explain
                | AdminAction::CloseFlow
                | AdminAction::Reload
                | AdminAction::SetLogLevel
                | AdminAction::Drain
                | AdminAction::ManageState,
                _,
            ) => AdminTarget::Node(Arc::clone(&self.hub)),
            (
                AdminAction::KickAgent
                | AdminAction::StagePolicy
                | AdminAction::ActivatePolicy
                | AdminAction::RollbackPolicy,
                _,
            ) => AdminTarget::PolicyBundle {
                bundle: Name::bare("hub"),
                revision: asking.generation.number(),
                signed: false,
            },
        }
    }
}

/// What an admin call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdminSubject {
    /// The hub, or what policies have no type for.
    Hub,
    /// An agent.
    Agent(Name),
    /// A policy bundle.
    Bundle {
        /// Its revision.
        revision: u64,
        /// Whether the keys that the hub trusts have signed it.
        signed: bool,
    },
}

/// Whoever can open the local socket can also stop the process, so a policy set that says nothing
/// about operators, or is at fault, does not lock its owner out. One that forbids does.
fn owns_the_hub(caller: &AdminCaller, decision: &Decision) -> bool {
    let is_local = match caller {
        AdminCaller::Local { .. } => true,
        AdminCaller::Token { .. } | AdminCaller::Certificate { .. } => false,
    };
    is_local && decision.kind != ReasonKind::Forbidden
}

/// The deed of the schema that stands for the call.
fn deed(action: AdminAction) -> AdminDeed {
    match action {
        AdminAction::Status => AdminDeed::Status,
        AdminAction::ListFlows => AdminDeed::ListFlows,
        AdminAction::ReadAgentAddress => AdminDeed::ReadAgentAddress,
        AdminAction::Explain => AdminDeed::Explain,
        AdminAction::KickAgent => AdminDeed::KickAgent,
        AdminAction::CloseFlow => AdminDeed::CloseFlow,
        AdminAction::Reload => AdminDeed::Reload,
        AdminAction::SetLogLevel => AdminDeed::SetLogLevel,
        AdminAction::Drain => AdminDeed::Drain,
        AdminAction::ManageState => AdminDeed::ManageState,
        AdminAction::StagePolicy => AdminDeed::StagePolicy,
        AdminAction::ActivatePolicy => AdminDeed::ActivatePolicy,
        AdminAction::RollbackPolicy => AdminDeed::RollbackPolicy,
    }
}

fn caller_name(caller: &AdminCaller) -> &'static str {
    match caller {
        AdminCaller::Local { .. } => "local",
        AdminCaller::Token { .. } => "token",
        AdminCaller::Certificate { .. } => "certificate",
    }
}

fn operator(caller: &AdminCaller) -> (OperatorFacts, SocketAddr) {
    let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let (amr, from) = match caller {
        AdminCaller::Local { .. } => ("local-socket", local),
        AdminCaller::Token { from } => ("token", *from),
        AdminCaller::Certificate { from, .. } => ("certificate", *from),
    };
    let facts = OperatorFacts {
        operator: Name::bare(caller_name(caller)),
        roles: vec![Arc::from("admin")],
        amr: vec![amr.to_owned()],
        break_glass: false,
    };
    (facts, from)
}
