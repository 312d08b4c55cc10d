#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    per_tenant: 3,
    total: 5,
    deleted_per_tenant: 6,
    deleted_per_source: 4,
};

fn nobody_is_here(_: &Endpoint) -> bool {
    false
}

fn endpoint(id: &str, name: &str, tenant: &str) -> Endpoint {
    Endpoint {
        id: id.to_owned(),
        name: name.to_owned(),
        tenant: tenant.to_owned(),
        agent: format!("agent-{id}"),
        made_by: String::new(),
        source: String::new(),
        protocol: "http".to_owned(),
        made_ms: 0,
        kept_until_ms: 100,
        was_held: false,
        token_id: None,
    }
}

fn new_endpoint(endpoint: &Endpoint, again: bool) -> NewEndpoint {
    NewEndpoint {
        endpoint: endpoint.clone(),
        again,
        others: None,
    }
}

fn claim(store: &Store, endpoint: &Endpoint, again: bool, now_ms: u64) -> Result<(), ClaimRefused> {
    let new = new_endpoint(endpoint, again);
    store
        .claim_endpoint(&new, now_ms, LIMITS, nobody_is_here, None)
        .map(|_| ())
}

fn delete(store: &Store, id: &str, tenant: &str, now_ms: u64) -> Option<Endpoint> {
    let deletion = Deletion {
        id: id.to_owned(),
        tenant: tenant.to_owned(),
        until_ms: now_ms + 100,
    };
    store.delete_endpoint(&deletion, now_ms, LIMITS).unwrap()
}

#[test]
fn a_name_is_one_endpoints_until_its_time_is_over() {
    let store = Store::in_memory().unwrap();
    claim(&store, &endpoint("1", "shop", "a"), false, 0).unwrap();
    let refused = claim(&store, &endpoint("2", "shop", "a"), false, 99).unwrap_err();
    assert!(matches!(refused, ClaimRefused::Taken { .. }), "{refused}");
    // Another tenant that says "again" has not the same endpoint.
    let foreign = claim(&store, &endpoint("1", "shop", "b"), true, 99).unwrap_err();
    assert!(matches!(foreign, ClaimRefused::Taken { .. }), "{foreign}");

    let mut later = endpoint("1", "shop", "a");
    later.kept_until_ms = 150;
    claim(&store, &later, true, 99).unwrap();
    assert_eq!(store.endpoint("shop").unwrap().unwrap(), later);

    claim(&store, &endpoint("2", "shop", "b"), false, 150).unwrap();
    assert_eq!(store.endpoint_by_id("1").unwrap(), None);
    assert_eq!(store.endpoint_by_id("2").unwrap().unwrap().tenant, "b");
}

#[test]
fn quotas_count_what_is_there_and_nothing_else() {
    let store = Store::in_memory().unwrap();
    for id in ["1", "2", "3"] {
        claim(&store, &endpoint(id, &format!("n{id}"), "a"), false, 0).unwrap();
    }
    let refused = claim(&store, &endpoint("4", "n4", "a"), false, 0).unwrap_err();
    assert!(
        matches!(refused, ClaimRefused::Quota { limit: 3 }),
        "{refused}"
    );
    // The same one again takes no more room.
    claim(&store, &endpoint("3", "n3", "a"), true, 0).unwrap();
    for id in ["5", "6"] {
        claim(&store, &endpoint(id, &format!("n{id}"), "b"), false, 0).unwrap();
    }
    let full = claim(&store, &endpoint("7", "n7", "b"), false, 0).unwrap_err();
    assert!(matches!(full, ClaimRefused::Full { limit: 5 }), "{full}");
    assert!(delete(&store, "1", "a", 0).is_some());
    assert_eq!(delete(&store, "1", "a", 0), None);
    claim(&store, &endpoint("4", "n4", "a"), false, 0).unwrap();
}

#[test]
fn a_name_is_not_free_while_its_agent_is_here_whatever_the_time() {
    let store = Store::in_memory().unwrap();
    claim(&store, &endpoint("1", "shop", "a"), false, 0).unwrap();
    let here = |endpoint: &Endpoint| endpoint.id == "1";
    let new = new_endpoint(&endpoint("2", "shop", "b"), false);
    let taken = store.claim_endpoint(&new, 1_000_000, LIMITS, here, None);
    assert!(matches!(taken, Err(ClaimRefused::Taken { .. })));
    assert!(
        store
            .expire_endpoints(1_000_000, 10, here)
            .unwrap()
            .is_empty()
    );
    let reservation = Reservation {
        name: "shop".to_owned(),
        tenant: "b".to_owned(),
        made_by: String::new(),
        made_ms: 0,
    };
    let held = store.reserve(&reservation, 1_000_000, 1, here).unwrap_err();
    assert!(matches!(held, ReserveRefused::Taken { .. }), "{held}");
    store
        .claim_endpoint(&new, 1_000_000, LIMITS, nobody_is_here, None)
        .unwrap();
}

#[test]
fn after_a_time_away_names_that_were_held_wait_for_their_agents() {
    let store = Store::in_memory().unwrap();
    for id in ["held", "new", "ahead"] {
        let mut endpoint = endpoint(id, id, "a");
        endpoint.was_held = id != "new";
        endpoint.kept_until_ms = if id == "ahead" { u64::MAX } else { 100 };
        claim(&store, &endpoint, false, 0).unwrap();
    }
    store.renew_endpoints(5_000, 6_000).unwrap();
    let until = |id| store.endpoint_by_id(id).unwrap().unwrap().kept_until_ms;
    assert_eq!(until("held"), 5_000);
    assert_eq!(until("new"), 100, "nobody has come for this one yet");
    assert_eq!(
        until("ahead"),
        6_000,
        "a clock that was wrong keeps nothing"
    );
}

#[test]
fn the_same_endpoint_again_keeps_its_past() {
    let store = Store::in_memory().unwrap();
    let mut first = endpoint("1", "shop", "a");
    first.made_ms = 5;
    claim(&store, &first, false, 5).unwrap();
    store
        .keep_endpoints(&["1".to_owned()], 9_000, 9_000)
        .unwrap();
    let mut later = endpoint("1", "shop", "a");
    (later.made_ms, later.kept_until_ms) = (50, 150);
    claim(&store, &later, true, 50).unwrap();
    let kept = store.endpoint("shop").unwrap().unwrap();
    assert_eq!((kept.made_ms, kept.was_held), (5, true));
    assert_eq!(kept.kept_until_ms, 9_000, "no less than was promised");
}

#[test]
fn a_deleted_endpoint_stays_deleted_until_it_is_forgotten() {
    let store = Store::in_memory().unwrap();
    claim(&store, &endpoint("1", "shop", "a"), false, 0).unwrap();
    assert_eq!(delete(&store, "1", "b", 0), None, "another's");
    assert!(store.endpoint_by_id("1").unwrap().is_some());
    assert!(delete(&store, "1", "a", 0).is_some());
    // Also one whose name is over.
    assert_eq!(delete(&store, "lapsed", "a", 0), None);
    for id in ["1", "lapsed"] {
        let back = claim(&store, &endpoint(id, "shop", "a"), true, 0).unwrap_err();
        assert!(matches!(back, ClaimRefused::Deleted), "{back}");
    }
    assert_eq!(store.forget_deleted(99, 10).unwrap(), 0);
    assert!(store.is_deleted("a", "1").unwrap());
    assert_eq!(store.forget_deleted(100, 10).unwrap(), 2);
    assert!(!store.is_deleted("a", "1").unwrap());
}

#[test]
fn who_makes_and_deletes_without_end_shuts_out_himself_only() {
    let store = Store::in_memory().unwrap();
    let from = |id: &str, source: &str| {
        let mut endpoint = endpoint(id, &format!("n{id}"), "public");
        endpoint.source = source.to_owned();
        endpoint
    };
    for id in ["1", "2", "3", "4"] {
        claim(&store, &from(id, "192.0.2.1"), false, 0).unwrap();
        assert!(delete(&store, id, "public", 0).is_some());
    }
    let churned = claim(&store, &from("5", "192.0.2.1"), false, 0).unwrap_err();
    assert!(matches!(churned, ClaimRefused::ManyDeleted), "{churned}");
    claim(&store, &from("6", "192.0.2.2"), false, 0).unwrap();
    claim(&store, &from("7", "192.0.2.2"), false, 0).unwrap();
    let full = claim(&store, &from("8", "192.0.2.3"), false, 0).unwrap_err();
    assert!(matches!(full, ClaimRefused::ManyDeleted), "{full}");
    // What is there can always be deleted; what is not there has no room.
    let lapsed = Deletion {
        id: "9".to_owned(),
        tenant: "public".to_owned(),
        until_ms: 100,
    };
    let refused = store.delete_endpoint(&lapsed, 0, LIMITS).unwrap_err();
    assert!(matches!(refused, DeleteRefused::Full { .. }), "{refused}");
    assert!(delete(&store, "6", "public", 0).is_some());
    // Nobody else notices, agents with tokens least of all.
    let mut other = endpoint("a", "na", "acme");
    other.token_id = Some("t".to_owned());
    claim(&store, &other, false, 0).unwrap();
    assert!(store.admit_endpoint("a", "t", 50).unwrap().is_some());
    assert!(delete(&store, "a", "acme", 0).is_some());
    claim(&store, &from("5", "192.0.2.1"), false, 100).unwrap_err();
    store.forget_deleted(100, 100).unwrap();
    claim(&store, &from("5", "192.0.2.1"), false, 100).unwrap();
}

#[test]
fn a_token_opens_its_endpoint_once() {
    let store = Store::in_memory().unwrap();
    let mut shop = endpoint("1", "shop", "a");
    shop.token_id = Some("t1".to_owned());
    claim(&store, &shop, false, 0).unwrap();
    assert_eq!(store.admit_endpoint("1", "t0", 500).unwrap(), None);
    let admitted = store.admit_endpoint("1", "t1", 500).unwrap().unwrap();
    assert_eq!(
        (admitted.was_held, admitted.kept_until_ms),
        (true, 500),
        "the name is kept in the same step"
    );
    assert_eq!(store.endpoint("shop").unwrap(), Some(admitted));
    assert_eq!(store.admit_endpoint("1", "t1", 500).unwrap(), None);
}

#[test]
fn what_was_decided_on_fewer_others_is_decided_anew() {
    let store = Store::in_memory().unwrap();
    let one = endpoint("1", "n1", "a");
    assert_eq!(store.others_of_maker(&one).unwrap(), 0);
    let new = |id: &str, others| NewEndpoint {
        others: Some(others),
        ..new_endpoint(&endpoint(id, &format!("n{id}"), "a"), false)
    };
    let claim_of = |new: &NewEndpoint| store.claim_endpoint(new, 0, LIMITS, nobody_is_here, None);
    claim_of(&new("1", 0)).unwrap();
    assert_eq!(store.others_of_maker(&one).unwrap(), 0, "not itself");
    let raced = claim_of(&new("2", 0)).unwrap_err();
    assert!(matches!(raced, ClaimRefused::Overtaken), "{raced}");
    assert_eq!(store.others_of_maker(&endpoint("2", "n2", "a")).unwrap(), 1);
    claim_of(&new("2", 1)).unwrap();
    // Another maker of the tenant counts for itself.
    let mut theirs = endpoint("3", "n3", "a");
    theirs.made_by = "ops".to_owned();
    assert_eq!(store.others_of_maker(&theirs).unwrap(), 0);
}

#[test]
fn a_tenants_list_is_in_pages_and_its_own() {
    let store = Store::in_memory().unwrap();
    for (id, tenant) in [("1", "a"), ("2", "ab"), ("3", "a")] {
        claim(&store, &endpoint(id, &format!("n{id}"), tenant), false, 0).unwrap();
    }
    let page = |after: Option<&str>| -> Vec<String> {
        let filter = EndpointFilter {
            tenant: Some("a".to_owned()),
            after: after.map(str::to_owned),
        };
        let found = store.endpoints(&filter, 1).unwrap();
        found.into_iter().map(|endpoint| endpoint.name).collect()
    };
    assert_eq!(page(None), ["n1"]);
    assert_eq!(page(Some("n1")), ["n3"]);
    assert_eq!(page(Some("n3")), Vec::<String>::new());
}

#[test]
fn endpoints_that_are_kept_do_not_expire() {
    let store = Store::in_memory().unwrap();
    for id in ["1", "2"] {
        claim(&store, &endpoint(id, &format!("n{id}"), "a"), false, 0).unwrap();
    }
    store
        .keep_endpoints(&["2".to_owned(), "unknown".to_owned()], 200, 200)
        .unwrap();
    // Kept for long enough, it is left as it is.
    store.keep_endpoints(&["2".to_owned()], 210, 150).unwrap();
    let kept = store.endpoint_by_id("2").unwrap().unwrap();
    assert_eq!(kept.kept_until_ms, 200);
    let gone = store.expire_endpoints(100, 10, nobody_is_here).unwrap();
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].id, "1");
    let names = |after: Option<&str>| -> Vec<String> {
        let filter = EndpointFilter {
            after: after.map(str::to_owned),
            ..EndpointFilter::default()
        };
        let found = store.endpoints(&filter, 10).unwrap();
        found.into_iter().map(|endpoint| endpoint.name).collect()
    };
    assert_eq!(names(None), ["n2"]);
    assert_eq!(names(Some("n2")), Vec::<String>::new());
}

#[test]
fn a_reserved_name_is_only_for_its_tenant() {
    let store = Store::in_memory().unwrap();
    let reservation = |name: &str, tenant: &str| Reservation {
        name: name.to_owned(),
        tenant: tenant.to_owned(),
        made_by: "ops".to_owned(),
        made_ms: 0,
    };
    let reserve = |wanted: &Reservation, now_ms| store.reserve(wanted, now_ms, 1, nobody_is_here);
    reserve(&reservation("shop", "a"), 0).unwrap();
    reserve(&reservation("shop", "a"), 0).unwrap();
    let quota = reserve(&reservation("other", "a"), 0).unwrap_err();
    assert!(
        matches!(quota, ReserveRefused::Quota { limit: 1 }),
        "{quota}"
    );
    let taken = reserve(&reservation("shop", "b"), 0).unwrap_err();
    assert!(matches!(taken, ReserveRefused::Taken { .. }), "{taken}");

    let refused = claim(&store, &endpoint("1", "shop", "b"), false, 0).unwrap_err();
    assert!(
        matches!(refused, ClaimRefused::Reserved { .. }),
        "{refused}"
    );
    claim(&store, &endpoint("1", "shop", "a"), false, 0).unwrap();

    assert!(!store.release("shop", "b").unwrap());
    assert!(store.release("shop", "a").unwrap());
    assert!(!store.release("shop", "a").unwrap());
    // Who publishes a name keeps others from reserving it.
    let held = reserve(&reservation("shop", "b"), 0).unwrap_err();
    assert!(matches!(held, ReserveRefused::Taken { .. }), "{held}");
    reserve(&reservation("shop", "b"), 100).unwrap();
    assert_eq!(store.reservations(Some("b"), None, 9).unwrap().len(), 1);
}

#[test]
fn what_counts_once_counts_once_also_when_room_is_short() {
    let store = Store::in_memory().unwrap();
    let use_it = |id: &str, now| store.use_once(Once::Nonce, id, now, now + 10, 2).unwrap();
    assert_eq!(use_it("x", 0), Used::First);
    assert_eq!(use_it("x", 9), Used::Again);
    assert_eq!(use_it("y", 5), Used::First);
    assert_eq!(use_it("z", 9), Used::Full);
    // At 10 the first may be forgotten, which makes room.
    assert_eq!(use_it("z", 10), Used::First);
    assert_eq!(use_it("y", 14), Used::Again);
}

#[test]
fn keys_are_put_and_taken_away_in_one_step() {
    let store = Store::in_memory().unwrap();
    let key = |id: &str, until: u64| SigningKey {
        id: id.to_owned(),
        algorithm: "EdDSA".to_owned(),
        private: "hush-hush".to_owned(),
        made_ms: 0,
        signs_until_ms: until / 2,
        proves_until_ms: until,
    };
    store.put_signing_keys(&[key("old", 10)], &[]).unwrap();
    store
        .put_signing_keys(&[key("new", 30)], &["old".to_owned()])
        .unwrap();
    let ids: Vec<String> = store
        .signing_keys()
        .unwrap()
        .into_iter()
        .map(|key| key.id)
        .collect();
    assert_eq!(ids, ["new"]);
    assert!(!format!("{:?}", key("k", 1)).contains("hush"));
}

fn keyed(caller: &str, key: &str, request: &str, until_ms: u64) -> Keyed {
    Keyed {
        caller: caller.to_owned(),
        key: key.to_owned(),
        answer: Answer {
            request: request.to_owned(),
            status: 201,
            body: "{}".to_owned(),
            until_ms,
        },
        limit: 2,
    }
}

/// Claims one more endpoint, with an answer about it.
fn answered(store: &Store, id: &str, keyed: &Keyed) -> Result<Endpoint, ClaimRefused> {
    let new = new_endpoint(&endpoint(id, &format!("n{id}"), id), false);
    let limits = Limits {
        total: 100,
        ..LIMITS
    };
    store.claim_endpoint(&new, 0, limits, nobody_is_here, Some(keyed))
}

#[test]
fn an_answer_is_for_its_caller_and_request() {
    let store = Store::in_memory().unwrap();
    answered(&store, "1", &keyed("a", "b:c", "r", 10)).unwrap();
    let look = |caller, key, request, now_ms| store.answer(caller, key, request, now_ms).unwrap();
    assert!(matches!(look("a", "b:c", "r", 9), Remembered::Same(_)));
    assert_eq!(look("a", "b:c", "other", 9), Remembered::Other);
    assert_eq!(look("a:b", "c", "r", 9), Remembered::Nothing);
    assert_eq!(look("a", "b:c", "r", 10), Remembered::Nothing);
}

#[test]
fn an_answer_is_kept_with_what_it_tells_of_or_not_at_all() {
    let store = Store::in_memory().unwrap();
    answered(&store, "1", &keyed("a", "k1", "r", 10)).unwrap();
    answered(&store, "1", &keyed("a", "k2", "r", 10)).unwrap_err();
    let nothing = store.answer("a", "k2", "r", 0).unwrap();
    assert_eq!(nothing, Remembered::Nothing);
}

#[test]
fn a_caller_with_many_answers_pushes_out_its_own() {
    let store = Store::in_memory().unwrap();
    answered(&store, "0", &keyed("other", "k", "r", 1)).unwrap();
    for (id, until) in [("1", 50), ("2", 60), ("3", 70)] {
        answered(&store, id, &keyed("a", id, "r", until)).unwrap();
    }
    let look = |caller: &str, key: &str| store.answer(caller, key, "r", 0).unwrap();
    assert_eq!(look("a", "1"), Remembered::Nothing, "the earliest end");
    for (caller, key) in [("a", "2"), ("a", "3"), ("other", "k")] {
        assert!(matches!(look(caller, key), Remembered::Same(_)), "{key}");
    }
}

#[test]
fn answers_whose_time_is_over_leave_the_file() {
    let store = Store::in_memory().unwrap();
    answered(&store, "1", &keyed("a", "k", "r", 10)).unwrap();
    answered(&store, "2", &keyed("a", "l", "r", 20)).unwrap();
    assert_eq!(store.forget_answers(9, 10).unwrap(), 0);
    assert_eq!(store.forget_answers(10, 10).unwrap(), 1);
    let left = |table: schema::Json| {
        let mut left = 0;
        let each = |_: &str, _: serde_json::Value| {
            left += 1;
            true
        };
        store
            .read(|transaction| table.each(transaction, None, each))
            .unwrap();
        left
    };
    assert_eq!((left(schema::ANSWERS), left(schema::ANSWER_ENDS)), (1, 1));
}

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

struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }
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

/// What a caller may do, small enough that collisions are the rule.
#[derive(Clone, Debug)]
enum Step {
    Claim {
        id: u8,
        name: u8,
        tenant: u8,
        again: bool,
    },
    Remove {
        id: u8,
    },
    Keep {
        id: u8,
        until: u64,
    },
    Expire,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6u8, 0..4u8, 0..2u8, any::<bool>())
            .prop_map(|(id, name, tenant, again)| Step::Claim { id, name, tenant, again }),
        1 => (0..6u8).prop_map(|id| Step::Remove { id }),
        1 => (0..6u8, 0..300u64).prop_map(|(id, until)| Step::Keep { id, until }),
        1 => Just(Step::Expire),
        1 => (0..60u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done: ids and names lead to each other, and the counts are those of what is
    /// there.
    #[test]
    fn names_ids_and_counts_agree(steps in steps()) {
        let store = Store::in_memory().unwrap();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Claim { id, name, tenant, again } => {
                    let mut wanted =
                        endpoint(&id.to_string(), &format!("n{name}"), &format!("t{tenant}"));
                    wanted.kept_until_ms = now + 50;
                    let _ = claim(&store, &wanted, again, now);
                }
                Step::Remove { id } => {
                    for tenant in ["t0", "t1"] {
                        let deletion = Deletion {
                            id: id.to_string(),
                            tenant: tenant.to_owned(),
                            until_ms: now + 30,
                        };
                        let _ = store.delete_endpoint(&deletion, now, LIMITS);
                    }
                }
                Step::Keep { id, until } => {
                    store.keep_endpoints(&[id.to_string()], until, until).unwrap();
                }
                Step::Expire => {
                    store.expire_endpoints(now, 2, nobody_is_here).unwrap();
                    store.forget_deleted(now, 2).unwrap();
                }
                Step::Wait(ms) => now += ms,
            }
            let all = store.endpoints(&EndpointFilter::default(), 100).unwrap();
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for endpoint in &all {
                let found = store.endpoint_by_id(&endpoint.id).unwrap();
                prop_assert_eq!(found.as_ref(), Some(endpoint));
                *counts.entry(endpoint.tenant.clone()).or_default() += 1;
            }
            for tenant in ["t0", "t1"] {
                let filter = EndpointFilter { tenant: Some(tenant.to_owned()), after: None };
                let theirs = store.endpoints(&filter, 100).unwrap();
                let expected: Vec<_> =
                    all.iter().filter(|one| one.tenant == tenant).cloned().collect();
                prop_assert_eq!(theirs, expected);
            }
            let (mut marks, mut ids, mut remembered) = (0, 0, 0);
            store.read(|transaction| {
                schema::TENANTS.each(transaction, None, |tenant, has: endpoint::Has| {
                    assert_eq!(has.endpoints, counts.remove(tenant).unwrap_or_default());
                    remembered += has.deleted;
                    true
                })?;
                schema::DELETED.each(transaction, None, |_, _: serde_json::Value| {
                    marks += 1;
                    true
                })?;
                schema::ENDPOINT_IDS.each(transaction, None, |_, _: String| {
                    ids += 1;
                    true
                })
            }).unwrap();
            prop_assert!(counts.is_empty());
            prop_assert_eq!((ids, marks), (all.len(), remembered));
        }
    }
}
