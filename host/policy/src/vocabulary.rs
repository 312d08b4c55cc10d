//! What a set of policies can name: the core schema of its version with what it adds itself.

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema};

use crate::core_schema::{Action, Core, CoreVersion};

/// The namespace of everything in the core schema.
pub(crate) const NAMESPACE: &str = "NowConnect";

/// See the module.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pub(crate) core: &'static Core,
    /// The core with the extension.
    pub(crate) schema: Schema,
    /// The same in Cedar's JSON form.
    pub(crate) json: serde_json::Value,
    /// Annotations that the set has a use for.
    pub(crate) annotations: BTreeSet<String>,
    /// What an entity may be in besides the core's own groups, by its type.
    pub(crate) parents: HashMap<EntityTypeName, Vec<EntityTypeName>>,
    /// The ids of types that have a closed list of them.
    pub(crate) closed: HashMap<EntityTypeName, BTreeSet<String>>,
}

impl Vocabulary {
    /// The core alone.
    pub(crate) fn of(version: CoreVersion) -> Self {
        let core = version.core();
        Self {
            core,
            schema: core.schema.clone(),
            json: core.json.clone(),
            annotations: BTreeSet::new(),
            parents: HashMap::new(),
            closed: HashMap::new(),
        }
    }

    pub(crate) fn action(&self, name: &str) -> Option<&'static Action> {
        self.core.actions.get(name)
    }
}

macro_rules! entity_types {
    ($($constant:ident = $name:literal;)*) => {
        $(pub(crate) static $constant: LazyLock<EntityTypeName> =
            LazyLock::new(|| entity_type($name));)*

        #[cfg(test)]
        static ALL: &[&LazyLock<EntityTypeName>] = &[$(&$constant),*];
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
    use super::*;

    #[test]
    fn every_type_named_here_is_in_every_core() {
        for version in CoreVersion::SERVED {
            let known: Vec<_> = version.core().schema.entity_types().collect();
            for name in ALL {
                let name: &EntityTypeName = name;
                assert!(known.contains(&name), "{name} is not in {version:?}");
            }
        }
    }
}
