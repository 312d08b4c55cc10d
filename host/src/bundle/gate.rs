//! What a staged set must show before it comes into force.

use super::refused::{BundleRefused, codes};
use super::shadow::ShadowReport;
use super::view::ActivateRequest;
use crate::config::BundleRequire;

/// The requirements of the configuration and of the one who asks, together.
pub(crate) fn joined(configured: BundleRequire, asked: &ActivateRequest) -> BundleRequire {
    BundleRequire {
        no_new_allow: configured.no_new_allow || asked.require_no_new_allow,
        no_new_deny: configured.no_new_deny || asked.require_no_new_deny,
        proof: configured.proof || asked.require_proof,
        min_shadow_requests: configured
            .min_shadow_requests
            .max(asked.min_shadow_requests.unwrap_or(0)),
    }
}

/// Share of decisions that a comparison may have missed and still speak for the traffic.
const MOST_DROPPED_ONE_IN: u64 = 100;

/// What the shadow does not meet. A comparison that has seen nothing shows nothing, so whoever
/// requires something of it gets at least one decision. What operators ask does not count: the
/// very call that asks how far the comparison is would.
pub(crate) fn unmet(require: BundleRequire, report: Option<&ShadowReport>) -> Vec<BundleRefused> {
    let total = report.map(ShadowReport::traffic).unwrap_or_default();
    let dropped = report.map_or(0, |report| report.dropped);
    let mut unmet = Vec::new();
    let asks = require.no_new_allow || require.no_new_deny;
    let least = require.min_shadow_requests.max(u64::from(asks));
    if total.compared() < least {
        unmet.push(BundleRefused::new(
            codes::LITTLE_TRAFFIC,
            format!(
                "the shadow has compared {} decisions about agents and clients; {least} are \
                 required",
                total.compared()
            ),
        ));
    }
    if asks && dropped > total.compared() / MOST_DROPPED_ONE_IN {
        unmet.push(BundleRefused::new(
            codes::LITTLE_TRAFFIC,
            format!(
                "the shadow had no room for {dropped} decisions beside {} that it compared; at \
                 most one in {MOST_DROPPED_ONE_IN} may be missing",
                total.compared()
            ),
        ));
    }
    if require.no_new_allow && total.newly_allowed > 0 {
        unmet.push(BundleRefused::new(
            codes::NEW_ALLOW,
            format!(
                "it would have let in {} requests that were denied; `nowconnect policy shadow` \
                 shows them",
                total.newly_allowed
            ),
        ));
    }
    // A policy that cannot be evaluated denies.
    let denied = total.newly_denied + total.errors;
    if require.no_new_deny && denied > 0 {
        unmet.push(BundleRefused::new(
            codes::NEW_DENY,
            format!(
                "it would have denied {denied} requests that were let in, {} of them because of \
                 an error; `nowconnect policy shadow` shows them",
                total.errors
            ),
        ));
    }
    unmet
}

#[cfg(test)]
mod tests {
    use super::super::shadow::ShadowCounts;
    use super::*;
    use crate::telemetry::decisions::DecisionAction;

    #[test]
    fn a_comparison_that_saw_nothing_meets_nothing() {
        let none = BundleRequire::default();
        assert_eq!(unmet(none, None), []);
        let require = BundleRequire {
            no_new_allow: true,
            ..none
        };
        assert_eq!(found(require, None), [codes::LITTLE_TRAFFIC]);
        let few = report(ShadowCounts {
            same: 9,
            stale: 100,
            ..ShadowCounts::default()
        });
        assert_eq!(found(require, Some(&few)), [""; 0]);
        let many = BundleRequire {
            min_shadow_requests: 10,
            ..require
        };
        assert_eq!(found(many, Some(&few)), [codes::LITTLE_TRAFFIC]);
    }

    #[test]
    fn each_direction_has_its_code_and_an_error_counts_as_a_denial() {
        let all = BundleRequire {
            no_new_allow: true,
            no_new_deny: true,
            ..BundleRequire::default()
        };
        let counts = |newly_allowed, newly_denied, errors| ShadowCounts {
            same: 5,
            newly_allowed,
            newly_denied,
            errors,
            stale: 0,
        };
        assert_eq!(
            found(all, Some(&report(counts(1, 0, 0)))),
            [codes::NEW_ALLOW]
        );
        assert_eq!(
            found(all, Some(&report(counts(0, 1, 0)))),
            [codes::NEW_DENY]
        );
        assert_eq!(
            found(all, Some(&report(counts(0, 0, 1)))),
            [codes::NEW_DENY]
        );
        assert_eq!(found(all, Some(&report(counts(0, 0, 0)))), [""; 0]);
    }

    #[test]
    fn what_is_asked_for_only_adds_to_what_is_configured() {
        let configured = BundleRequire {
            no_new_allow: true,
            min_shadow_requests: 100,
            ..BundleRequire::default()
        };
        let asked = ActivateRequest {
            require_no_new_deny: true,
            min_shadow_requests: Some(5),
            ..ActivateRequest::default()
        };
        let together = joined(configured, &asked);
        assert!(together.no_new_allow && together.no_new_deny && !together.proof);
        assert_eq!(together.min_shadow_requests, 100);
    }

    #[test]
    fn what_operators_ask_and_what_found_no_room_shows_nothing() {
        let require = BundleRequire {
            no_new_allow: true,
            ..BundleRequire::default()
        };
        let same = ShadowCounts {
            same: 50,
            ..ShadowCounts::default()
        };
        let polled = ShadowReport {
            actions: vec![(DecisionAction::Admin, same)],
            ..ShadowReport::default()
        };
        assert_eq!(found(require, Some(&polled)), [codes::LITTLE_TRAFFIC]);
        let overrun = ShadowReport {
            dropped: 1,
            ..report(same)
        };
        assert_eq!(found(require, Some(&overrun)), [codes::LITTLE_TRAFFIC]);
        assert_eq!(found(require, Some(&report(same))), [""; 0]);
    }

    fn report(counts: ShadowCounts) -> ShadowReport {
        ShadowReport {
            actions: vec![(DecisionAction::Open, counts)],
            ..ShadowReport::default()
        }
    }

    fn found(require: BundleRequire, report: Option<&ShadowReport>) -> Vec<&'static str> {
        unmet(require, report)
            .iter()
            .map(|refused| refused.code)
            .collect()
    }
}
