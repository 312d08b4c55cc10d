//! What every implementation has to do. Each check takes names of its own, so that all can run
//! on one store; nothing is said of how long anything takes.

mod hubs;
mod offers;
mod ownership;
mod shared;

use std::sync::Arc;

use nowconnect_registry::{Registry, SharedState};

pub(crate) use offers::{offered, sweep};

/// One store, as several hubs see it.
pub(crate) struct Subject {
    /// A hub with leases that do not end during a check.
    pub(crate) here: Arc<dyn Registry>,
    /// Another, with a connection of its own.
    pub(crate) there: Arc<dyn Registry>,
    /// A third, with leases that end at once.
    pub(crate) brief: Arc<dyn Registry>,
    /// The same store's small state, at two hubs.
    pub(crate) shared: [Arc<dyn SharedState>; 2],
}

/// Runs every check.
pub(crate) async fn conforms(subject: &Subject) {
    ownership::epochs_rise_whoever_claims(subject).await;
    ownership::the_agent_is_a_witness(subject).await;
    ownership::epochs_have_an_end(subject).await;
    ownership::only_the_holder_changes_a_record(subject).await;
    ownership::what_was_released_stays_released(subject).await;
    ownership::its_holder_takes_up_what_it_released(subject).await;
    ownership::a_word_far_above_what_is_known_changes_nothing(subject).await;
    ownership::a_lease_ends_and_can_be_taken_up_again(subject).await;
    ownership::claims_at_once_are_all_different(subject).await;
    ownership::the_higher_of_two_provisional_claims_stays(subject).await;
    ownership::equal_counters_are_ordered_by_the_bytes_of_the_replica(subject).await;
    ownership::publishing_twice_changes_nothing(subject).await;
    offers::agents_are_listed_by_what_they_offer_now(subject).await;
    offers::a_claim_offers_nothing_until_it_says_so(subject).await;
    offers::tenants_are_apart(subject).await;
    offers::an_agent_may_offer_as_much_as_the_bound_allows(subject).await;
    offers::an_agent_whose_lease_ended_is_not_listed(subject).await;
    offers::a_sweep_leaves_what_is_offered(subject).await;
    hubs::hubs_are_present_until_they_leave(subject).await;
    hubs::a_name_is_one_hub(subject).await;
    hubs::a_hub_that_is_silent_is_gone(subject).await;
    hubs::a_lease_has_one_holder(subject).await;
    shared::what_counts_once_counts_once(subject).await;
    shared::values_change_by_comparison(subject).await;
    shared::values_and_counters_end(subject).await;
    shared::counters_add_up_over_hubs(subject).await;
    shared::revocations_reach_every_hub(subject).await;
    shared::names_and_values_are_bounded(subject).await;
    assert!(subject.here.is_healthy() && subject.there.is_healthy());
}
