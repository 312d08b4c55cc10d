//! The connectors of a HELLO: each is decided about, and each leaves a record of its own.

use std::sync::Arc;

use nowconnect_control::Control;
use nowconnect_plugins::Welcome;
use nowconnect_policy::{AgentFacts, Question};
use nowconnect_protocol::{ConnectorName, Refusal};

use super::super::record::Draft;
use super::super::{Asking, Authorizer, Refused, policy_name};
use super::{Answered, HelloAsk, HelloReason, policy_fault};
use crate::codes::DenialCode;
use crate::identity::AgentIdentity;
use crate::pdp::Answer;
use crate::telemetry::decisions::Why;

/// A connector with what was said about it.
pub(super) struct Offer<'a> {
    pub(super) connector: &'a ConnectorName,
    answered: Answered,
    /// Of the external decision point.
    external: Option<Answer>,
    /// Of the hub itself or of the plugins.
    gate: Option<Refused>,
}

impl<'a> Offer<'a> {
    pub(super) fn new(
        connector: &'a ConnectorName,
        answered: Answered,
        identity: &AgentIdentity,
    ) -> Self {
        Self {
            connector,
            answered,
            external: None,
            // Whatever policies say: who offers it gets the requests for the tunnel's public name.
            gate: is_anothers_tunnel(connector, identity).then(|| {
                Refused::by_hub(
                    Why::Identity,
                    DenialCode::TunnelOfAnother,
                    "a tunnel is offered by the agent that has its token",
                )
            }),
        }
    }

    /// Whether nobody has refused it so far.
    pub(super) fn is_accepted(&self) -> bool {
        self.answered.decision.allow
            && self.external.as_ref().is_none_or(|answer| answer.allow)
            && self.gate.is_none()
    }

    /// The plugins have answered.
    pub(super) fn gate(&mut self, welcome: &Welcome) {
        let name = self.connector.as_str();
        if welcome.accepted.iter().any(|accepted| accepted == name) {
            return;
        }
        let mut refused = Refused::by_hub(
            Why::Plugin,
            DenialCode::PluginRefused,
            "a plugin does not let the agent offer it",
        );
        refused.by = welcome
            .refused
            .iter()
            .find(|(refused, _)| refused == name)
            .map(|(_, plugin)| Arc::clone(plugin));
        self.gate = Some(refused);
    }

    /// The first refusal, in the order of the pipeline.
    fn refused(&mut self) -> Option<Refused> {
        if !self.answered.decision.allow {
            return Some(Refused::by_policy(&self.answered.decision));
        }
        match &self.external {
            Some(answer) if !answer.allow => Some(Refused::by_pdp(answer)),
            Some(_) | None => self.gate.take(),
        }
    }
}

/// Whether the connector is named like a tunnel of the control plane, and the token is not the one
/// that the control plane gave for it.
fn is_anothers_tunnel(connector: &ConnectorName, identity: &AgentIdentity) -> bool {
    let is_own = || {
        let scopes = identity.scopes.as_deref().unwrap_or_default();
        identity.ephemeral && scopes.contains(connector)
    };
    Control::is_id(connector.as_str()) && !is_own()
}

impl Authorizer {
    /// Asks the external decision point about the HELLO and what the policies accept of it.
    pub(super) async fn hello_asked(
        &self,
        ask: &HelloAsk<'_>,
        asking: &mut Asking,
        hello: &Answered,
        offers: &mut [Offer<'_>],
    ) -> Result<(), Refused> {
        let questions: Vec<&Question> = std::iter::once(&*hello.question)
            .chain(
                offers
                    .iter()
                    .filter(|offer| offer.answered.decision.allow)
                    .map(|offer| &*offer.answered.question),
            )
            .collect();
        let again = ask.reason == HelloReason::Recheck;
        let Some(answers) = self.hello_external(asking, &questions, again).await else {
            return Ok(());
        };
        let mut answers = answers.into_iter();
        let Some(answer) = answers.next() else {
            return Err(policy_fault());
        };
        asking.pdp = Some(answer.recorded());
        if !answer.allow {
            return Err(Refused::by_pdp(&answer));
        }
        let accepted = offers
            .iter_mut()
            .filter(|offer| offer.answered.decision.allow);
        for offer in accepted {
            offer.external = Some(answers.next().ok_or_else(policy_fault)?);
        }
        Ok(())
    }

    /// Leaves the record of a connector in a HELLO that is let in.
    pub(super) fn offer_decided(
        &self,
        ask: &HelloAsk<'_>,
        asking: &Asking,
        facts: &AgentFacts,
        mut offer: Offer<'_>,
    ) -> Result<ConnectorName, Refusal> {
        let refused = offer.refused();
        let name = policy_name(&ask.identity.tenant, offer.connector.as_str());
        let draft = Draft::announce(self, asking)
            .principal("Agent", facts.agent.as_str())
            .resource("Connector", name.as_str())
            .dials_from(ask.remote)
            .agent(facts.agent.as_str())
            .connector(name.as_str())
            .recheck(ask.reason == HelloReason::Recheck)
            .question(&offer.answered.question)
            .policies(&offer.answered.decision)
            .pdp(offer.external.as_ref().map(Answer::recorded));
        let Some(refused) = refused else {
            draft.allow();
            return Ok(offer.connector.clone());
        };
        let decision = draft.id();
        draft.deny(&refused);
        Err(Refusal {
            connector: offer.connector.clone(),
            code: refused.code.to_string(),
            message: refused.message.to_string(),
            decision: decision.to_string(),
        })
    }
}
