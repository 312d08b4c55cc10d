//! Which actions have a policy that reads `context.meta`.
//!
//! Its time alone costs the engine a quarter of a decision to read in, and few policies look at
//! it. Whether one does is judged by its text, on the safe side: a policy is taken to read it if
//! the word `meta` stands anywhere in it, or if it uses `context` in any way but `context.name`
//! or `context has name`, where the name could be spelt with escapes or be part of a whole.

use std::collections::HashSet;

use cedar_policy::{EntityUid, Policy};

use crate::index::action_fits;
use crate::vocabulary::Vocabulary;

/// See the module.
#[derive(Debug)]
pub(crate) struct MetaReaders {
    actions: HashSet<EntityUid>,
}

impl MetaReaders {
    pub(crate) fn of(policies: &[Policy], vocabulary: &Vocabulary) -> Self {
        let constraints: Vec<_> = policies
            .iter()
            .filter(|policy| policy.to_cedar().is_none_or(|text| may_read(&text)))
            .map(Policy::action_constraint)
            .collect();
        let actions = vocabulary
            .schema
            .actions()
            .filter(|uid| {
                let groups = vocabulary
                    .action(uid.id().unescaped())
                    .map(|action| action.groups.as_slice())
                    .unwrap_or_default();
                constraints
                    .iter()
                    .any(|constraint| action_fits(constraint, uid, groups))
            })
            .cloned()
            .collect();
        Self { actions }
    }

    pub(crate) fn read_by(&self, action: &EntityUid) -> bool {
        self.actions.contains(action)
    }
}

fn may_read(text: &str) -> bool {
    text.contains("meta")
        || text.match_indices("context").any(|(at, word)| {
            let rest = text.get(at + word.len()..).unwrap_or_default();
            let rest = rest.trim_start();
            let plain = rest.starts_with('.')
                || rest
                    .strip_prefix("has")
                    .is_some_and(|name| !name.trim_start().starts_with('"'));
            !plain
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_use_of_another_part_is_taken_not_to_read_it() {
        for text in [
            "context.openFlows < 3",
            "context . net.srcPort == 1",
            "context has net",
        ] {
            assert!(!may_read(text), "{text}");
        }
        for text in [
            "context.meta.now < x",
            "context[\"m\\u{65}ta\"].now < x",
            "[context].contains(x)",
            "context == x",
            "context has \"m\\u{65}ta\"",
            "context // sly\n.meta",
        ] {
            assert!(may_read(text), "{text}");
        }
    }
}
