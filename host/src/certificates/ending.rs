//! Certificates that end so soon that somebody should look.
//!
//! What is issued here is renewed with a third of its life left, and others are renewed likewise: a
//! certificate with a sixth left, or a week where that is less, is one whose renewal fails or that
//! nobody renews.

use crate::certificates::view::{CertificateSource, CertificateStatus};
use crate::hub::{Hub, now_ms};

const LEFT_ONE_IN: i64 = 6;
const WEEK_S: i64 = 7 * 86_400;
/// Names in one sentence.
const MAX_NAMED: usize = 3;

/// Whether a certificate of this life, in seconds since 1970, ends soon, or has ended. One whose
/// beginning is not known counts as one of months.
pub(super) fn is_ending(not_before: Option<i64>, not_after: i64, now: i64) -> bool {
    let sixth = not_before.map_or(WEEK_S, |begin| {
        not_after.saturating_sub(begin).max(0) / LEFT_ONE_IN
    });
    not_after.saturating_sub(now) < sixth.min(WEEK_S)
}

/// What of all certificates there is to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ending {
    /// What ends soon: names, or keys of the configuration.
    names: Vec<String>,
    /// Names whose last order failed.
    failing: usize,
}

impl Ending {
    /// Of those of the HTTP ports, and of the ports for agents and operators.
    pub(super) fn of(hub: &Hub, all: &[CertificateStatus]) -> Self {
        let now = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
        let tunnel = hub.tunnel_tls().and_then(|tls| tls.life());
        let access = hub.admin_access.load();
        let admin = access.as_ref().and_then(|access| access.life());
        let ports = [("tunnel.tls", tunnel), ("admin.tls", admin)];
        let ports = ports.into_iter().filter_map(|(key, life)| {
            let (begin, end) = life?;
            is_ending(Some(begin), end, now).then(|| key.to_owned())
        });
        let names = all.iter().filter(|one| one.ending).filter_map(|one| {
            let first = one.names.first().or(one.file.as_ref())?;
            Some(first.clone())
        });
        let failing = all.iter().filter(|one| {
            one.source == CertificateSource::Acme && one.failures > 0 && !one.under_way
        });
        Self {
            names: ports.chain(names).collect(),
            failing: failing.count(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.names.len()
    }

    pub(super) fn failing(&self) -> usize {
        self.failing
    }

    /// For the operator; `None` where nothing ends soon.
    pub(super) fn sentence(&self) -> Option<String> {
        let named = self.names.get(..MAX_NAMED).unwrap_or(&self.names);
        let more = self.names.len() - named.len();
        let named = named.join(", ");
        match (self.names.len(), more) {
            (0, _) => None,
            (_, 0) => Some(named),
            (_, more) => Some(format!("{named} and {more} more")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: i64 = 86_400;

    #[test]
    fn a_sixth_of_a_life_or_a_week_is_soon() {
        for (days, left_s, ending) in [
            // The third of its life that is left when it is renewed, and what is too little.
            (90, 30 * DAY_S, false),
            (90, 7 * DAY_S, false),
            (90, 7 * DAY_S - 1, true),
            (365, 8 * DAY_S, false),
            (6, 2 * DAY_S, false),
            (6, DAY_S - 1, true),
            (1, 5 * 3600, false),
            (1, 3 * 3600, true),
            (90, -1, true),
        ] {
            let (begin, end) = (1_000_000, 1_000_000 + days * DAY_S);
            let now = end - left_s;
            assert_eq!(is_ending(Some(begin), end, now), ending, "{days} {left_s}");
        }
        assert!(is_ending(None, 6 * DAY_S, 0) && !is_ending(None, 8 * DAY_S, 0));
        assert!(is_ending(Some(i64::MAX), i64::MIN, 0), "no life at all");
    }

    #[test]
    fn a_few_are_named_and_the_others_counted() {
        let told = |count: usize| {
            let names = (1..=count).map(|number| format!("n{number}"));
            let ending = Ending {
                names: names.collect(),
                failing: 0,
            };
            ending.sentence()
        };
        assert_eq!(told(0), None);
        assert_eq!(told(3).as_deref(), Some("n1, n2, n3"));
        assert_eq!(told(5).as_deref(), Some("n1, n2, n3 and 2 more"));
    }
}
