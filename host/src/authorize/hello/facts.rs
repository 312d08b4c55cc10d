//! What policies and plugins are told of an agent that says HELLO.

use std::sync::Arc;

use nowconnect_plugins as plugins;
use nowconnect_policy::{AgentFacts, Announce, Meta, Name, Question};

use super::super::{
    Asking, Authorizer, TUNNEL_LISTENER, connector_names, net, policy_name, unix_ms,
};
use super::{HelloAsk, HelloReason};
use crate::identity::AgentIdentity;

impl Authorizer {
    /// The HELLO itself, and then one question for each connector.
    pub(super) fn hello_questions(
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
                    scopes_required: asking.scopes_required || ask.identity.ephemeral,
                })
            }))
            .collect()
    }
}

/// The prefix of tags that come from HELLO and not from the token.
const LABEL_PREFIX: &str = "label.";

/// What a token says about an agent, with the labels that it gave itself.
pub(crate) fn agent_facts(identity: &AgentIdentity, labels: &[(String, String)]) -> AgentFacts {
    let labels = labels
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
        ephemeral: identity.ephemeral,
        token_expires_ms: unix_ms(identity.expires_at),
        groups: identity
            .groups
            .iter()
            .map(|group| Arc::from(group.as_str()))
            .collect(),
        tags,
    }
}

/// The attribute by which plugins know the address that an agent dials from.
const ADDRESS: &str = "ip";

pub(super) fn plugin_agent(ask: &HelloAsk<'_>) -> plugins::Agent {
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
        attributes: std::iter::once((
            ADDRESS.to_owned(),
            ask.remote.ip().to_canonical().to_string(),
        ))
        .chain(
            ask.identity
                .tags
                .iter()
                .filter(|(name, _)| *name != ADDRESS)
                .map(|(name, value)| (name.clone(), value.clone())),
        )
        .collect(),
    }
}
