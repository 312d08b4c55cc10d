//! Which policies a request has to be asked of.
//!
//! The engine walks all policies of the set it is given. Here the set is cut down first, by two
//! keys that a policy's scope gives: the environment (type of principal, action, type of
//! resource), and the one entity that the scope names as resource, or else as principal. What
//! is left out has a scope that does not match: it can neither permit, nor forbid, nor fail,
//! because the scope is evaluated before any condition and cannot itself fail.
//!
//! Only the scope's text is used, never the type checker, so this holds for every request.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use cedar_policy::{
    ActionConstraint, EntityTypeName, EntityUid, Policy, PolicySet, PrincipalConstraint,
    ResourceConstraint,
};
use lru::LruCache;
use parking_lot::Mutex;

use crate::vocabulary::Vocabulary;

/// Cut-down sets kept. Each holds pointers to a handful of policies, some kilobytes in all.
const KEPT_SETS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    policies: Vec<Policy>,
    environments: HashMap<EnvironmentKey, Environment>,
    kept: Mutex<LruCache<SetKey, Arc<PolicySet>>>,
}

type EnvironmentKey = (EntityUid, EntityTypeName, EntityTypeName);

/// An environment, and which of its shelves a request reaches.
type SetKey = (u32, Vec<u32>);

#[derive(Debug, Default)]
struct Environment {
    number: u32,
    /// Policies whose scope names no entity.
    base: Vec<u32>,
    base_set: Arc<PolicySet>,
    by_resource: HashMap<EntityUid, Shelf>,
    by_principal: HashMap<EntityUid, Shelf>,
}

/// Policies whose scope names the same entity.
#[derive(Debug)]
struct Shelf {
    number: u32,
    /// `== entity`
    exact: Vec<u32>,
    /// `in entity`
    below: Vec<u32>,
}

/// An entity that a request names, with all its ancestors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) uid: &'a EntityUid,
    pub(crate) ancestors: &'a [EntityUid],
}

impl Index {
    pub(crate) fn new(policies: Vec<Policy>, vocabulary: &Vocabulary) -> Self {
        let mut environments = HashMap::new();
        for (number, env) in vocabulary.schema.request_envs().enumerate() {
            let number = u32::try_from(number).expect("the schema has few environments");
            let groups = vocabulary
                .action(env.action().id().unescaped())
                .map(|action| action.groups.as_slice())
                .unwrap_or_default();
            let key = (
                env.action().clone(),
                env.principal().clone(),
                env.resource().clone(),
            );
            let environment = Environment::new(number, &key, groups, &policies);
            environments.insert(key, environment);
        }
        Self {
            policies,
            environments,
            kept: Mutex::new(LruCache::new(KEPT_SETS)),
        }
    }

    /// The policies that can matter to a request. `None` where the schema knows no such request.
    pub(crate) fn select(
        &self,
        action: &EntityUid,
        principal: Place<'_>,
        resource: Place<'_>,
    ) -> Option<Arc<PolicySet>> {
        let key = (
            action.clone(),
            principal.uid.type_name().clone(),
            resource.uid.type_name().clone(),
        );
        let environment = self.environments.get(&key)?;
        let mut shelves = Vec::new();
        reach(&environment.by_resource, resource, &mut shelves);
        reach(&environment.by_principal, principal, &mut shelves);
        if shelves.is_empty() {
            return Some(Arc::clone(&environment.base_set));
        }
        shelves.sort_unstable_by_key(|(number, _)| *number);
        let numbers = shelves.iter().map(|(number, _)| *number).collect();
        let key = (environment.number, numbers);
        if let Some(set) = self.kept.lock().get(&key) {
            return Some(Arc::clone(set));
        }
        let chosen = environment
            .base
            .iter()
            .chain(shelves.iter().flat_map(|(_, policies)| policies.iter()));
        let set = Arc::new(set_of(&self.policies, chosen.copied()));
        self.kept.lock().put(key, Arc::clone(&set));
        Some(set)
    }

    /// All policies as the engine wants them.
    pub(crate) fn whole(&self) -> PolicySet {
        PolicySet::from_policies(self.policies.iter().cloned())
            .expect("ids were checked to differ, and none is linked")
    }

    pub(crate) fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// All policies of a request's environment, whatever entity their scope names.
    pub(crate) fn environment(
        &self,
        action: &EntityUid,
        principal: &EntityTypeName,
        resource: &EntityTypeName,
    ) -> Vec<&Policy> {
        let key = (action.clone(), principal.clone(), resource.clone());
        let Some(environment) = self.environments.get(&key) else {
            return Vec::new();
        };
        let shelves = environment
            .by_resource
            .values()
            .chain(environment.by_principal.values())
            .flat_map(|shelf| shelf.exact.iter().chain(&shelf.below));
        let mut numbers: Vec<u32> = environment.base.iter().chain(shelves).copied().collect();
        numbers.sort_unstable();
        numbers
            .iter()
            .filter_map(|number| self.policies.get(*number as usize))
            .collect()
    }
}

impl Environment {
    fn new(
        number: u32,
        key: &EnvironmentKey,
        action_groups: &[EntityUid],
        policies: &[Policy],
    ) -> Self {
        let mut environment = Self {
            number,
            ..Self::default()
        };
        let (action, principal, resource) = key;
        for (position, policy) in policies.iter().enumerate() {
            let position = u32::try_from(position).expect("a bundle has at most 10,000 policies");
            if action_fits(&policy.action_constraint(), action, action_groups) {
                environment.place(position, policy, principal, resource);
            }
        }
        environment.base_set = Arc::new(set_of(policies, environment.base.iter().copied()));
        environment
    }

    fn place(
        &mut self,
        position: u32,
        policy: &Policy,
        principal: &EntityTypeName,
        resource: &EntityTypeName,
    ) {
        let principal_fit = principal_fit(policy.principal_constraint(), principal);
        let resource_fit = resource_fit(policy.resource_constraint(), resource);
        let shelves = self.by_resource.len() + self.by_principal.len();
        let shelves = u32::try_from(shelves).expect("there are no more shelves than policies");
        match (principal_fit, resource_fit) {
            (Fit::No, _) | (_, Fit::No) => {}
            (Fit::Any, Fit::Any) => self.base.push(position),
            (_, Fit::Exact(uid)) => {
                shelf(&mut self.by_resource, uid, shelves)
                    .exact
                    .push(position);
            }
            (_, Fit::Below(uid)) => {
                shelf(&mut self.by_resource, uid, shelves)
                    .below
                    .push(position);
            }
            (Fit::Exact(uid), Fit::Any) => {
                shelf(&mut self.by_principal, uid, shelves)
                    .exact
                    .push(position);
            }
            (Fit::Below(uid), Fit::Any) => {
                shelf(&mut self.by_principal, uid, shelves)
                    .below
                    .push(position);
            }
        }
    }
}

fn shelf(shelves: &mut HashMap<EntityUid, Shelf>, uid: EntityUid, number: u32) -> &mut Shelf {
    shelves.entry(uid).or_insert_with(|| Shelf {
        number,
        exact: Vec::new(),
        below: Vec::new(),
    })
}

/// Adds the shelves that an entity reaches: what names itself, and what names an ancestor.
/// A shelf counts twice in the numbering, because only the entity itself reaches `exact`.
fn reach<'a>(
    shelves: &'a HashMap<EntityUid, Shelf>,
    place: Place<'_>,
    reached: &mut Vec<(u32, &'a [u32])>,
) {
    if shelves.is_empty() {
        return;
    }
    if let Some(shelf) = shelves.get(place.uid) {
        reached.push((shelf.number * 2, &shelf.exact));
        reached.push((shelf.number * 2 + 1, &shelf.below));
    }
    for ancestor in place.ancestors {
        if ancestor != place.uid
            && let Some(shelf) = shelves.get(ancestor)
            && !shelf.below.is_empty()
        {
            reached.push((shelf.number * 2 + 1, &shelf.below));
        }
    }
}

fn set_of(policies: &[Policy], positions: impl Iterator<Item = u32>) -> PolicySet {
    let chosen = positions.filter_map(|position| policies.get(position as usize).cloned());
    PolicySet::from_policies(chosen).expect("ids were checked to differ, and none is linked")
}

/// Whether a side of a scope can match in an environment, and which entity it names.
enum Fit {
    No,
    Any,
    Exact(EntityUid),
    Below(EntityUid),
}

fn principal_fit(constraint: PrincipalConstraint, principal: &EntityTypeName) -> Fit {
    match constraint {
        PrincipalConstraint::Any => Fit::Any,
        PrincipalConstraint::Is(named) => typed(&named, principal, Fit::Any),
        PrincipalConstraint::Eq(uid) => typed(&uid.type_name().clone(), principal, Fit::Exact(uid)),
        PrincipalConstraint::In(uid) => Fit::Below(uid),
        PrincipalConstraint::IsIn(named, uid) => typed(&named, principal, Fit::Below(uid)),
    }
}

fn resource_fit(constraint: ResourceConstraint, resource: &EntityTypeName) -> Fit {
    match constraint {
        ResourceConstraint::Any => Fit::Any,
        ResourceConstraint::Is(named) => typed(&named, resource, Fit::Any),
        ResourceConstraint::Eq(uid) => typed(&uid.type_name().clone(), resource, Fit::Exact(uid)),
        ResourceConstraint::In(uid) => Fit::Below(uid),
        ResourceConstraint::IsIn(named, uid) => typed(&named, resource, Fit::Below(uid)),
    }
}

fn typed(named: &EntityTypeName, actual: &EntityTypeName, fit: Fit) -> Fit {
    if named == actual { fit } else { Fit::No }
}

pub(crate) fn action_fits(
    constraint: &ActionConstraint,
    action: &EntityUid,
    groups: &[EntityUid],
) -> bool {
    match constraint {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => uid == action,
        ActionConstraint::In(uids) => uids.iter().any(|uid| uid == action || groups.contains(uid)),
    }
}

#[cfg(test)]
mod tests;
