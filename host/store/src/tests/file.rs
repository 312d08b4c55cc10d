//! The file itself: whose it is, of which schema, and a disk that fails.

use std::sync::Arc;

use super::*;

/// A disk that can be made to fail.
#[derive(Debug, Clone)]
struct Disk {
    content: Arc<InMemoryBackend>,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> std::io::Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.content.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.content.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.content.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.content.write(offset, data)
    }
}

#[test]
fn a_disk_that_was_full_for_a_moment_is_used_again() {
    let disk = Disk {
        content: Arc::new(InMemoryBackend::new()),
        full: Arc::default(),
    };
    let full = Arc::clone(&disk.full);
    let open = move || {
        Database::builder()
            .create_with_backend(disk.clone())
            .map_err(|error| StoreError::engine("open", &error))
    };
    let database = open().unwrap();
    let store = Store::ready(database, Source::Test(Box::new(open)), true).unwrap();
    claim(&store, &endpoint("1", "shop", "a"), false, 0).unwrap();
    assert!(!store.heal().unwrap(), "nothing is wrong");

    full.store(true, Ordering::Relaxed);
    claim(&store, &endpoint("2", "late", "a"), false, 0).unwrap_err();
    assert!(store.has_failed());
    assert!(store.heal().is_err(), "the disk is still full");
    store.endpoint("shop").unwrap_err();
    full.store(false, Ordering::Relaxed);
    let latched = claim(&store, &endpoint("2", "late", "a"), false, 0);
    assert!(latched.is_err(), "the engine does not come back by itself");
    assert!(store.heal().unwrap());
    assert!(!store.has_failed());
    assert!(store.endpoint("shop").unwrap().is_some());
    assert!(store.endpoint("late").unwrap().is_none());
    claim(&store, &endpoint("2", "late", "a"), false, 0).unwrap();
}

#[test]
fn the_file_is_private_and_has_one_user() {
    let folder = Folder::new();
    let path = folder.path("new/state.redb");
    let store = Store::open(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let second = Store::open(&path).unwrap_err();
    assert!(matches!(second, StoreError::InUse { .. }), "{second}");
    drop(store);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let readable = Store::open(&path).unwrap_err().to_string();
    assert!(readable.contains("chmod 600"), "{readable}");
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let folder = Folder::new();
    let path = folder.path("state.redb");
    let store = Store::open(&path).unwrap();
    let set = |store: &Store, version| {
        store
            .write(|transaction| schema::set_version(transaction, version))
            .unwrap();
    };
    set(&store, SCHEMA_VERSION + 1);
    drop(store);
    // Also the second time: the first look has not changed it.
    for _ in 0..2 {
        let refused = Store::open(&path).unwrap_err();
        assert!(matches!(refused, StoreError::Newer { .. }), "{refused}");
    }
}
