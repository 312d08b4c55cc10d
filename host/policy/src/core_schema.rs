//! The versions of the core schema that this hub serves.
//!
//! The schema belongs to the hub. A set of policies says which version it was written for and
//! is checked, asked and explained in that version's shapes, so that an upgrade of the hub never
//! makes a set in force invalid. A version that was released never changes; the hub serves the
//! newest and the one before.

use std::collections::HashMap;
use std::sync::LazyLock;

use cedar_policy::{Entity, EntityUid, Schema, SchemaFragment};

/// A version of the core schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CoreVersion {
    /// What the first hubs served.
    V1,
    /// Adds `context.meta.recheck` and words of their own for the operator's deeds on flows,
    /// files and the hub itself.
    V2,
}

impl CoreVersion {
    /// All that are served, oldest first.
    pub const SERVED: [Self; 2] = [Self::V1, Self::V2];

    /// The newest.
    pub const CURRENT: Self = Self::V2;

    /// The version of this number, if it is served.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::SERVED
            .into_iter()
            .find(|version| version.number() == number)
    }

    /// As manifests have it.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// The text, as `nowconnect policy schema` prints it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::V1 => include_str!("../../../policies/schemas/core-1.cedarschema"),
            Self::V2 => include_str!("../../../policies/schema.cedarschema"),
        }
    }

    /// The version that a schema text says, comments and layout apart.
    pub(crate) fn of_text(fragment: &serde_json::Value) -> Option<Self> {
        Self::SERVED
            .into_iter()
            .find(|version| version.core().json == *fragment)
    }

    pub(crate) fn core(self) -> &'static Core {
        static V1: LazyLock<Core> = LazyLock::new(|| Core::new(CoreVersion::V1));
        static V2: LazyLock<Core> = LazyLock::new(|| Core::new(CoreVersion::V2));
        match self {
            Self::V1 => &V1,
            Self::V2 => &V2,
        }
    }
}

/// A version, parsed once.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) version: CoreVersion,
    pub(crate) schema: Schema,
    /// The schema in Cedar's JSON form.
    pub(crate) json: serde_json::Value,
    /// By name.
    pub(crate) actions: HashMap<String, Action>,
}

/// An action with what its questions share.
#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) uid: EntityUid,
    /// With its groups, without which `action in` would not hold.
    pub(crate) entity: Entity,
    pub(crate) groups: Vec<EntityUid>,
}

impl Core {
    fn new(version: CoreVersion) -> Self {
        let (fragment, _) = SchemaFragment::from_cedarschema_str(version.text())
            .expect("the embedded schemas are parsed by a test");
        let json = fragment
            .clone()
            .to_json_value()
            .expect("a parsed schema has a JSON form");
        let schema = Schema::from_schema_fragments([fragment])
            .expect("the embedded schemas are parsed by a test");
        let entities = schema
            .action_entities()
            .expect("the actions of a parsed schema are a hierarchy");
        let actions = entities
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
            .collect();
        Self {
            version,
            schema,
            json,
            actions,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::archive::sha256;

    #[test]
    fn every_version_parses_without_warnings_and_knows_itself() {
        for version in CoreVersion::SERVED {
            let (_, warnings) = Schema::from_cedarschema_str(version.text()).unwrap();
            assert_eq!(warnings.count(), 0);
            assert_eq!(CoreVersion::of_text(&version.core().json), Some(version));
            assert_eq!(CoreVersion::from_number(version.number()), Some(version));
        }
        assert_eq!(CoreVersion::SERVED.last(), Some(&CoreVersion::CURRENT));
        assert_eq!(CoreVersion::from_number(0), None);
    }

    #[test]
    fn a_released_version_never_changes() {
        assert_eq!(
            sha256(CoreVersion::V1.text().as_bytes()),
            "19f4ffec57f63e9b56d81280fc10c79662ef05461013550b746e46f6dde6f381"
        );
    }

    #[test]
    fn a_newer_version_only_adds() {
        let [old, new] = CoreVersion::SERVED.map(CoreVersion::core);
        let same = |part: &str| {
            let old = old.json["NowConnect"][part].as_object().unwrap();
            let new = &new.json["NowConnect"][part];
            for (name, was) in old {
                if name != "Meta" {
                    assert_eq!(*was, new[name], "{part} {name}");
                }
            }
        };
        same("entityTypes");
        same("actions");
        same("commonTypes");
        for (name, was) in old.json["NowConnect"]["commonTypes"]["Meta"]["attributes"]
            .as_object()
            .unwrap()
        {
            let now = &new.json["NowConnect"]["commonTypes"]["Meta"]["attributes"][name];
            assert_eq!(was, now, "Meta.{name}");
        }
    }

    #[test]
    fn an_action_knows_the_groups_above_its_own() {
        for version in CoreVersion::SERVED {
            let action = &version.core().actions["admin-status"];
            let mut groups: Vec<_> = action.groups.iter().map(|g| g.id().unescaped()).collect();
            groups.sort_unstable();
            assert_eq!(groups, ["admin", "admin-read"]);
        }
    }
}
