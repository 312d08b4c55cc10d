//! Who may do something to a thing: the policies that have a say, whoever asks.

use std::fmt;
use std::sync::Arc;

use cedar_policy::{Effect, Policy, ResourceConstraint};
use serde::Serialize;

use crate::ConnectorFacts;
use crate::bundle::PolicyBundle;
use crate::difference::PolicyChange;
use crate::row::Row;
use crate::vocabulary;

/// The policies that have a say in opening a flow to one connector. Those about other
/// connectors, groups and types are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WhoCan {
    /// One of these must apply.
    pub permits: Vec<PolicyChange>,
    /// None of these may apply.
    pub forbids: Vec<PolicyChange>,
}

impl PolicyBundle {
    /// Who may open a flow to a connector.
    #[must_use]
    pub fn who_can_open(&self, connector: &ConnectorFacts) -> WhoCan {
        let row = self.groups.join(Arc::new(Row::connector(connector)));
        let mut found = WhoCan::default();
        let Some(action) = self.vocabulary.action("open") else {
            return found;
        };
        let (viewer, kind) = (&vocabulary::VIEWER, &vocabulary::CONNECTOR);
        for policy in self.index.environment(&action.uid, viewer, kind) {
            if !is_about(policy, &row) {
                continue;
            }
            let Some(place) = self.place_of(policy.id()) else {
                continue;
            };
            let rule = PolicyChange::shown(policy, place);
            match policy.effect() {
                Effect::Permit => found.permits.push(rule),
                Effect::Forbid => found.forbids.push(rule),
            }
        }
        found
    }
}

fn is_about(policy: &Policy, row: &Row) -> bool {
    match policy.resource_constraint() {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => true,
        ResourceConstraint::Eq(uid) => uid == row.uid,
        ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
            uid == row.uid || row.ancestors.contains(&uid)
        }
    }
}

impl fmt::Display for WhoCan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.permits.is_empty() {
            return writeln!(f, "nobody: no permit is about it");
        }
        writeln!(f, "whoever one of these permits:")?;
        self.permits.iter().try_for_each(|rule| list(f, rule))?;
        if !self.forbids.is_empty() {
            writeln!(f, "and none of these forbids:")?;
            self.forbids.iter().try_for_each(|rule| list(f, rule))?;
        }
        Ok(())
    }
}

fn list(f: &mut fmt::Formatter<'_>, rule: &PolicyChange) -> fmt::Result {
    writeln!(f, "  `{}` ({})", rule.id, rule.place)?;
    for line in rule.lines.iter().flat_map(|piece| piece.lines()) {
        writeln!(f, "    {line}")?;
    }
    Ok(())
}
