//! Recorded entities as another set of policies would have seen them.
//!
//! The hub records an entity with its groups and labels, those of the set in force among them.
//! For a set with another `entities.json` the old one's are taken away and its own put there. A
//! group that the hub's configuration gives too cannot be told apart and goes with the rest.

use std::collections::BTreeSet;

use cedar_policy::EntityUid;
use serde_json::{Value, json};

use crate::groups::Groups;

/// Entities in JSON with the memberships of `to` in the place of those of `from`.
pub(super) fn regroup(entities: &Value, from: &Groups, to: &Groups) -> Value {
    let mut entities = entities.clone();
    for entity in entities.as_array_mut().into_iter().flatten() {
        one(entity, from, to);
    }
    entities
}

fn one(entity: &mut Value, from: &Groups, to: &Groups) {
    let Ok(uid) = EntityUid::from_json(entity["uid"].clone()) else {
        return;
    };
    let recorded: BTreeSet<EntityUid> = entity["parents"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|parent| EntityUid::from_json(parent.clone()).ok())
        .collect();
    let gone = from.added_to(&uid, recorded.iter());
    let own: BTreeSet<EntityUid> = recorded.difference(&gone).cloned().collect();
    let come = to.added_to(&uid, own.iter());
    let parents: Vec<Value> = own.union(&come).map(uid_json).collect();
    entity["parents"] = json!(parents);
    let (old, new) = (from.tags_of(&uid), to.tags_of(&uid));
    if old == new {
        return;
    }
    if !entity["tags"].is_object() {
        entity["tags"] = json!({});
    }
    if let Some(tags) = entity["tags"].as_object_mut() {
        tags.retain(|name, value| !old.iter().any(|(gone, was)| gone == name && value == was));
        for (name, value) in new {
            tags.entry(name.clone()).or_insert_with(|| json!(value));
        }
    }
}

fn uid_json(uid: &EntityUid) -> Value {
    json!({"type": uid.type_name().to_string(), "id": uid.id().unescaped()})
}
