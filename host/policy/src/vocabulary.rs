//! The names of the schema, parsed once.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, Schema};

/// The text of the schema that this hub was built with.
pub(crate) const SCHEMA_TEXT: &str = include_str!("../../../policies/schema.cedarschema");

/// The namespace of everything in the schema.
pub(crate) const NAMESPACE: &str = "NowConnect";

pub(crate) static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::from_cedarschema_str(SCHEMA_TEXT)
        .expect("the embedded schema is parsed by a test")
        .0
});

/// An action with what its questions share.
#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) uid: EntityUid,
    /// With its groups, without which `action in` would not hold.
    pub(crate) entity: Entity,
    pub(crate) groups: Vec<EntityUid>,
}

static ACTIONS: LazyLock<HashMap<String, Action>> = LazyLock::new(|| {
    let entities = SCHEMA
        .action_entities()
        .expect("the actions of a parsed schema are a hierarchy");
    entities
        .iter()
        .map(|entity| {
            let uid = entity.uid();
            let groups: Vec<EntityUid> = entities
                .ancestors(&uid)
                .map(|groups| groups.cloned().collect())
                .unwrap_or_default();
            let action = Action {
                entity: entity.clone(),
                groups,
                uid: uid.clone(),
            };
            (uid.id().unescaped().to_owned(), action)
        })
        .collect()
});

/// The action of this name in the schema.
pub(crate) fn action(name: &str) -> Option<&'static Action> {
    ACTIONS.get(name)
}

macro_rules! entity_types {
    ($($constant:ident = $name:literal;)*) => {
        $(pub(crate) static $constant: LazyLock<EntityTypeName> =
            LazyLock::new(|| entity_type($name));)*
    };
}

entity_types! {
    AGENT = "Agent";
    CONNECTOR = "Connector";
    ENDPOINT = "Endpoint";
    GROUP = "Group";
    LISTENER = "Listener";
    NODE = "Node";
    OPERATOR = "Operator";
    PLUGIN = "Plugin";
    POLICY_BUNDLE = "PolicyBundle";
    ROLE = "Role";
    TENANT = "Tenant";
    VIEWER = "Viewer";
}

fn entity_type(name: &str) -> EntityTypeName {
    EntityTypeName::from_str(&format!("{NAMESPACE}::{name}"))
        .expect("the names above are identifiers")
}

/// The uid of this type and id.
pub(crate) fn uid(entity_type: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(entity_type.clone(), EntityId::new(id))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn the_schema_parses_without_warnings() {
        let (_, warnings) = Schema::from_cedarschema_str(SCHEMA_TEXT).unwrap();
        assert_eq!(warnings.count(), 0);
    }

    #[test]
    fn every_type_named_here_is_in_the_schema() {
        let known: Vec<_> = SCHEMA.entity_types().collect();
        for name in [
            &AGENT,
            &CONNECTOR,
            &ENDPOINT,
            &GROUP,
            &LISTENER,
            &NODE,
            &OPERATOR,
            &PLUGIN,
            &POLICY_BUNDLE,
            &ROLE,
            &TENANT,
            &VIEWER,
        ] {
            assert!(known.contains(&&**name), "{} is not in the schema", **name);
        }
    }

    #[test]
    fn an_action_knows_the_groups_above_its_own() {
        let action = action("admin-status").unwrap();
        let mut groups: Vec<_> = action.groups.iter().map(|g| g.id().unescaped()).collect();
        groups.sort_unstable();
        assert_eq!(groups, ["admin", "admin-read"]);
    }
}
