//! HELLO and RENEW: may this agent join, and with which connectors.

mod facts;
mod offers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nowconnect_plugins as plugins;
use nowconnect_plugins::{CallInfo, Carry, HelloOutcome, Hook};
use nowconnect_policy::{AgentFacts, Decision, PolicyBundle, Question};
use nowconnect_protocol::{AgentId, ConnectorName, Refusal, TenantName};

use super::record::Draft;
use super::{Asking, Authorizer, Denial, MAX_ATTEMPTS, Refused, plugin_peer, plugin_tenant};
use crate::codes::DenialCode;
use crate::generation::Stamp;
use crate::identity::AgentIdentity;
use crate::telemetry::decisions::{DecisionAction, DecisionId, Why};
pub(crate) use facts::agent_facts;
use facts::plugin_agent;
use offers::Offer;

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
    stamp: Stamp,
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

    /// What it rests on. Whoever lets the agent in compares it with what is in force then.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }
}

impl Authorizer {
    /// Decides about an agent and each connector that it offers.
    ///
    /// # Errors
    /// The agent may not join at all. Connectors that it may not offer are no error: they are
    /// in the permit with their reasons, and the permit may hold none that it may.
    pub async fn hello(&self, ask: &HelloAsk<'_>) -> Result<HelloPermit, Denial> {
        let facts = Arc::new(agent_facts(ask.identity, ask.labels));
        let mut attempt = 1;
        loop {
            let mut asking = Asking::begin(self);
            let outcome = self.hello_steps(ask, &mut asking, &facts).await;
            let overtaken = self.is_overtaken(&asking);
            if overtaken && attempt < MAX_ATTEMPTS {
                attempt += 1;
                self.metrics.policy.decided_again(DecisionAction::Hello);
                continue;
            }
            return match outcome {
                Ok(steps) if overtaken => {
                    let hello = Some(Box::new(steps.hello));
                    let refused = Refused::changing();
                    Err(self.not_let_in(ask, &asking, &facts, NotLet { refused, hello }))
                }
                Ok(steps) => Ok(self.let_in(ask, &asking, facts, steps)),
                Err(not_let) => Err(self.not_let_in(ask, &asking, &facts, not_let)),
            };
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
        let questions = self.hello_questions(
            ask,
            &asking,
            &Arc::new(agent_facts(ask.identity, ask.labels)),
        );
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

    /// The permit and the records, the HELLO's own last.
    fn let_in(
        &self,
        ask: &HelloAsk<'_>,
        asking: &Asking,
        facts: Arc<AgentFacts>,
        steps: HelloSteps<'_>,
    ) -> HelloPermit {
        let (mut accepted, mut refused) = (Vec::with_capacity(steps.offers.len()), Vec::new());
        for offer in steps.offers {
            match self.offer_decided(ask, asking, &facts, offer) {
                Ok(connector) => accepted.push(connector),
                Err(refusal) => refused.push(refusal),
            }
        }
        self.hello_draft(ask, asking, &facts)
            .question(&steps.hello.question)
            .policies(&steps.hello.decision)
            .allow();
        HelloPermit {
            accepted,
            refused,
            carry: steps.carry,
            agent: steps.agent,
            facts,
            decision: asking.id,
            generation: asking.generation.number(),
            stamp: asking.stamp,
        }
    }

    fn not_let_in(
        &self,
        ask: &HelloAsk<'_>,
        asking: &Asking,
        facts: &AgentFacts,
        NotLet { refused, hello }: NotLet,
    ) -> Denial {
        let draft = self.hello_draft(ask, asking, facts);
        match &hello {
            Some(answered) => draft
                .question(&answered.question)
                .policies(&answered.decision)
                .deny(&refused),
            None => draft.deny(&refused),
        }
        refused.into_denial(asking.id)
    }

    fn hello_draft(&self, ask: &HelloAsk<'_>, asking: &Asking, facts: &AgentFacts) -> Draft<'_> {
        Draft::new(self, asking, DecisionAction::Hello)
            .principal("Agent", facts.agent.as_str())
            .resource("Node", &self.hub)
            .dials_from(ask.remote)
            .agent(facts.agent.as_str())
            .recheck(ask.reason == HelloReason::Recheck)
    }

    async fn hello_steps<'a>(
        &self,
        ask: &HelloAsk<'a>,
        asking: &mut Asking,
        facts: &Arc<AgentFacts>,
    ) -> Result<HelloSteps<'a>, NotLet> {
        self.check_identity(ask.identity, asking.now)?;
        let _slot = self.pending.take().ok_or_else(Refused::overloaded)?;
        let (hello, mut offers) = self.hello_policies(ask, asking, facts)?;
        let steps = async {
            self.hello_asked(ask, asking, &hello, &mut offers).await?;
            let carry = self.hello_gates(ask, asking, &mut offers).await?;
            // The token may have run out, or been revoked, while others were waited for.
            if ask.reason != HelloReason::Recheck {
                self.check_identity(ask.identity, SystemTime::now())?;
            }
            Ok::<_, Refused>(carry)
        };
        match steps.await {
            Ok((carry, agent)) => Ok(HelloSteps {
                carry,
                agent,
                hello,
                offers,
            }),
            Err(refused) => Err(NotLet {
                refused,
                hello: Some(Box::new(hello)),
            }),
        }
    }

    /// What the policies say to the HELLO and to each connector.
    fn hello_policies<'a>(
        &self,
        ask: &HelloAsk<'a>,
        asking: &mut Asking,
        facts: &Arc<AgentFacts>,
    ) -> Result<(Answered, Vec<Offer<'a>>), NotLet> {
        let started = Instant::now();
        let questions = self.hello_questions(ask, asking, facts);
        let answers = asking
            .generation
            .policies()
            .decide_all(&self.facts, &questions);
        asking.policy_time += started.elapsed();
        let questions = questions.into_iter().map(Arc::new);
        let answers: Vec<_> = questions.zip(answers).collect();
        if ask.reason != HelloReason::Recheck {
            self.shadow_hello(asking, &answers);
        }
        let mut answers = answers
            .into_iter()
            .map(|(question, decision)| Answered { question, decision });
        let hello = answers.next().ok_or_else(policy_fault)?;
        let deny = |refused, hello| {
            Err(NotLet {
                refused,
                hello: Some(Box::new(hello)),
            })
        };
        if !hello.decision.allow {
            return deny(Refused::by_policy(&hello.decision), hello);
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
            return deny(refused, hello);
        }
        let offers: Vec<Offer<'a>> = ask
            .connectors
            .iter()
            .zip(answers)
            .map(|(connector, answered)| Offer::new(connector, answered, ask.identity))
            .collect();
        if offers.len() < ask.connectors.len() {
            return deny(policy_fault(), hello);
        }
        Ok((hello, offers))
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

    /// Asks the plugins. A plugin narrows: what it does not name is out, what it makes up was
    /// never in. Gives what they attach to the session.
    async fn hello_gates(
        &self,
        ask: &HelloAsk<'_>,
        asking: &mut Asking,
        offers: &mut [Offer<'_>],
    ) -> Result<(Carry, Arc<plugins::Agent>), Refused> {
        let agent = Arc::new(plugin_agent(ask));
        let generation = Arc::clone(&asking.generation);
        if !generation.plugins().has(Hook::Hello) {
            return Ok((Carry::default(), agent));
        }
        let started = Instant::now();
        let peer = plugin_peer(ask.remote);
        let announced: Vec<&str> = offers
            .iter()
            .filter(|offer| offer.is_accepted())
            .map(|offer| offer.connector.as_str())
            .collect();
        let call = CallInfo {
            request_id: &asking.request_id,
            tenant: plugin_tenant(&ask.identity.tenant),
            deadline: Some(started + ask.pipeline_timeout),
            generation: generation.number(),
            carry: ask.carry,
            ..CallInfo::default()
        };
        let question = plugins::Hello {
            agent: &agent,
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
        for offer in offers.iter_mut().filter(|offer| offer.is_accepted()) {
            offer.gate(&welcome);
        }
        Ok((welcome.carry, agent))
    }
}

/// What a HELLO that may join is let in with.
struct HelloSteps<'a> {
    carry: Carry,
    agent: Arc<plugins::Agent>,
    hello: Answered,
    offers: Vec<Offer<'a>>,
}

/// A HELLO that may not join, with what the policies said to it where they were asked.
struct NotLet {
    refused: Refused,
    hello: Option<Box<Answered>>,
}

impl From<Refused> for NotLet {
    fn from(refused: Refused) -> Self {
        Self {
            refused,
            hello: None,
        }
    }
}

/// A question with its answer.
struct Answered {
    question: Arc<Question>,
    decision: Decision,
}

fn policy_fault() -> Refused {
    Refused::by_hub(
        Why::Error,
        DenialCode::PolicyError,
        "the policies did not answer",
    )
}
