//! Which parts of the context the policies about an action read.
//!
//! To read a part in costs the engine as much as to evaluate a policy, and a set of policies looks
//! at few of them. Whether one does is judged by its text, on the safe side: `context.net` and
//! `context has net` read that part; whoever uses `context` in any other way, where the name could
//! be spelt with escapes or be part of a whole, is taken to read all of it.

use std::collections::HashMap;

use cedar_policy::{EntityUid, Policy};

use crate::index::action_fits;
use crate::vocabulary::Vocabulary;

/// Parts of the context, as the schema names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    Agent,
    AgentVersion,
    Announced,
    Claimed,
    Connector,
    Epoch,
    Http,
    Meta,
    Net,
    OpenEndpoints,
    OpenFlows,
    OriginGeneration,
    OriginViewer,
    Replacing,
    ScopesRequired,
    Signals,
    SignalsMissing,
    ViaMesh,
    Why,
}

impl Part {
    const ALL: [Self; 19] = [
        Self::Agent,
        Self::AgentVersion,
        Self::Announced,
        Self::Claimed,
        Self::Connector,
        Self::Epoch,
        Self::Http,
        Self::Meta,
        Self::Net,
        Self::OpenEndpoints,
        Self::OpenFlows,
        Self::OriginGeneration,
        Self::OriginViewer,
        Self::Replacing,
        Self::ScopesRequired,
        Self::Signals,
        Self::SignalsMissing,
        Self::ViaMesh,
        Self::Why,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::AgentVersion => "agentVersion",
            Self::Announced => "announced",
            Self::Claimed => "claimed",
            Self::Connector => "connector",
            Self::Epoch => "epoch",
            Self::Http => "http",
            Self::Meta => "meta",
            Self::Net => "net",
            Self::OpenEndpoints => "openEndpoints",
            Self::OpenFlows => "openFlows",
            Self::OriginGeneration => "originGeneration",
            Self::OriginViewer => "originViewer",
            Self::Replacing => "replacing",
            Self::ScopesRequired => "scopesRequired",
            Self::Signals => "signals",
            Self::SignalsMissing => "signalsMissing",
            Self::ViaMesh => "viaMesh",
            Self::Why => "why",
        }
    }
}

/// A set of parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts(u32);

impl Parts {
    pub(crate) const ALL: Self = Self(u32::MAX);

    pub(crate) const fn has(self, part: Part) -> bool {
        self.0 & (1 << part as u8) != 0
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The part of that name. A name that is none of them is nothing that a request has.
    fn named(name: &str) -> Self {
        Part::ALL
            .into_iter()
            .find(|part| part.name() == name)
            .map_or(Self::default(), |part| Self(1 << part as u8))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ContextReaders {
    actions: HashMap<EntityUid, Parts>,
}

impl ContextReaders {
    pub(crate) fn of(policies: &[Policy], vocabulary: &Vocabulary) -> Self {
        let readers: Vec<_> = policies
            .iter()
            .map(|policy| {
                let read = policy.to_cedar().map_or(Parts::ALL, |text| read_in(&text));
                (policy.action_constraint(), read)
            })
            .filter(|(_, read)| *read != Parts::default())
            .collect();
        let actions = vocabulary
            .schema
            .actions()
            .map(|uid| {
                let groups = vocabulary
                    .action(uid.id().unescaped())
                    .map(|action| action.groups.as_slice())
                    .unwrap_or_default();
                let read = readers
                    .iter()
                    .filter(|(constraint, _)| action_fits(constraint, uid, groups))
                    .fold(Parts::default(), |read, (_, more)| read.and(*more));
                (uid.clone(), read)
            })
            .collect();
        Self { actions }
    }

    /// What policies about `action` read.
    pub(crate) fn of_action(&self, action: &EntityUid) -> Parts {
        self.actions.get(action).copied().unwrap_or(Parts::ALL)
    }
}

fn read_in(text: &str) -> Parts {
    text.match_indices("context")
        .map(|(at, word)| {
            let rest = text.get(at + word.len()..).unwrap_or_default();
            let rest = rest.trim_start();
            let name = rest
                .strip_prefix('.')
                .or_else(|| {
                    rest.strip_prefix("has")
                        .filter(|name| name.starts_with(char::is_whitespace))
                })
                .map(|name| identifier(name.trim_start()));
            match name {
                Some(name) if !name.is_empty() => Parts::named(name),
                _ => Parts::ALL,
            }
        })
        .fold(Parts::default(), Parts::and)
}

/// The identifier at the beginning, or nothing.
fn identifier(text: &str) -> &str {
    let end = text
        .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_use_reads_the_part_that_it_names() {
        for (text, name) in [
            ("context.openFlows < 3", "openFlows"),
            ("context . net.srcPort == 1", "net"),
            ("context has net", "net"),
            ("context has http.path", "http"),
            ("context.signalsMissing.isEmpty()", "signalsMissing"),
            ("resource.meta == context.why", "why"),
        ] {
            assert_eq!(read_in(text), Parts::named(name), "{text}");
        }
        assert_eq!(
            read_in("context.openFlows < 3 && context has nothing"),
            Parts::named("openFlows")
        );
        assert_eq!(read_in("principal.authenticated"), Parts::default());
        let both = read_in("context has net && context.meta.recheck");
        assert_eq!(both, Parts::named("net").and(Parts::named("meta")));
    }

    #[test]
    fn any_other_use_is_taken_to_read_all() {
        for text in [
            "context[\"m\\u{65}ta\"].now < x",
            "[context].contains(x)",
            "(context).meta.now < x",
            "context == x",
            "context has \"m\\u{65}ta\"",
            "context // sly\n.meta",
            "context. // sly\nmeta",
            "if context has // sly\n meta then true else false",
        ] {
            assert_eq!(read_in(text), Parts::ALL, "{text}");
        }
    }

    #[test]
    fn every_part_has_a_bit_and_a_name_of_its_own() {
        let mut seen = Parts::default();
        for part in Part::ALL {
            assert!(!seen.has(part), "{}", part.name());
            assert!(Parts::named(part.name()).has(part));
            seen = seen.and(Parts::named(part.name()));
        }
    }
}
