//! Groups and memberships that a bundle brings along in its `entities.json`.
//!
//! The file is Cedar's entity JSON, with one rule of ours: attributes stay empty, because what
//! an agent or a connector *is* comes from the hub. The file only adds parents (`Group`s) and,
//! for labels, `tags`.
//!
//! A tenant's own file, `TENANT@entities.json`, adds that tenant's agents, connectors and viewers to
//! groups of its own, and says nothing else: in which groups of the hub something is, and which
//! labels it has, the policies of the hub read too.

mod reading;

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use cedar_policy::EntityUid;
use lru::LruCache;
use parking_lot::Mutex;

use crate::row::Row;
use crate::source::SourceFile;
use crate::vocabulary::Vocabulary;
use reading::Reading;

/// Rows kept joined with this bundle's groups. A row is a few hundred bytes, so the store ends
/// near 8 MiB.
const JOINED_ROWS: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

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

impl Groups {
    fn of(members: HashMap<EntityUid, Membership>) -> Self {
        Self {
            members,
            joined: Mutex::new(LruCache::new(JOINED_ROWS)),
        }
    }

    /// Reads the JSON of the hub's file and of those of tenants; each problem is a sentence, with
    /// the name of its file.
    pub(crate) fn read<'a>(
        files: impl Iterator<Item = &'a SourceFile>,
        vocabulary: &Vocabulary,
    ) -> Result<Self, Vec<(String, String)>> {
        let mut reading = Reading::default();
        for file in files {
            reading.file(file, vocabulary);
        }
        reading.done()
    }

    /// Reads one file of the hub's.
    #[cfg(test)]
    pub(crate) fn parse(json: &str, vocabulary: &Vocabulary) -> Result<Self, Vec<String>> {
        let file = SourceFile::new("entities.json", json);
        let read = Self::read(std::iter::once(&file), vocabulary);
        read.map_err(|problems| problems.into_iter().map(|(_, problem)| problem).collect())
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::vocabulary::{self, uid};
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
