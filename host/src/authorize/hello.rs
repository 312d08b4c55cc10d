//! HELLO and RENEW: may this agent join, and with which connectors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nowconnect_plugins as plugins;
use nowconnect_plugins::{CallInfo, Carry, HelloOutcome, Hook};
use nowconnect_policy::{AgentFacts, Announce, Decision, Meta, Name, PolicyBundle, Question};
use nowconnect_protocol::{AgentId, ConnectorName, Refusal, TenantName};

use super::record::Draft;
use super::{
    Asking, Authorizer, Denial, Refused, TUNNEL_LISTENER, connector_names, net, plugin_peer,
    plugin_tenant, policy_name, unix_ms,
};
use crate::codes::DenialCode;
use crate::identity::AgentIdentity;
use crate::pdp::Answer;
use crate::telemetry::decisions::{DecisionAction, DecisionId, Why};

/// Why a HELLO is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloReason {
    /// An agent joins.
    New,
    /// It joins and asks for the flows of its last tunnel.
    Resume,
    /// It shows a new token on a living tunnel.
    Renew,
    /// Policies or plugins have changed.
    Recheck,
}

impl HelloReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Resume => "resume",
            Self::Renew => "renew",
            Self::Recheck => "recheck",
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct HelloAsk<'a> {
    /// What the token proves.
    pub identity: &'a AgentIdentity,
    /// What HELLO states; compared and never used.
    pub claimed_agent: &'a AgentId,
    /// The same for the tenant.
    pub claimed_tenant: Option<&'a TenantName>,
    /// What the agent says that it runs.
    pub agent_version: &'a str,
    /// Its labels, not proven.
    pub labels: &'a [(String, String)],
    /// What it offers.
    pub connectors: &'a [ConnectorName],
    /// Where it dials from.
    pub remote: SocketAddr,
    /// Whether a live session of it would be replaced.
    pub replacing: bool,
    /// Why this is asked.
    pub reason: HelloReason,
    /// What plugins attached to the session when it was decided on before.
    pub carry: Option<&'a Carry>,
    /// `security.require_connector_scopes`.
    pub scopes_required: bool,
    /// Bound on the plugins of the chain together.
    pub pipeline_timeout: Duration,
}

/// The agent may join; only the pipeline makes one.
#[derive(Debug)]
pub struct HelloPermit {
    accepted: Vec<ConnectorName>,
    refused: Vec<Refusal>,
    carry: Carry,
    facts: Arc<AgentFacts>,
    agent: Arc<plugins::Agent>,
    decision: DecisionId,
    generation: u64,
}

impl HelloPermit {
    /// The connectors that it may serve.
    pub fn accepted(&self) -> &[ConnectorName] {
        &self.accepted
    }

    /// The others, with the reasons.
    pub fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    /// What plugins attached to the session.
    pub fn carry(&self) -> &Carry {
        &self.carry
    }

    /// The agent as policies see it.
    pub fn facts(&self) -> &Arc<AgentFacts> {
        &self.facts
    }

    /// The agent as plugins see it.
    pub fn agent(&self) -> &Arc<plugins::Agent> {
        &self.agent
    }

    /// Names the record.
    pub fn decision(&self) -> DecisionId {
        self.decision
    }

    /// The generation that allowed it.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl Authorizer {
    /// Decides about an agent and each connector that it offers.
    ///
    /// # Errors
    /// The agent may not join at all. Connectors that it may not offer are no error: they are
    /// in the permit with their reasons, and the permit may hold none that it may.
    pub async fn hello(&self, ask: &HelloAsk<'_>) -> Result<HelloPermit, Denial> {
        let mut asking = Asking::begin(self);
        let facts = Arc::new(agent_facts(ask));
        let outcome = self.hello_steps(ask, &mut asking, &facts).await;
        let draft = Draft::new(self, &asking, DecisionAction::Hello)
            .principal("Agent", facts.agent.as_str())
            .resource("Node", &self.hub)
            .client(ask.remote)
            .agent(facts.agent.as_str())
            .recheck(ask.reason == HelloReason::Recheck);
        match outcome {
            Ok(steps) => {
                draft
                    .question(&steps.hello.question)
                    .policies(&steps.hello.decision)
                    .allow();
                Ok(HelloPermit {
                    accepted: steps.accepted,
                    refused: steps.refused,
                    carry: steps.carry,
                    agent: steps.agent,
                    facts,
                    decision: asking.id,
                    generation: asking.generation.number(),
                })
            }
            Err((refused, answered)) => {
                let draft = match &answered {
                    Some(answered) => draft
                        .question(&answered.question)
                        .policies(&answered.decision),
                    None => draft,
                };
                draft.deny(&refused);
                Err(refused.into_denial(asking.id))
            }
        }
    }

    /// What these policies say to an agent and each connector that it serves; plugins are not
    /// asked. `None`: it may not be here at all.
    pub(crate) fn foresee_hello(
        &self,
        policies: &PolicyBundle,
        ask: &HelloAsk<'_>,
    ) -> Option<Vec<ConnectorName>> {
        let asking = Asking::begin(self);
        let questions = self.hello_questions(ask, &asking, &Arc::new(agent_facts(ask)));
        let answers = policies.decide_all(&self.facts, &questions);
        let (hello, announced) = answers.split_first()?;
        hello.allow.then(|| {
            let named = ask.connectors.iter().zip(announced);
            named
                .filter(|(_, decision)| decision.allow)
                .map(|(connector, _)| connector.clone())
                .collect()
        })
    }

    async fn hello_steps(
        &self,
        ask: &HelloAsk<'_>,
        asking: &mut Asking,
        facts: &Arc<AgentFacts>,
    ) -> Result<HelloSteps, (Refused, Option<Answered>)> {
        self.check_identity(ask.identity, asking.now)
            .map_err(|refused| (refused, None))?;
        let _slot = self
            .pending
            .take()
            .ok_or_else(|| (Refused::overloaded(), None))?;
        let generation = Arc::clone(&asking.generation);
        let started = Instant::now();
        let questions = self.hello_questions(ask, asking, facts);
        let answers = generation.policies().decide_all(&self.facts, &questions);
        asking.policy_time += started.elapsed();
        let questions = questions.into_iter().map(Arc::new);
        let answers: Vec<_> = questions.zip(answers).collect();
        if ask.reason != HelloReason::Recheck {
            self.shadow_hello(asking, &answers);
        }
        let mut answers = answers.into_iter();
        let Some((question, decision)) = answers.next() else {
            return Err((policy_fault(), None));
        };
        let hello = Answered { question, decision };
        if !hello.decision.allow {
            return Err((Refused::by_policy(&hello.decision), Some(hello)));
        }
        // Policies decide about a false claim first, so that the record names the policy. What
        // they let pass is refused all the same: names in the wire must be the proven ones.
        let same_tenant = ask
            .claimed_tenant
            .is_none_or(|claimed| *claimed == ask.identity.tenant);
        if !same_tenant || *ask.claimed_agent != ask.identity.agent_id {
            let refused = Refused::by_hub(
                Why::Identity,
                DenialCode::AgentIdMismatch,
                "the tenant and agent_id in HELLO must be those of the token",
            );
            return Err((refused, Some(hello)));
        }
        let mut steps = HelloSteps {
            accepted: Vec::with_capacity(ask.connectors.len()),
            refused: Vec::new(),
            carry: Carry::default(),
            agent: Arc::new(plugin_agent(ask)),
            hello,
        };
        let mut offers = Vec::with_capacity(ask.connectors.len());
        for connector in ask.connectors {
            match answers.next() {
                Some((question, decision)) => offers.push(Offer {
                    connector,
                    answered: Answered { question, decision },
                    external: None,
                }),
                None => return Err((policy_fault(), Some(steps.hello))),
            }
        }
        if let Err(refused) = self
            .hello_asked(ask, asking, &steps.hello, &mut offers)
            .await
        {
            return Err((refused, Some(steps.hello)));
        }
        for offer in &offers {
            self.announced(ask, asking, facts, offer, &mut steps);
        }
        match self.hello_gates(ask, asking, &mut steps).await {
            Ok(()) => Ok(steps),
            Err(refused) => Err((refused, Some(steps.hello))),
        }
    }

    fn shadow_hello(&self, asking: &Asking, answers: &[(Arc<Question>, Decision)]) {
        for (index, (question, decision)) in answers.iter().enumerate() {
            let action = match index {
                0 => DecisionAction::Hello,
                _ => DecisionAction::Announce,
            };
            self.shadow
                .saw(action, asking.id, &asking.generation, question, decision);
        }
    }

    fn hello_questions(
        &self,
        ask: &HelloAsk<'_>,
        asking: &Asking,
        facts: &Arc<AgentFacts>,
    ) -> Vec<Question> {
        let tenant = &ask.identity.tenant;
        let net = net(ask.remote, Name::bare(TUNNEL_LISTENER));
        let meta = Meta {
            recheck: ask.reason == HelloReason::Recheck,
            ..self.meta(asking.now, &asking.request_id)
        };
        let announced = connector_names(tenant, ask.connectors);
        let claimed_tenant = ask.claimed_tenant.unwrap_or(tenant);
        let hello = Question::Hello(nowconnect_policy::Hello {
            net: net.clone(),
            meta: meta.clone(),
            agent: Arc::clone(facts),
            claimed: policy_name(claimed_tenant, ask.claimed_agent.as_str()),
            agent_version: ask.agent_version.to_owned(),
            announced: announced.clone(),
            replacing: ask.replacing,
        });
        std::iter::once(hello)
            .chain(announced.into_iter().map(|connector| {
                Question::Announce(Announce {
                    net: net.clone(),
                    meta: meta.clone(),
                    agent: Arc::clone(facts),
                    connector,
                    scopes_required: ask.scopes_required,
                })
            }))
            .collect()
    }

    /// Asks the external decision point about the HELLO and what the policies accept of it.
    async fn hello_asked(
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
        let Some(answers) = self.hello_external(asking, &questions, again).await? else {
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

    fn announced(
        &self,
        ask: &HelloAsk<'_>,
        asking: &Asking,
        facts: &AgentFacts,
        offer: &Offer<'_>,
        steps: &mut HelloSteps,
    ) {
        let decision = &offer.answered.decision;
        let name = policy_name(&ask.identity.tenant, offer.connector.as_str());
        let draft = Draft::announce(self, asking)
            .principal("Agent", facts.agent.as_str())
            .resource("Connector", name.as_str())
            .client(ask.remote)
            .agent(facts.agent.as_str())
            .connector(name.as_str())
            .recheck(ask.reason == HelloReason::Recheck)
            .question(&offer.answered.question)
            .policies(decision)
            .pdp(offer.external.as_ref().map(Answer::recorded));
        let refused = match &offer.external {
            _ if !decision.allow => Some(Refused::by_policy(decision)),
            Some(answer) if !answer.allow => Some(Refused::by_pdp(answer)),
            Some(_) | None => None,
        };
        match refused {
            None => {
                draft.allow();
                steps.accepted.push(offer.connector.clone());
            }
            Some(refused) => {
                let id = draft.id();
                draft.deny(&refused);
                steps.refuse(offer.connector.clone(), &refused, id);
            }
        }
    }

    async fn hello_gates(
        &self,
        ask: &HelloAsk<'_>,
        asking: &mut Asking,
        steps: &mut HelloSteps,
    ) -> Result<(), Refused> {
        let generation = Arc::clone(&asking.generation);
        if !generation.plugins().has(Hook::Hello) {
            return Ok(());
        }
        let started = Instant::now();
        let peer = plugin_peer(ask.remote);
        let announced: Vec<&str> = steps.accepted.iter().map(ConnectorName::as_str).collect();
        let call = CallInfo {
            request_id: &asking.request_id,
            tenant: plugin_tenant(&ask.identity.tenant),
            deadline: Some(started + ask.pipeline_timeout),
            generation: generation.number(),
            carry: ask.carry,
            ..CallInfo::default()
        };
        let question = plugins::Hello {
            agent: &steps.agent,
            peer: &peer,
            announced: &announced,
            why: ask.reason.as_str(),
        };
        let answer = tokio::time::timeout(
            ask.pipeline_timeout,
            generation.plugins().hello(&call, &question),
        )
        .await;
        asking.plugin_time += started.elapsed();
        let welcome = match answer {
            Ok(HelloOutcome::Accept(welcome)) => welcome,
            Ok(HelloOutcome::Deny(denial)) => return Err(Refused::by_plugin(denial)),
            Err(_) => return Err(Refused::too_slow()),
        };
        // A plugin narrows: what it did not name is out, what it made up was never in.
        let (kept, left_out): (Vec<_>, Vec<_>) = std::mem::take(&mut steps.accepted)
            .into_iter()
            .partition(|connector| {
                welcome
                    .accepted
                    .iter()
                    .any(|name| name == connector.as_str())
            });
        steps.accepted = kept;
        let agent = policy_name(&ask.identity.tenant, ask.identity.agent_id.as_str());
        for connector in left_out {
            let by = welcome
                .refused
                .iter()
                .find(|(name, _)| name == connector.as_str())
                .map(|(_, plugin)| Arc::clone(plugin));
            let mut refused = Refused::by_hub(
                Why::Plugin,
                DenialCode::PluginRefused,
                "a plugin does not let the agent offer it",
            );
            refused.by = by;
            let name = policy_name(&ask.identity.tenant, connector.as_str());
            let draft = Draft::announce(self, asking)
                .principal("Agent", agent.as_str())
                .resource("Connector", name.as_str())
                .client(ask.remote)
                .agent(agent.as_str())
                .connector(name.as_str())
                .recheck(ask.reason == HelloReason::Recheck);
            let id = draft.id();
            draft.deny(&refused);
            steps.refuse(connector, &refused, id);
        }
        steps.carry = welcome.carry;
        Ok(())
    }
}

struct HelloSteps {
    accepted: Vec<ConnectorName>,
    refused: Vec<Refusal>,
    carry: Carry,
    agent: Arc<plugins::Agent>,
    hello: Answered,
}

/// A connector with what was said about it.
struct Offer<'a> {
    connector: &'a ConnectorName,
    answered: Answered,
    /// Of the external decision point.
    external: Option<Answer>,
}

/// A question with its answer.
struct Answered {
    question: Arc<Question>,
    decision: Decision,
}

impl HelloSteps {
    fn refuse(&mut self, connector: ConnectorName, refused: &Refused, decision: DecisionId) {
        self.refused.push(Refusal {
            connector,
            code: refused.code.to_string(),
            message: refused.message.to_string(),
            decision: decision.to_string(),
        });
    }
}

fn policy_fault() -> Refused {
    Refused::by_hub(
        Why::Error,
        DenialCode::PolicyError,
        "the policies did not answer",
    )
}

/// The prefix of tags that come from HELLO and not from the token.
const LABEL_PREFIX: &str = "label.";

fn agent_facts(ask: &HelloAsk<'_>) -> AgentFacts {
    let identity = ask.identity;
    let labels = ask
        .labels
        .iter()
        .map(|(name, value)| (format!("{LABEL_PREFIX}{name}"), value.clone()));
    // A claim cannot be passed off as a label nor the other way round: labels come first, and a
    // claim that is named like one replaces it.
    let mut tags: Vec<(String, String)> = labels
        .filter(|(name, _)| !identity.tags.contains_key(name))
        .collect();
    tags.extend(
        identity
            .tags
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    AgentFacts {
        agent: policy_name(&identity.tenant, identity.agent_id.as_str()),
        scopes: connector_names(
            &identity.tenant,
            identity.scopes.as_deref().unwrap_or_default(),
        ),
        ephemeral: false,
        token_expires_ms: unix_ms(identity.expires_at),
        groups: identity
            .groups
            .iter()
            .map(|group| Arc::from(group.as_str()))
            .collect(),
        tags,
    }
}

fn plugin_agent(ask: &HelloAsk<'_>) -> plugins::Agent {
    plugins::Agent {
        id: ask.identity.agent_id.to_string(),
        version: ask.agent_version.to_owned(),
        scopes: ask
            .identity
            .scopes
            .iter()
            .flatten()
            .map(ToString::to_string)
            .collect(),
        attributes: ask
            .identity
            .tags
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    }
}
