//! A fact as the engine wants it, made once and shared.

use std::sync::{Arc, LazyLock};

use cedar_policy::{Entity, EntityUid, RestrictedExpression};

use crate::time::datetime;
use crate::vocabulary::{self, uid};
use crate::{
    AgentFacts, ConnectorFacts, DEFAULT_TENANT, EndpointFacts, ListenerFacts, Name, OperatorFacts,
    ViewerFacts,
};

/// An entity with its ancestors. The engine's own type gives neither parents nor the parts it
/// was made from back, and both are needed to join a row with a bundle's groups.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) uid: EntityUid,
    pub(crate) entity: Entity,
    /// Each once, without those that only a bundle knows.
    pub(crate) ancestors: Vec<EntityUid>,
    attributes: Vec<(String, RestrictedExpression)>,
    tags: Vec<(String, String)>,
}

static ANONYMOUS: LazyLock<Arc<Row>> = LazyLock::new(|| {
    let attributes = vec![
        attribute("authenticated", RestrictedExpression::new_bool(false)),
        attribute("amr", strings(&[])),
    ];
    Arc::new(Row::new(
        uid(&vocabulary::VIEWER, "anonymous"),
        attributes,
        Vec::new(),
        Vec::new(),
    ))
});

impl Row {
    pub(crate) fn new(
        uid: EntityUid,
        attributes: Vec<(String, RestrictedExpression)>,
        mut ancestors: Vec<EntityUid>,
        tags: Vec<(String, String)>,
    ) -> Self {
        // A token may name a group twice.
        ancestors.sort_unstable();
        ancestors.dedup();
        let entity = Entity::new_with_tags(
            uid.clone(),
            attributes.iter().cloned(),
            ancestors.iter().cloned(),
            tags.iter()
                .map(|(name, value)| (name.clone(), string(value))),
        )
        .expect("attributes are literals, and the texts of addresses and times are made here");
        Self {
            uid,
            entity,
            ancestors,
            attributes,
            tags,
        }
    }

    /// The same fact with more ancestors and labels. A label that the hub set stays.
    pub(crate) fn joined(&self, ancestors: &[EntityUid], tags: &[(String, String)]) -> Self {
        let mut all = self.ancestors.clone();
        all.extend(ancestors.iter().cloned());
        let mut labels = self.tags.clone();
        for (name, value) in tags {
            if labels.iter().all(|(known, _)| known != name) {
                labels.push((name.clone(), value.clone()));
            }
        }
        Self::new(self.uid.clone(), self.attributes.clone(), all, labels)
    }

    pub(crate) fn anonymous() -> Arc<Self> {
        Arc::clone(&ANONYMOUS)
    }

    pub(crate) fn agent(facts: &AgentFacts) -> Self {
        let scopes = facts
            .scopes
            .iter()
            .map(|scope| RestrictedExpression::new_entity_uid(connector_uid(scope)));
        let attributes = vec![
            attribute("tenant", tenant(&facts.agent)),
            attribute("scopes", RestrictedExpression::new_set(scopes)),
            attribute("ephemeral", RestrictedExpression::new_bool(facts.ephemeral)),
            attribute("tokenExp", datetime(facts.token_expires_ms)),
        ];
        Self::new(
            agent_uid(&facts.agent),
            attributes,
            groups_and_tenant(&facts.groups, &facts.agent),
            unique(&facts.tags),
        )
    }

    pub(crate) fn connector(facts: &ConnectorFacts) -> Self {
        let mut attributes = vec![
            attribute("tenant", tenant(&facts.connector)),
            attribute("protocol", string(&facts.protocol)),
        ];
        if let Some(owner) = &facts.owner {
            attributes.push(attribute(
                "owner",
                RestrictedExpression::new_entity_uid(agent_uid(owner)),
            ));
        }
        Self::new(
            connector_uid(&facts.connector),
            attributes,
            groups_and_tenant(&facts.groups, &facts.connector),
            unique(&facts.tags),
        )
    }

    pub(crate) fn endpoint(facts: &EndpointFacts) -> Self {
        let attributes = vec![
            attribute("tenant", tenant(&facts.endpoint)),
            attribute(
                "owner",
                RestrictedExpression::new_entity_uid(agent_uid(&facts.owner)),
            ),
            attribute("host", string(&facts.host)),
            attribute("reserved", RestrictedExpression::new_bool(facts.reserved)),
            attribute("public", RestrictedExpression::new_bool(facts.public)),
        ];
        Self::new(
            uid(&vocabulary::ENDPOINT, facts.endpoint.as_str()),
            attributes,
            vec![tenant_uid(&facts.endpoint)],
            unique(&facts.tags),
        )
    }

    pub(crate) fn listener(facts: &ListenerFacts) -> Self {
        let attributes = vec![
            attribute("tenant", tenant(&facts.listener)),
            attribute(
                "port",
                RestrictedExpression::new_long(i64::from(facts.port)),
            ),
            attribute("protocol", string(&facts.protocol)),
        ];
        Self::new(
            uid(&vocabulary::LISTENER, facts.listener.as_str()),
            attributes,
            vec![tenant_uid(&facts.listener)],
            Vec::new(),
        )
    }

    /// Replicas belong to the cluster, which is the default tenant's.
    pub(crate) fn node(replica: &str) -> Self {
        Self::new(
            uid(&vocabulary::NODE, replica),
            Vec::new(),
            vec![uid(&vocabulary::TENANT, DEFAULT_TENANT)],
            Vec::new(),
        )
    }

    pub(crate) fn viewer(facts: &ViewerFacts) -> Self {
        let mut attributes = vec![
            attribute("authenticated", RestrictedExpression::new_bool(true)),
            attribute("amr", strings(&facts.amr)),
        ];
        if let Some(issuer) = &facts.issuer {
            attributes.push(attribute("issuer", string(issuer)));
        }
        if let Some(email) = &facts.email {
            attributes.push(attribute("email", string(email)));
        }
        if let Some(verified) = facts.email_verified {
            let verified = RestrictedExpression::new_bool(verified);
            attributes.push(attribute("emailVerified", verified));
        }
        if let Some(time) = facts.auth_time_ms {
            attributes.push(attribute("authTime", datetime(time)));
        }
        Self::new(
            viewer_uid(&facts.viewer),
            attributes,
            groups_and_tenant(&facts.groups, &facts.viewer),
            unique(&facts.tags),
        )
    }

    pub(crate) fn operator(facts: &OperatorFacts) -> Self {
        let attributes = vec![
            attribute("amr", strings(&facts.amr)),
            attribute(
                "breakGlass",
                RestrictedExpression::new_bool(facts.break_glass),
            ),
        ];
        let mut ancestors: Vec<EntityUid> = facts
            .roles
            .iter()
            .map(|role| uid(&vocabulary::ROLE, role))
            .collect();
        ancestors.push(tenant_uid(&facts.operator));
        Self::new(
            uid(&vocabulary::OPERATOR, facts.operator.as_str()),
            attributes,
            ancestors,
            Vec::new(),
        )
    }

    pub(crate) fn policy_bundle(bundle: &Name, revision: u64, signed: bool) -> Self {
        let attributes = vec![
            attribute("revision", long(revision)),
            attribute("signed", RestrictedExpression::new_bool(signed)),
        ];
        Self::new(
            uid(&vocabulary::POLICY_BUNDLE, bundle.as_str()),
            attributes,
            vec![tenant_uid(bundle)],
            Vec::new(),
        )
    }

    pub(crate) fn plugin(plugin: &Name, digest: &str, signed: bool) -> Self {
        let attributes = vec![
            attribute("digest", string(digest)),
            attribute("signed", RestrictedExpression::new_bool(signed)),
        ];
        Self::new(
            uid(&vocabulary::PLUGIN, plugin.as_str()),
            attributes,
            vec![tenant_uid(plugin)],
            Vec::new(),
        )
    }
}

pub(crate) fn agent_uid(name: &Name) -> EntityUid {
    uid(&vocabulary::AGENT, name.as_str())
}

pub(crate) fn connector_uid(name: &Name) -> EntityUid {
    uid(&vocabulary::CONNECTOR, name.as_str())
}

/// A subject called `anonymous` must not become the viewer who proved nothing.
fn viewer_uid(name: &Name) -> EntityUid {
    if name.as_str() == "anonymous" {
        return uid(&vocabulary::VIEWER, "default/anonymous");
    }
    uid(&vocabulary::VIEWER, name.as_str())
}

fn tenant_uid(name: &Name) -> EntityUid {
    uid(&vocabulary::TENANT, name.tenant())
}

fn tenant(name: &Name) -> RestrictedExpression {
    RestrictedExpression::new_entity_uid(tenant_uid(name))
}

/// A group is of the tenant of what is in it, as every name is: whoever vouches for one tenant's
/// agents and viewers puts them into no group of another's.
fn groups_and_tenant(groups: &[Arc<str>], name: &Name) -> Vec<EntityUid> {
    let group = |group: &Arc<str>| {
        let group = Name::new(name.tenant(), group);
        uid(&vocabulary::GROUP, group.as_str())
    };
    let mut ancestors: Vec<EntityUid> = groups.iter().map(group).collect();
    ancestors.push(tenant_uid(name));
    ancestors
}

/// The engine refuses a label twice; the last one counts.
fn unique(tags: &[(String, String)]) -> Vec<(String, String)> {
    let mut labels: Vec<(String, String)> = Vec::with_capacity(tags.len());
    for (name, value) in tags {
        match labels.iter_mut().find(|(known, _)| known == name) {
            Some(label) => label.1.clone_from(value),
            None => labels.push((name.clone(), value.clone())),
        }
    }
    labels
}

pub(crate) fn attribute(name: &str, value: RestrictedExpression) -> (String, RestrictedExpression) {
    (name.to_owned(), value)
}

pub(crate) fn string(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

pub(crate) fn strings(values: &[String]) -> RestrictedExpression {
    RestrictedExpression::new_set(values.iter().map(|value| string(value)))
}

/// The engine's integers end at 2^63 - 1; more than that is a number nobody compares exactly.
pub(crate) fn long(value: u64) -> RestrictedExpression {
    RestrictedExpression::new_long(i64::try_from(value).unwrap_or(i64::MAX))
}
