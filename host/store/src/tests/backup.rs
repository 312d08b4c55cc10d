//! Copies of the file, and the way back.

use super::*;

#[test]
fn a_backup_holds_everything_and_what_it_replaces_is_kept() {
    let folder = Folder::new();
    let path = folder.path("state.redb");
    let copy = folder.path("copy.redb");
    let store = Store::open(&path).unwrap();
    claim(&store, &endpoint("1", "shop", "a"), false, 0).unwrap();
    store.use_once(Once::Nonce, "t", 0, 100, 10).unwrap();
    store.backup(&copy).unwrap();
    assert!(
        store.backup(&copy).is_err(),
        "a backup is never written over"
    );
    assert_eq!(folder.names(), ["copy.redb", "state.redb"]);
    claim(&store, &endpoint("2", "late", "a"), false, 0).unwrap();

    let in_use = Store::restore(&copy, &path).unwrap_err();
    assert!(matches!(in_use, StoreError::InUse { .. }), "{in_use}");
    drop(store);
    let aside = Store::restore(&copy, &path).unwrap().unwrap();
    let back = Store::open(&path).unwrap();
    assert!(back.endpoint("shop").unwrap().is_some());
    assert!(back.endpoint("late").unwrap().is_none());
    assert_eq!(
        back.use_once(Once::Nonce, "t", 0, 100, 10).unwrap(),
        Used::Again,
        "a nonce that was used stays used"
    );
    let before = Store::open(&aside).unwrap();
    assert!(before.endpoint("late").unwrap().is_some());
}

#[test]
fn what_a_crash_left_of_a_backup_is_in_no_later_one() {
    let folder = Folder::new();
    let store = Store::open(&folder.path("state.redb")).unwrap();
    claim(&store, &endpoint("1", "old", "a"), false, 0).unwrap();
    store.backup(&folder.path("early.redb")).unwrap();
    fs::rename(folder.path("early.redb"), folder.path(".copy.redb.part")).unwrap();
    assert!(delete(&store, "1", "a", 0).is_some());
    let copy = folder.path("copy.redb");
    store.backup(&copy).unwrap();
    let copy = Store::open(&copy).unwrap();
    assert!(copy.endpoint("old").unwrap().is_none());
    assert!(copy.is_deleted("a", "1").unwrap());
}

#[test]
fn a_file_made_anew_says_so_and_each_restore_puts_another_aside() {
    let folder = Folder::new();
    let path = folder.path("state.redb");
    let store = Store::open(&path).unwrap();
    assert!(store.is_made_anew());
    let copy = folder.path("copy.redb");
    store.backup(&copy).unwrap();
    drop(store);
    assert!(!Store::open(&path).unwrap().is_made_anew());
    for number in 1..=2 {
        let aside = Store::restore(&copy, &path).unwrap().unwrap();
        assert_eq!(aside, folder.path(&format!("state.redb.before-{number}")));
        assert!(!Store::open(&aside).unwrap().is_made_anew());
    }
    let elsewhere = folder.path("elsewhere.redb");
    assert_eq!(Store::restore(&copy, &elsewhere).unwrap(), None);
}

/// While this watches, the file is never missing, or a hub that starts makes an empty one.
#[test]
fn a_restore_leaves_no_moment_without_a_file() {
    let folder = Folder::new();
    let path = folder.path("state.redb");
    let store = Store::open(&path).unwrap();
    let copy = folder.path("copy.redb");
    store.backup(&copy).unwrap();
    drop(store);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = 0u64;
            while !done.load(Ordering::Relaxed) {
                assert!(path.exists(), "look {looks}");
                looks += 1;
            }
            looks
        });
        for _ in 0..20 {
            Store::restore(&copy, &path).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(watcher.join().unwrap() > 0);
    });
}

#[test]
fn a_damaged_file_is_told_and_a_damaged_backup_restores_nothing() {
    let folder = Folder::new();
    let path = folder.path("state.redb");
    let store = Store::open(&path).unwrap();
    claim(&store, &endpoint("1", "shop", "a"), false, 0).unwrap();
    drop(store);
    let broken = folder.path("broken.redb");
    fs::write(&broken, b"no database at all").unwrap();
    assert!(Store::restore(&broken, &path).is_err());
    assert!(Store::restore(&folder.path("absent"), &path).is_err());
    let store = Store::open(&path).unwrap();
    assert!(store.endpoint("shop").unwrap().is_some());
    let copy = folder.path("copy.redb");
    store.backup(&copy).unwrap();
    drop(store);

    fs::write(&path, b"no database at all").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Store::open(&path).is_err());
    Store::restore(&copy, &path).unwrap();
    assert!(
        Store::open(&path)
            .unwrap()
            .endpoint("shop")
            .unwrap()
            .is_some()
    );
}
