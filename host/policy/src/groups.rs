//! Groups and memberships that a bundle brings along in its `entities.json`.
//!
//! The file is Cedar's entity JSON, with one rule of ours: attributes stay empty, because what
//! an agent or a connector *is* comes from the hub. The file only adds parents (`Group`s) and,
//! for labels, `tags`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use cedar_policy::{Entities, Entity, EntityTypeName, EntityUid};
use lru::LruCache;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::diagnostic::with_causes;
use crate::row::Row;
use crate::vocabulary::{self, Vocabulary};

/// Rows kept joined with this bundle's groups. A row is a few hundred bytes, so the store ends
/// near 8 MiB.
const JOINED_ROWS: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

/// Bytes of a label's value, and of its name.
const TAG_BYTES: usize = 1024;

#[derive(Debug, Default)]
struct Membership {
    /// All of them, not only the parents.
    ancestors: Vec<EntityUid>,
    tags: Vec<(String, String)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Groups {
    members: HashMap<EntityUid, Membership>,
    joined: Mutex<LruCache<EntityUid, Joined>>,
}

#[derive(Debug)]
struct Joined {
    from: Arc<Row>,
    to: Arc<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    uid: serde_json::Value,
    #[serde(default)]
    attrs: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    parents: Vec<serde_json::Value>,
    #[serde(default)]
    tags: serde_json::Map<String, serde_json::Value>,
}

impl Groups {
    pub(crate) fn none() -> Self {
        Self::of(HashMap::new())
    }

    fn of(members: HashMap<EntityUid, Membership>) -> Self {
        Self {
            members,
            joined: Mutex::new(LruCache::new(JOINED_ROWS)),
        }
    }

    /// Reads the JSON; each problem is a sentence.
    pub(crate) fn parse(json: &str, vocabulary: &Vocabulary) -> Result<Self, Vec<String>> {
        let items: Vec<Item> =
            serde_json::from_str(json).map_err(|error| vec![error.to_string()])?;
        let mut problems = Vec::new();
        let mut entities = Vec::new();
        let mut tags = HashMap::new();
        for item in items {
            match read_item(item, vocabulary) {
                Ok((uid, parents, labels)) => {
                    entities.push(Entity::new_no_attrs(uid.clone(), parents));
                    tags.insert(uid, labels);
                }
                Err(problem) => problems.push(problem),
            }
        }
        let entities = match Entities::from_entities(entities, None) {
            Ok(entities) => entities,
            Err(error) => {
                problems.push(with_causes(&error));
                Entities::empty()
            }
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let members = tags
            .into_iter()
            .map(|(uid, tags)| {
                let ancestors = entities
                    .ancestors(&uid)
                    .map(|ancestors| ancestors.cloned().collect())
                    .unwrap_or_default();
                (uid, Membership { ancestors, tags })
            })
            .collect();
        Ok(Self::of(members))
    }

    /// What an entity is in because of this file, besides what it is in anyway.
    pub(crate) fn added_to<'a>(
        &self,
        uid: &'a EntityUid,
        ancestors: impl Iterator<Item = &'a EntityUid>,
    ) -> BTreeSet<EntityUid> {
        ancestors
            .chain([uid])
            .filter_map(|member| self.members.get(member))
            .flat_map(|membership| membership.ancestors.iter().cloned())
            .collect()
    }

    /// The labels that this file gives an entity.
    pub(crate) fn tags_of(&self, uid: &EntityUid) -> &[(String, String)] {
        self.members
            .get(uid)
            .map(|membership| membership.tags.as_slice())
            .unwrap_or_default()
    }

    /// The row with what this bundle knows about it and about its groups.
    pub(crate) fn join(&self, row: Arc<Row>) -> Arc<Row> {
        if self.members.is_empty() {
            return row;
        }
        let own = self.members.get(&row.uid);
        let of_groups = || {
            row.ancestors
                .iter()
                .filter_map(|group| self.members.get(group))
        };
        if own.is_none() && of_groups().all(|group| group.ancestors.is_empty()) {
            return row;
        }
        if let Some(joined) = self.joined.lock().get(&row.uid)
            && Arc::ptr_eq(&joined.from, &row)
        {
            return Arc::clone(&joined.to);
        }
        let ancestors: Vec<EntityUid> = own
            .into_iter()
            .chain(of_groups())
            .flat_map(|membership| membership.ancestors.iter().cloned())
            .collect();
        let tags = own
            .map(|membership| membership.tags.as_slice())
            .unwrap_or_default();
        let to = Arc::new(row.joined(&ancestors, tags));
        let joined = Joined {
            from: Arc::clone(&row),
            to: Arc::clone(&to),
        };
        self.joined.lock().put(row.uid.clone(), joined);
        to
    }
}

type ReadItem = (EntityUid, HashSet<EntityUid>, Vec<(String, String)>);

fn read_item(item: Item, vocabulary: &Vocabulary) -> Result<ReadItem, String> {
    let uid = EntityUid::from_json(item.uid).map_err(|error| format!("bad uid: {error}"))?;
    let of_core = allowed_parents(uid.type_name());
    let of_extension = vocabulary.parents.get(uid.type_name());
    if of_core.is_none() && of_extension.is_none() {
        return Err(format!(
            "`{uid}`: entities of this type do not belong in this file"
        ));
    }
    is_listed(&uid, vocabulary)?;
    let may_be_in = |parent: &EntityTypeName| {
        let core = of_core.into_iter().flatten().any(|name| **name == *parent);
        core || of_extension.is_some_and(|types| types.contains(parent))
    };
    if let Some(attribute) = item.attrs.keys().next() {
        return Err(format!(
            "`{uid}`: attribute `{attribute}` is the hub's to know; leave `attrs` empty and use \
             `parents` or `tags`"
        ));
    }
    let mut parents = HashSet::new();
    for parent in item.parents {
        let parent = EntityUid::from_json(parent)
            .map_err(|error| format!("`{uid}`: bad parent: {error}"))?;
        if !may_be_in(parent.type_name()) {
            return Err(format!("`{uid}` cannot be in `{parent}`"));
        }
        is_listed(&parent, vocabulary)?;
        parents.insert(parent);
    }
    if !item.tags.is_empty() && !has_tags(uid.type_name()) {
        return Err(format!("`{uid}`: entities of this type have no tags"));
    }
    let mut tags = Vec::new();
    for (name, value) in item.tags {
        let serde_json::Value::String(value) = value else {
            return Err(format!("`{uid}`: tag `{name}` must be a string"));
        };
        if name.len() > TAG_BYTES || value.len() > TAG_BYTES {
            return Err(format!(
                "`{uid}`: tag `{name}` has more than {TAG_BYTES} bytes"
            ));
        }
        tags.push((name, value));
    }
    Ok((uid, parents, tags))
}

/// An entity of a type with a closed list of ids has one of these.
fn is_listed(uid: &EntityUid, vocabulary: &Vocabulary) -> Result<(), String> {
    match vocabulary.closed.get(uid.type_name()) {
        Some(ids) if !ids.contains(uid.id().unescaped()) => Err(format!(
            "`{uid}` is none of the entities that the extension lists for its type"
        )),
        Some(_) | None => Ok(()),
    }
}

/// What the schema lets an entity of this type be in and a file may say. A tenant is never
/// given by a file: it is part of the name.
fn allowed_parents(entity_type: &EntityTypeName) -> Option<&'static [&'static EntityTypeName]> {
    static GROUP: std::sync::LazyLock<[&'static EntityTypeName; 1]> =
        std::sync::LazyLock::new(|| [&*vocabulary::GROUP]);
    static ROLE: std::sync::LazyLock<[&'static EntityTypeName; 1]> =
        std::sync::LazyLock::new(|| [&*vocabulary::ROLE]);
    let grouped = [
        &*vocabulary::GROUP,
        &*vocabulary::AGENT,
        &*vocabulary::CONNECTOR,
        &*vocabulary::VIEWER,
    ];
    if grouped.contains(&entity_type) {
        return Some(&*GROUP);
    }
    if *entity_type == *vocabulary::OPERATOR {
        return Some(&*ROLE);
    }
    (*entity_type == *vocabulary::ENDPOINT).then_some(&[])
}

fn has_tags(entity_type: &EntityTypeName) -> bool {
    [
        &*vocabulary::AGENT,
        &*vocabulary::CONNECTOR,
        &*vocabulary::VIEWER,
        &*vocabulary::OPERATOR,
        &*vocabulary::ENDPOINT,
    ]
    .contains(&entity_type)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::vocabulary::uid;
    use crate::{ConnectorFacts, CoreVersion, Name};

    fn core() -> Vocabulary {
        Vocabulary::of(CoreVersion::CURRENT)
    }

    #[test]
    fn a_row_gains_the_groups_of_its_groups() {
        let groups = Groups::parse(
            r#"[{"uid": {"type": "NowConnect::Connector", "id": "ldap"},
                 "parents": [{"type": "NowConnect::Group", "id": "directory"}],
                 "tags": {"zone": "inner"}},
                {"uid": {"type": "NowConnect::Group", "id": "directory"},
                 "parents": [{"type": "NowConnect::Group", "id": "crown-jewels"}]}]"#,
            &core(),
        )
        .unwrap();
        let row = Arc::new(Row::connector(&ConnectorFacts::tcp(Name::bare("ldap"))));
        let joined = groups.join(Arc::clone(&row));
        for group in ["directory", "crown-jewels"] {
            assert!(joined.ancestors.contains(&uid(&vocabulary::GROUP, group)));
        }
        assert!(
            joined
                .ancestors
                .contains(&uid(&vocabulary::TENANT, "default"))
        );
        assert!(joined.entity.tag("zone").is_some());
        assert!(Arc::ptr_eq(&joined, &groups.join(row)), "joined twice");
    }

    #[test]
    fn a_row_that_nobody_mentions_is_left_alone() {
        let groups = Groups::parse(
            r#"[{"uid": {"type": "NowConnect::Group", "id": "a"}, "parents": []}]"#,
            &core(),
        )
        .unwrap();
        let row = Arc::new(Row::connector(&ConnectorFacts::tcp(Name::bare("ldap"))));
        assert!(Arc::ptr_eq(&row, &groups.join(Arc::clone(&row))));
    }

    #[test]
    fn what_is_the_hubs_to_know_is_refused() {
        for (json, part) in [
            (
                r#"[{"uid": {"type": "NowConnect::Agent", "id": "a"}, "attrs": {"ephemeral": true}}]"#,
                "attribute `ephemeral`",
            ),
            (
                r#"[{"uid": {"type": "NowConnect::Agent", "id": "a"},
                     "parents": [{"type": "NowConnect::Tenant", "id": "acme"}]}]"#,
                "cannot be in",
            ),
            (
                r#"[{"uid": {"type": "NowConnect::Tenant", "id": "a"}}]"#,
                "do not belong",
            ),
            (
                r#"[{"uid": {"type": "NowConnect::Group", "id": "a"}, "tags": {"x": "y"}}]"#,
                "no tags",
            ),
            (
                r#"[{"uid": {"type": "NowConnect::Group", "id": "a"},
                     "parents": [{"type": "NowConnect::Group", "id": "b"}]},
                    {"uid": {"type": "NowConnect::Group", "id": "b"},
                     "parents": [{"type": "NowConnect::Group", "id": "a"}]}]"#,
                "cycle",
            ),
        ] {
            let problems = Groups::parse(json, &core()).unwrap_err().join("; ");
            assert!(
                problems.contains(part),
                "`{problems}` does not say `{part}`"
            );
        }
    }
}
