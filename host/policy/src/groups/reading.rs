//! Files become memberships, each entry checked by itself and all of them together.

use std::collections::{HashMap, HashSet};

use cedar_policy::{Entities, Entity, EntityTypeName, EntityUid};
use serde::Deserialize;

use super::{Groups, Membership};
use crate::diagnostic::with_causes;
use crate::source::SourceFile;
use crate::tenants;
use crate::vocabulary::{self, Vocabulary};

/// Bytes of a label's value, and of its name.
const TAG_BYTES: usize = 1024;

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

/// Files on their way.
#[derive(Default)]
pub(super) struct Reading {
    entries: HashMap<EntityUid, Entry>,
    problems: Vec<(String, String)>,
}

#[derive(Default)]
struct Entry {
    parents: HashSet<EntityUid>,
    tags: Vec<(String, String)>,
    /// The file that spoke of it last.
    file: String,
}

impl Reading {
    pub(super) fn file(&mut self, file: &SourceFile, vocabulary: &Vocabulary) {
        if let Err(problem) = self.items(file, vocabulary) {
            self.problems.push((file.name.clone(), problem));
        }
    }

    fn items(&mut self, file: &SourceFile, vocabulary: &Vocabulary) -> Result<(), String> {
        let tenant = tenants::tenant_of(file);
        if let Some(tenant) = tenant {
            tenants::check_name(tenant).map_err(|(problem, _)| problem)?;
        }
        let items: Vec<Item> =
            serde_json::from_str(&file.text).map_err(|error| error.to_string())?;
        for item in items {
            let read = read_item(item, vocabulary).and_then(|read| match tenant {
                Some(tenant) => {
                    tenants::own_groups(tenant, &read.0, &read.1, &read.2).map(|()| read)
                }
                None => Ok(read),
            });
            if let Err(problem) = read.and_then(|read| self.add(file, read)) {
                self.problems.push((file.name.clone(), problem));
            }
        }
        Ok(())
    }

    fn add(&mut self, file: &SourceFile, (uid, parents, tags): ReadItem) -> Result<(), String> {
        let shown = uid.to_string();
        let entry = self.entries.entry(uid).or_default();
        if entry.file == file.name {
            return Err(format!("duplicate entity entry `{shown}`"));
        }
        entry.file.clone_from(&file.name);
        entry.parents.extend(parents);
        entry.tags.extend(tags);
        Ok(())
    }

    pub(super) fn done(mut self) -> Result<Groups, Vec<(String, String)>> {
        let listed = self.entries.iter();
        let entities =
            listed.map(|(uid, entry)| Entity::new_no_attrs(uid.clone(), entry.parents.clone()));
        let entities = match Entities::from_entities(entities, None) {
            Ok(entities) => entities,
            Err(error) => {
                // Only all of them together make a cycle.
                let file = self.entries.values().map(|entry| entry.file.clone()).min();
                self.problems
                    .push((file.unwrap_or_default(), with_causes(&error)));
                Entities::empty()
            }
        };
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let members = self
            .entries
            .into_iter()
            .map(|(uid, entry)| {
                let ancestors = entities
                    .ancestors(&uid)
                    .map(|ancestors| ancestors.cloned().collect())
                    .unwrap_or_default();
                let tags = entry.tags;
                (uid, Membership { ancestors, tags })
            })
            .collect();
        Ok(Groups::of(members))
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
