#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use nowconnect_policy::{Folder, ManifestFacts, PublicKey, SecretKey, SourceFile, Sources};
use parking_lot::Mutex;

use super::super::store::DiskStore;
use super::*;

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_bundle_goes_from_delivered_to_superseded_and_each_step_is_written_down() {
    let at = At::new();
    let mut life = at.open().life;
    at.stage(&mut life, 1).unwrap();
    assert_eq!(life.staged().unwrap().revision, 1);
    assert_eq!(life.activate(&at.trusted, at.now, 10).unwrap().revision, 1);
    at.stage(&mut life, 2).unwrap();
    life.activate(&at.trusted, at.now, 10).unwrap();
    assert_eq!(
        at.stages(&life),
        [(1, Stage::Superseded), (2, Stage::Active)]
    );
    drop(life);
    let opened = at.open();
    assert_eq!(opened.troubles, []);
    assert_eq!(opened.active.unwrap().revision, 2);
    assert_eq!(
        at.stages(&opened.life),
        [(1, Stage::Superseded), (2, Stage::Active)]
    );
    assert_eq!(opened.life.kept(), [1, 2]);
}

#[test]
fn a_staged_bundle_is_staged_after_a_restart() {
    let at = At::new();
    let mut life = at.open().life;
    at.stage(&mut life, 1).unwrap();
    life.activate(&at.trusted, at.now, 10).unwrap();
    at.stage(&mut life, 2).unwrap();
    drop(life);
    let opened = at.open();
    assert_eq!(opened.active.unwrap().revision, 1);
    assert_eq!(opened.life.staged().unwrap().revision, 2);
}

#[test]
fn no_restart_brings_an_earlier_revision_back() {
    let at = At::new();
    let mut life = at.open().life;
    for revision in [1, 5] {
        at.stage(&mut life, revision).unwrap();
        life.activate(&at.trusted, at.now, 0).unwrap();
    }
    drop(life);
    let life = at.open().life;
    assert_eq!(at.refusal(&life, at.archive(4)), "bundle_rollback");
    let other = at.build(
        5,
        "@id(\"other\") permit (principal, action, resource);",
        None,
    );
    assert_eq!(at.refusal(&life, other), "bundle_revision_conflict");
    let same = life.verify(at.archive(5), &at.trusted, at.now).unwrap();
    assert_eq!(life.standing(&same), Standing::Active);
    assert_eq!(life.kept(), [5], "none was to be kept");
}

#[test]
fn a_rejected_bundle_counts_as_seen() {
    let at = At::new();
    let mut life = at.open().life;
    let verified = life.verify(at.archive(7), &at.trusted, at.now).unwrap();
    let refused = BundleRefused::new("bundle_tests_failed", "one of one case failed");
    life.reject(&verified, Origin::Url, &refused, at.now)
        .unwrap();
    drop(life);
    let life = at.open().life;
    assert_eq!(at.refusal(&life, at.archive(6)), "bundle_rollback");
    let again = life.verify(at.archive(7), &at.trusted, at.now).unwrap();
    assert_eq!(life.standing(&again), Standing::Rejected(refused));
}

#[test]
fn what_was_staged_and_lost_may_come_again_from_its_source() {
    let at = At::new();
    let mut life = at.open().life;
    at.stage(&mut life, 1).unwrap();
    drop(life);
    at.disk.files.lock().remove("Staged-1");
    let mut opened = at.open();
    assert!(opened.life.staged().is_none());
    assert_eq!(opened.troubles[0].code, codes::LOST);
    let again = opened
        .life
        .verify(at.archive(1), &at.trusted, at.now)
        .unwrap();
    assert_eq!(opened.life.standing(&again), Standing::New);
    at.stage(&mut opened.life, 1).unwrap();
    assert_eq!(opened.life.staged().unwrap().revision, 1);
}

#[test]
fn only_what_is_wrong_with_a_bundle_itself_keeps_the_same_one_out() {
    for (code, lasting) in [
        ("bundle_tests_failed", true),
        ("bundle_invalid", true),
        (codes::DISCARDED, true),
        ("bundle_expired", false),
        ("bundle_untrusted_key", false),
        (codes::LOST, false),
    ] {
        let at = At::new();
        let mut life = at.open().life;
        at.stage(&mut life, 1).unwrap();
        let refused = BundleRefused::new(code, "for the test");
        life.discard(&refused, at.now).unwrap();
        let again = life.verify(at.archive(1), &at.trusted, at.now).unwrap();
        let expected = match lasting {
            true => Standing::Rejected(refused),
            false => Standing::New,
        };
        assert_eq!(life.standing(&again), expected, "{code}");
    }
}

#[test]
fn a_set_in_force_is_vouched_for_by_the_keys_of_now() {
    let at = At::new();
    let mut life = at.open().life;
    let nobody = TrustedKeys::new(vec![SecretKey::generate().unwrap().public()]);
    let mut archive = at.archive(1);
    let second = SecretKey::generate().unwrap();
    archive.sign(&second);
    at.stage_archive(&mut life, archive).unwrap();
    let active = life.activate(&at.trusted, at.now, 10).unwrap().entry;
    let first = at.key.public().id().to_string();
    assert_eq!(active.signers.as_slice(), std::slice::from_ref(&first));
    assert_eq!(life.vouched_for(&active, &at.trusted), Ok(vec![first]));
    // The key that was not trusted when it came may be by now.
    let replaced = TrustedKeys::new(vec![second.public()]);
    let second = second.public().id().to_string();
    assert_eq!(life.vouched_for(&active, &replaced), Ok(vec![second]));
    let refused = life.vouched_for(&active, &nobody).unwrap_err();
    assert_eq!(refused.code, "bundle_untrusted_key");
    assert!(refused.message.contains("revision 1"), "{refused}");
}

#[test]
fn another_bundle_in_the_place_of_the_one_in_force_vouches_for_nothing() {
    let at = At::new();
    let mut life = at.open().life;
    at.stage(&mut life, 1).unwrap();
    let active = life.activate(&at.trusted, at.now, 10).unwrap().entry;
    let other = at.build(
        1,
        "@id(\"other\") permit (principal, action, resource);",
        None,
    );
    let bytes = other.to_tar().unwrap();
    let replaced = at.disk.files.lock().insert("Active-1".to_owned(), bytes);
    assert!(replaced.is_some());
    let refused = life.vouched_for(&active, &at.trusted).unwrap_err();
    assert_eq!(refused.code, codes::LOST);
    at.disk.files.lock().remove("Active-1");
    let refused = life.vouched_for(&active, &at.trusted).unwrap_err();
    assert_ne!(refused.code, "bundle_untrusted_key");
}

#[test]
fn a_full_disk_refuses_the_next_bundle_and_changes_nothing() {
    let at = At::new();
    let mut life = at.open().life;
    at.stage(&mut life, 1).unwrap();
    life.activate(&at.trusted, at.now, 10).unwrap();
    let before = life.state().clone();

    at.disk.full.store(true, Ordering::Relaxed);
    let refused = at.stage(&mut life, 2).unwrap_err();
    assert_eq!(refused.code, codes::NOT_KEPT);
    assert!(refused.message.contains("No space left"), "{refused}");
    assert!(life.staged().is_none());
    assert_eq!(*life.state(), before);

    at.disk.full.store(false, Ordering::Relaxed);
    at.stage(&mut life, 2).unwrap();
    at.disk.full.store(true, Ordering::Relaxed);
    let refused = life.activate(&at.trusted, at.now, 10).unwrap_err();
    assert_eq!(refused.code, codes::NOT_KEPT);
    assert_eq!(life.staged().unwrap().revision, 2, "it can be tried again");
    assert_eq!(life.state().active, Some(1));
    assert_eq!(at.open().active.unwrap().revision, 1);

    at.disk.full.store(false, Ordering::Relaxed);
    assert_eq!(life.activate(&at.trusted, at.now, 10).unwrap().revision, 2);
}

#[test]
fn a_broken_state_is_put_aside_and_put_together_from_the_bundles() {
    let at = At::new();
    let mut life = at.open().life;
    for revision in [3, 4] {
        at.stage(&mut life, revision).unwrap();
        life.activate(&at.trusted, at.now, 10).unwrap();
    }
    at.stage(&mut life, 9).unwrap();
    drop(life);
    at.disk
        .files
        .lock()
        .insert("state".to_owned(), b"{\"format\": 1, \"hi".to_vec());
    let opened = at.open();
    assert_eq!(opened.troubles[0].code, codes::STATE_BROKEN);
    assert_eq!(opened.active.as_ref().unwrap().revision, 4);
    assert_eq!(opened.life.staged().unwrap().revision, 9);
    assert_eq!(at.refusal(&opened.life, at.archive(8)), "bundle_rollback");
    assert!(at.disk.files.lock().contains_key("state.broken"));
    assert!(opened.life.state().hold, "a staged one activates itself");
    // What was put together is kept: the next start knows as much.
    drop(opened);
    let opened = at.open();
    assert_eq!(opened.troubles, []);
    assert_eq!(opened.active.as_ref().unwrap().revision, 4);
    assert_eq!(at.refusal(&opened.life, at.archive(8)), "bundle_rollback");
}

#[test]
fn a_state_that_is_missing_beside_bundles_is_no_first_start() {
    let at = At::new();
    let mut life = at.open().life;
    at.stage(&mut life, 4).unwrap();
    life.activate(&at.trusted, at.now, 10).unwrap();
    drop(life);
    at.disk.files.lock().remove("state");
    let opened = at.open();
    assert_eq!(opened.troubles[0].code, codes::STATE_BROKEN);
    assert_eq!(opened.active.as_ref().unwrap().revision, 4);
    assert_eq!(at.refusal(&opened.life, at.archive(3)), "bundle_rollback");
}

#[test]
fn what_was_staged_is_held_against_the_keys_and_the_time_of_its_activation() {
    let at = At::new();
    let mut life = at.open().life;
    at.stage(&mut life, 1).unwrap();
    let others = TrustedKeys::new(vec![SecretKey::generate().unwrap().public()]);
    let refused = life.activate(&others, at.now, 10).unwrap_err();
    assert_eq!(refused.code, "bundle_untrusted_key");
    let until = at.now + DAY;
    let archive = at.build(
        2,
        "@id(\"short\") permit (principal, action, resource);",
        Some(until),
    );
    at.stage_archive(&mut life, archive).unwrap();
    let refused = life.activate(&at.trusted, until + DAY, 10).unwrap_err();
    assert_eq!(refused.code, "bundle_expired");
    assert_eq!(life.activate(&at.trusted, until, 10).unwrap().revision, 2);
}

#[test]
fn an_active_bundle_that_was_changed_on_disk_is_not_loaded_and_said_so() {
    let at = At::new();
    let mut life = at.open().life;
    at.stage(&mut life, 1).unwrap();
    life.activate(&at.trusted, at.now, 10).unwrap();
    drop(life);
    let mut stranger = at.build(
        1,
        "@id(\"evil\") permit (principal, action, resource);",
        None,
    );
    stranger.sign(&SecretKey::generate().unwrap());
    at.disk
        .files
        .lock()
        .insert("Active-1".to_owned(), stranger.to_tar().unwrap());
    let mut opened = at.open();
    assert!(
        opened.active.is_none(),
        "a stranger's policies are in force"
    );
    assert_eq!(opened.troubles[0].code, codes::LOST);
    // The source still has the right one: it may come again.
    let again = opened
        .life
        .verify(at.archive(1), &at.trusted, at.now)
        .unwrap();
    assert_eq!(opened.life.standing(&again), Standing::New);
    at.stage(&mut opened.life, 1).unwrap();
    assert_eq!(
        opened
            .life
            .activate(&at.trusted, at.now, 10)
            .unwrap()
            .revision,
        1
    );
}

#[test]
fn a_clock_set_back_lets_in_nothing_that_has_expired_and_refuses_nothing_new() {
    let at = At::new();
    let mut life = at.open().life;
    at.stage(&mut life, 1).unwrap();
    life.activate(&at.trusted, at.now, 10).unwrap();
    // The clock falls back to 1970, as on a machine without a battery.
    let back = UNIX_EPOCH + DAY;
    let text = "@id(\"p\") permit (principal, action, resource);";
    let ended = at.build_at(2, text, at.now - 3 * DAY, Some(at.now - DAY));
    let refusal = life.verify(ended, &at.trusted, back).unwrap_err();
    assert_eq!(refusal.code.as_str(), "bundle_expired");
    let fresh = at.build_at(2, text, at.now, None);
    assert!(life.verify(fresh, &at.trusted, back).is_ok());
}

#[test]
fn a_clock_that_jumped_ahead_does_no_lasting_harm() {
    let at = At::new();
    let mut life = at.open().life;
    at.stage(&mut life, 1).unwrap();
    life.activate(&at.trusted, at.now, 10).unwrap();
    let text = "@id(\"p\") permit (principal, action, resource);";
    let next = || at.build_at(2, text, at.now, Some(at.now + DAY));
    let ahead = at.now + 3650 * DAY;
    let refusal = life.verify(next(), &at.trusted, ahead).unwrap_err();
    assert_eq!(refusal.code.as_str(), "bundle_expired");
    assert!(
        BundleRefused::from(refusal).may_pass(),
        "it is never tried again"
    );
    // Set right again.
    assert!(life.verify(next(), &at.trusted, at.now).is_ok());
}

#[test]
fn what_was_in_force_is_in_force_after_a_restart_though_its_time_has_run_out() {
    let at = At::new();
    let mut life = at.open().life;
    let text = "@id(\"p\") permit (principal, action, resource);";
    let short = at.build_at(1, text, at.now, Some(at.now + DAY));
    at.stage_archive(&mut life, short).unwrap();
    life.activate(&at.trusted, at.now, 10).unwrap();
    drop(life);
    let later = at.now + 2 * DAY;
    let opened = Life::open(Box::new(Arc::clone(&at.disk)), &at.trusted, later);
    let active = opened.active.unwrap();
    let past = active.past(later).unwrap();
    assert_eq!(past.code, "bundle_expired");
    assert_eq!(active.past(at.now), None);
}

#[test]
fn a_newer_bundle_takes_the_place_of_the_staged_one_and_a_person_can_take_it_back() {
    let at = At::new();
    let mut life = at.open().life;
    at.stage(&mut life, 1).unwrap();
    at.stage(&mut life, 2).unwrap();
    assert_eq!(
        life.state().history[0].code.as_deref(),
        Some(codes::REPLACED)
    );
    let refused = BundleRefused::new(codes::DISCARDED, "an operator took it back");
    assert_eq!(life.discard(&refused, at.now).unwrap(), 2);
    assert_eq!(
        life.discard(&refused, at.now).unwrap_err().code,
        codes::NONE_STAGED
    );
    assert_eq!(
        life.activate(&at.trusted, at.now, 10).unwrap_err().code,
        codes::NONE_STAGED
    );
    assert_eq!(life.kept(), [0; 0]);
}

#[test]
fn superseded_bundles_are_kept_up_to_a_number() {
    let at = At::new();
    let mut life = at.open().life;
    for revision in 1..=6 {
        at.stage(&mut life, revision).unwrap();
        life.activate(&at.trusted, at.now, 2).unwrap();
    }
    assert_eq!(life.kept(), [4, 5, 6]);
    assert!(life.bytes_of(3).is_err());
    assert!(BundleArchive::from_tar(&life.bytes_of(4).unwrap()).is_ok());
}

#[test]
fn the_folder_is_ours_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("deep/state");
    let store = DiskStore::open(&state, Duration::ZERO).unwrap();
    let mode = std::fs::metadata(&state).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let second = DiskStore::open(&state, Duration::ZERO).unwrap_err();
    assert!(second.to_string().contains("another hub"), "{second}");
    store.write_state(b"{}").unwrap();
    let file = std::fs::metadata(state.join("state.json")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    drop(store);
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
    let open = DiskStore::open(&state, Duration::ZERO).unwrap_err();
    assert!(open.to_string().contains("chmod 700"), "{open}");
}

#[test]
fn a_life_on_a_real_disk_survives_a_restart() {
    let at = At::new();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let open = || {
        let store = Box::new(DiskStore::open(&state, Duration::ZERO).unwrap());
        Life::open(store, &at.trusted, at.now)
    };
    let mut life = open().life;
    at.stage(&mut life, 1).unwrap();
    life.activate(&at.trusted, at.now, 10).unwrap();
    at.stage(&mut life, 2).unwrap();
    drop(life);
    // What a crash in the middle of writing leaves behind.
    std::fs::write(state.join(".state.json.new"), "{\"form").unwrap();
    let opened = open();
    assert_eq!(opened.troubles, []);
    assert_eq!(opened.active.unwrap().revision, 1);
    assert_eq!(opened.life.staged().unwrap().revision, 2);
}

struct At {
    key: SecretKey,
    trusted: TrustedKeys,
    now: SystemTime,
    disk: Arc<Disk>,
}

impl At {
    fn new() -> Self {
        let key = SecretKey::generate().unwrap();
        let public: PublicKey = key.public();
        Self {
            trusted: TrustedKeys::new(vec![public]),
            key,
            now: UNIX_EPOCH + 20_000 * DAY,
            disk: Arc::default(),
        }
    }

    fn open(&self) -> Opened {
        Life::open(Box::new(Arc::clone(&self.disk)), &self.trusted, self.now)
    }

    fn archive(&self, revision: u64) -> BundleArchive {
        let text = format!("@id(\"p{revision}\") permit (principal, action, resource);");
        self.build(revision, &text, None)
    }

    fn build(&self, revision: u64, text: &str, not_after: Option<SystemTime>) -> BundleArchive {
        self.build_at(revision, text, self.now, not_after)
    }

    fn build_at(
        &self,
        revision: u64,
        text: &str,
        created: SystemTime,
        not_after: Option<SystemTime>,
    ) -> BundleArchive {
        let folder = Folder {
            sources: Sources {
                policies: vec![SourceFile::new("test.cedar", text)],
                ..Sources::default()
            },
            ..Folder::default()
        };
        let facts = ManifestFacts {
            revision,
            created,
            not_after,
            min_hub: None,
        };
        let mut archive = folder.build(facts).unwrap();
        archive.sign(&self.key);
        archive
    }

    fn stage(&self, life: &mut Life, revision: u64) -> Result<(), BundleRefused> {
        self.stage_archive(life, self.archive(revision))
    }

    fn stage_archive(&self, life: &mut Life, archive: BundleArchive) -> Result<(), BundleRefused> {
        let verified = life.verify(archive, &self.trusted, self.now)?;
        let policies = Arc::new(verified.compile(1)?);
        life.stage(&verified, policies, Origin::Push, false, self.now)
            .map(|_| ())
    }

    fn refusal(&self, life: &Life, archive: BundleArchive) -> &'static str {
        let refusal = life.verify(archive, &self.trusted, self.now).unwrap_err();
        refusal.code.as_str()
    }

    fn stages(&self, life: &Life) -> Vec<(u64, Stage)> {
        let mut stages: Vec<_> = life
            .state()
            .history
            .iter()
            .map(|entry| (entry.revision, entry.stage))
            .collect();
        stages.sort_unstable_by_key(|(revision, _)| *revision);
        stages
    }
}

/// A disk that can be full.
#[derive(Debug, Default)]
struct Disk {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    full: AtomicBool,
}

impl Disk {
    fn name(kind: Kind, revision: u64) -> String {
        format!("{kind:?}-{revision}")
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let found = self.files.lock().get(name).cloned();
        found.ok_or_else(|| failed("read", io::ErrorKind::NotFound))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        if self.full.load(Ordering::Relaxed) {
            // What the system says for ENOSPC.
            return Err(StoreError {
                step: "write",
                path: name.into(),
                source: io::Error::from_raw_os_error(28),
            });
        }
        self.files.lock().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }
}

fn failed(step: &'static str, kind: io::ErrorKind) -> StoreError {
    StoreError {
        step,
        path: "disk".into(),
        source: kind.into(),
    }
}

impl Store for Arc<Disk> {
    fn read_state(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.files.lock().get("state").cloned())
    }

    fn write_state(&self, bytes: &[u8]) -> Result<(), StoreError> {
        self.write("state", bytes)
    }

    fn set_state_aside(&self) -> Result<(), StoreError> {
        let mut files = self.files.lock();
        if let Some(bytes) = files.remove("state") {
            files.insert("state.broken".to_owned(), bytes);
        }
        Ok(())
    }

    fn read_bundle(&self, kind: Kind, revision: u64) -> Result<Vec<u8>, StoreError> {
        self.read(&Disk::name(kind, revision))
    }

    fn write_bundle(&self, kind: Kind, revision: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(&Disk::name(kind, revision), bytes)
    }

    fn promote(&self, revision: u64) -> Result<(), StoreError> {
        let bytes = self.read(&Disk::name(Kind::Staged, revision))?;
        let mut files = self.files.lock();
        files.remove(&Disk::name(Kind::Staged, revision));
        files.insert(Disk::name(Kind::Active, revision), bytes);
        Ok(())
    }

    fn remove_bundle(&self, kind: Kind, revision: u64) -> Result<(), StoreError> {
        self.files.lock().remove(&Disk::name(kind, revision));
        Ok(())
    }

    fn bundles(&self) -> Result<Vec<(Kind, u64)>, StoreError> {
        let mut found = Vec::new();
        for name in self.files.lock().keys() {
            if let Some((kind, revision)) = name.split_once('-') {
                let kind = match kind {
                    "Active" => Kind::Active,
                    _ => Kind::Staged,
                };
                found.extend(revision.parse().ok().map(|revision| (kind, revision)));
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}
