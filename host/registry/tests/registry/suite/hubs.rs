use std::slice::from_ref;
use std::time::Duration;

use nowconnect_registry::limits::MAX_HUB_BYTES;
use nowconnect_registry::{HubPresence, RegistryError};

use super::Subject;
use crate::names::{hub, replica};
use crate::wait::eventually;

const LONG: Duration = Duration::from_secs(600);
const BRIEF: Duration = Duration::from_millis(100);

pub(super) async fn hubs_are_present_until_they_leave(subject: &Subject) {
    let (one, other) = (hub("present-b", 1), hub("present-a", 2));
    subject.here.announce_hub(&one).await.unwrap();
    subject.there.announce_hub(&other).await.unwrap();
    assert_eq!(
        present(subject, "present").await,
        [other.clone(), one.clone()]
    );
    // What it says may change.
    let changed = HubPresence {
        generation: "8 \"new\"\n".to_owned(),
        ..one.clone()
    };
    subject.here.announce_hub(&changed).await.unwrap();
    assert_eq!(
        present(subject, "present").await,
        [other.clone(), changed.clone()]
    );
    subject.there.withdraw_hub(&other).await.unwrap();
    assert_eq!(present(subject, "present").await, from_ref(&changed));
    subject.here.withdraw_hub(&changed).await.unwrap();
    subject.here.withdraw_hub(&changed).await.unwrap();
    assert!(present(subject, "present").await.is_empty());
    let talkative = HubPresence {
        generation: "x".repeat(MAX_HUB_BYTES),
        ..one
    };
    assert!(matches!(
        subject.here.announce_hub(&talkative).await,
        Err(RegistryError::TooMuch { .. })
    ));
}

pub(super) async fn a_name_is_one_hub(subject: &Subject) {
    let (first, second) = (hub("twin", 1), hub("twin", 2));
    subject.here.announce_hub(&first).await.unwrap();
    subject.here.announce_hub(&first).await.unwrap();
    let error = subject.there.announce_hub(&second).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::ReplicaTaken { replica: named, .. }
            if *named == replica("twin")),
        "{error:?}"
    );
    // Nor does the other make it leave.
    subject.there.withdraw_hub(&second).await.unwrap();
    assert_eq!(present(subject, "twin").await, from_ref(&first));
    subject.here.withdraw_hub(&first).await.unwrap();
    subject.there.announce_hub(&second).await.unwrap();
    assert_eq!(present(subject, "twin").await, [second]);
}

pub(super) async fn a_hub_that_is_silent_is_gone(subject: &Subject) {
    subject.brief.announce_hub(&hub("mute", 1)).await.unwrap();
    eventually("the hub is gone", async || {
        present(subject, "mute").await.is_empty().then_some(())
    })
    .await;
    // Its name is free for the process that comes after it.
    subject.here.announce_hub(&hub("mute", 2)).await.unwrap();
    assert_eq!(present(subject, "mute").await, [hub("mute", 2)]);
}

pub(super) async fn a_lease_has_one_holder(subject: &Subject) {
    let (a, b) = (replica("hub-a"), replica("hub-b"));
    let (here, there) = (&subject.here, &subject.there);
    assert!(here.hold_lease("suite", &a, LONG).await.unwrap());
    assert!(here.hold_lease("suite", &a, LONG).await.unwrap());
    assert!(!there.hold_lease("suite", &b, LONG).await.unwrap());
    there.drop_lease("suite", &b).await.unwrap();
    assert!(!there.hold_lease("suite", &b, LONG).await.unwrap());
    assert!(there.hold_lease("suite-other", &b, LONG).await.unwrap());
    here.drop_lease("suite", &a).await.unwrap();
    assert!(there.hold_lease("suite", &b, BRIEF).await.unwrap());
    eventually("the lease ends", async || {
        let free = here.hold_lease("suite", &a, LONG).await.unwrap();
        free.then_some(())
    })
    .await;
}

/// The hubs of one check that `there` sees.
async fn present(subject: &Subject, prefix: &str) -> Vec<HubPresence> {
    let mut hubs = subject.there.list_hubs().await.unwrap();
    hubs.retain(|hub| hub.replica.as_str().starts_with(prefix));
    hubs
}
