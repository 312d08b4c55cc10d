use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use nowconnect_registry::limits::{MAX_NAME_BYTES, MAX_REVOCATION_BYTES, MAX_VALUE_BYTES};
use nowconnect_registry::{
    Bucket, Changed, OnceKind, RegistryError, Revocation, RevocationCursor, SharedState, Used,
};

use super::Subject;
use crate::wait::eventually;

const LONG: Duration = Duration::from_secs(600);
const BRIEF: Duration = Duration::from_millis(100);

pub(super) async fn what_counts_once_counts_once(subject: &Subject) {
    const HUBS: usize = 32;
    let uses = (0..HUBS).map(|n| subject.shared[n % 2].use_once(OnceKind::Token, "a b{c}", LONG));
    let used: Vec<_> = join_all(uses).await;
    let first = used.iter().filter(|used| **used == Ok(Used::First));
    assert_eq!(first.count(), 1, "{used:?}");
    assert!(used.iter().all(Result::is_ok), "{used:?}");
    let [here, there] = &subject.shared;
    // Another kind is another thing.
    assert_eq!(
        here.use_once(OnceKind::Nonce, "a b{c}", BRIEF).await,
        Ok(Used::First)
    );
    eventually("its time passes", async || {
        let used = there.use_once(OnceKind::Nonce, "a b{c}", LONG).await;
        (used == Ok(Used::First)).then_some(())
    })
    .await;
}

pub(super) async fn values_change_by_comparison(subject: &Subject) {
    let [here, there] = &subject.shared;
    let change = async |at: &Arc<dyn SharedState>, expected: Option<&[u8]>, new: Option<&[u8]>| {
        at.change(Bucket::Names, "app.example", expected, new, None)
            .await
            .unwrap()
    };
    let binary: &[u8] = b"\x00\xff acme";
    let differs = Changed::Differs {
        present: Some(binary.to_vec()),
    };
    let absent = Changed::Differs { present: None };
    assert_eq!(change(here, Some(b"x"), Some(binary)).await, absent);
    assert_eq!(change(here, None, Some(binary)).await, Changed::Done);
    assert_eq!(change(there, None, Some(b"other")).await, differs);
    assert_eq!(change(there, Some(b""), None).await, differs);
    let name = "app.example";
    assert_eq!(
        there.read(Bucket::Names, name).await,
        Ok(Some(binary.to_vec()))
    );
    assert_eq!(there.read(Bucket::Plugins, name).await, Ok(None));
    assert_eq!(change(there, Some(binary), Some(b"")).await, Changed::Done);
    assert_eq!(here.read(Bucket::Names, name).await, Ok(Some(Vec::new())));
    assert_eq!(change(here, Some(b""), None).await, Changed::Done);
    assert_eq!(there.read(Bucket::Names, name).await, Ok(None));
    assert_eq!(change(here, None, None).await, Changed::Done);
}

pub(super) async fn values_and_counters_end(subject: &Subject) {
    let [here, there] = &subject.shared;
    let value: &[u8] = b"1";
    here.change(Bucket::Plugins, "brief", None, Some(value), Some(BRIEF))
        .await
        .unwrap();
    eventually("the value ends", async || {
        let value = there.read(Bucket::Plugins, "brief").await.unwrap();
        value.is_none().then_some(())
    })
    .await;
    here.count("brief", 5, BRIEF).await.unwrap();
    eventually("the window ends", async || {
        let sum = there.count("brief", 1, LONG).await.unwrap();
        (sum == 1).then_some(())
    })
    .await;
}

pub(super) async fn counters_add_up_over_hubs(subject: &Subject) {
    const CALLS: usize = 40;
    let calls = (0..CALLS).map(|n| subject.shared[n % 2].count("opens", 2, LONG));
    let sums: BTreeSet<_> = join_all(calls)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let due: BTreeSet<_> = (1..=CALLS as u64).map(|n| 2 * n).collect();
    assert_eq!(sums, due);
    assert_eq!(subject.shared[0].count("others", 1, LONG).await, Ok(1));
}

pub(super) async fn revocations_reach_every_hub(subject: &Subject) {
    // More than one page.
    const ENTRIES: usize = 1_100;
    let [here, there] = &subject.shared;
    let revocation = |n: usize, ttl| Revocation {
        entry: format!("jti {n} \"{n}\"").into(),
        ttl,
    };
    for chunk in (0..ENTRIES).collect::<Vec<_>>().chunks(64) {
        let calls = chunk.iter().map(|n| {
            let revocation = revocation(*n, LONG);
            async move { here.revoke(&revocation).await.unwrap() }
        });
        join_all(calls).await;
    }
    let mut cursor = RevocationCursor::default();
    let (first, pages) = read_all(&**there, &mut cursor).await;
    assert!(pages > 1);
    let due: BTreeSet<Arc<str>> = (0..ENTRIES).map(|n| revocation(n, LONG).entry).collect();
    assert_eq!(first.iter().cloned().collect::<BTreeSet<_>>(), due);
    assert_eq!(first.len(), ENTRIES, "one was told twice");

    // Only what is new from there on; the same again is not.
    assert!(read_all(&**there, &mut cursor).await.0.is_empty());
    here.revoke(&revocation(3, LONG)).await.unwrap();
    here.revoke(&revocation(ENTRIES, BRIEF)).await.unwrap();
    let (news, _) = read_all(&**there, &mut cursor).await;
    assert_eq!(news, [revocation(ENTRIES, BRIEF).entry]);
    // Its time passes, and a later revocation clears it away.
    eventually("the revocation ends", async || {
        here.revoke(&revocation(ENTRIES + 1, LONG)).await.unwrap();
        let (all, _) = read_all(&**there, &mut RevocationCursor::default()).await;
        (!all.contains(&revocation(ENTRIES, BRIEF).entry)).then_some(())
    })
    .await;
}

async fn read_all(
    state: &dyn SharedState,
    cursor: &mut RevocationCursor,
) -> (Vec<Arc<str>>, usize) {
    let (mut found, mut pages) = (Vec::new(), 0);
    loop {
        let page = state.revocations(cursor).await.unwrap();
        assert!(!page.reset, "the store lost what it had");
        pages += 1;
        found.extend(page.entries);
        *cursor = page.cursor;
        if !page.more {
            return (found, pages);
        }
    }
}

pub(super) async fn names_and_values_are_bounded(subject: &Subject) {
    let [here, _] = &subject.shared;
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    let large = vec![0; MAX_VALUE_BYTES + 1];
    let errors = [
        here.use_once(OnceKind::Token, &long, LONG).await.err(),
        here.read(Bucket::Names, &long).await.err(),
        here.count(&long, 1, LONG).await.err(),
        here.change(Bucket::Names, "large", None, Some(&large), None)
            .await
            .err(),
        here.revoke(&Revocation {
            entry: "x".repeat(MAX_REVOCATION_BYTES + 1).into(),
            ttl: LONG,
        })
        .await
        .err(),
    ];
    for error in errors {
        let refused = matches!(error, Some(RegistryError::TooMuch { .. }));
        assert!(refused, "{error:?}");
    }
    let value = &large[..MAX_VALUE_BYTES];
    let name = &long[..MAX_NAME_BYTES];
    let done = here
        .change(Bucket::Names, name, None, Some(value), None)
        .await;
    assert_eq!(done, Ok(Changed::Done));
}
