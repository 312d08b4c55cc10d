#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{KvError, KvStore, MemoryKv, MemoryKvSettings, Namespace};

const QUOTA: u64 = 1024 * 1024;

#[test]
fn namespaces_do_not_see_each_other() {
    let (kv, _) = store();
    kv.set(&space("a", "t1"), "k", b"one", 10, QUOTA).unwrap();

    assert_eq!(
        kv.get(&space("a", "t1"), "k").unwrap().as_deref(),
        Some(&b"one"[..])
    );
    assert_eq!(kv.get(&space("a", "t2"), "k").unwrap(), None);
    assert_eq!(kv.get(&space("b", "t1"), "k").unwrap(), None);
    let shadow = Namespace {
        shadow: true,
        ..space("a", "t1")
    };
    assert_eq!(kv.get(&shadow, "k").unwrap(), None);
}

#[test]
fn entries_die_at_their_time() {
    let (kv, now) = store();
    kv.set(&space("a", ""), "k", b"v", 2, QUOTA).unwrap();
    now.store(1_999, Ordering::SeqCst);
    assert!(kv.get(&space("a", ""), "k").unwrap().is_some());
    now.store(2_000, Ordering::SeqCst);
    assert_eq!(kv.get(&space("a", ""), "k").unwrap(), None);
    assert_eq!(kv.bytes(), 0);
}

#[test]
fn a_counter_dies_after_it_was_made_not_after_it_was_used() {
    let (kv, now) = store();
    let a = space("a", "");
    assert_eq!(kv.increment(&a, "k", 2, 1, QUOTA), Ok(2));
    now.store(900, Ordering::SeqCst);
    assert_eq!(kv.increment(&a, "k", 3, 1, QUOTA), Ok(5));
    now.store(1_000, Ordering::SeqCst);
    assert_eq!(kv.increment(&a, "k", 1, 1, QUOTA), Ok(1));
}

#[test]
fn a_full_namespace_refuses_and_leaves_others_alone() {
    let (kv, _) = store();
    let a = space("a", "");
    let mut written = 0;
    while kv.set(&a, &format!("k{written}"), b"v", 10, 2_000).is_ok() {
        written += 1;
        assert!(written < 100, "the quota never refuses");
    }
    assert!(written > 5);
    assert_eq!(kv.increment(&a, "n", 1, 10, 2_000), Err(KvError::NoQuota));
    kv.set(&space("b", ""), "k", b"v", 10, 2_000).unwrap();
    kv.delete(&a, "k0").unwrap();
    kv.set(&a, "again", b"v", 10, 2_000).unwrap();
}

#[test]
fn the_whole_table_is_bounded() {
    let kv = MemoryKv::new(MemoryKvSettings {
        bytes_max: 64 * 1024,
    });
    for plugin in 0..2_000 {
        let _ = kv.set(&space(&plugin.to_string(), ""), "k", &[0; 500], 10, QUOTA);
    }
    assert!(kv.bytes() <= 64 * 1024);
}

#[test]
fn keys_values_and_times_out_of_bounds_are_refused() {
    let (kv, _) = store();
    let a = space("a", "");
    let long = "k".repeat(super::KEY_BYTES_MAX + 1);
    assert_eq!(kv.get(&a, &long), Err(KvError::TooLarge));
    assert_eq!(kv.set(&a, "k", b"v", 0, QUOTA), Err(KvError::BadTtl));
    assert_eq!(
        kv.set(&a, "k", b"v", super::TTL_SECONDS_MAX + 1, QUOTA),
        Err(KvError::BadTtl)
    );
    let large = vec![0; super::VALUE_BYTES_MAX + 1];
    assert_eq!(kv.set(&a, "k", &large, 1, QUOTA), Err(KvError::TooLarge));
    kv.set(&a, "text", b"v", 1, QUOTA).unwrap();
    assert_eq!(
        kv.increment(&a, "text", 1, 1, QUOTA),
        Err(KvError::NotACounter)
    );
}

#[test]
fn writing_one_key_again_and_again_does_not_grow_the_table() {
    let (kv, _) = store();
    let a = space("a", "");
    for _ in 0..10_000 {
        kv.set(&a, "k", b"v", 600, QUOTA).unwrap();
    }
    assert!(kv.bytes() < 1_000);
}

fn store() -> (MemoryKv, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&now);
    let kv = MemoryKv::with_clock(MemoryKvSettings::default(), move || {
        clock.load(Ordering::SeqCst)
    });
    (kv, now)
}

fn space(plugin: &str, tenant: &str) -> Namespace {
    Namespace {
        plugin: plugin.into(),
        tenant: tenant.into(),
        shadow: false,
    }
}
