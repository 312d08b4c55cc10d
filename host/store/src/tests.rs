#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    per_tenant: 3,
    total: 5,
};

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

fn claim(store: &Store, endpoint: &Endpoint, again: bool, now_ms: u64) -> Result<(), ClaimRefused> {
    let new = NewEndpoint {
        endpoint: endpoint.clone(),
        again,
    };
    store.claim_endpoint(&new, now_ms, LIMITS)
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
    store.remove_endpoint("1").unwrap().unwrap();
    assert_eq!(store.remove_endpoint("1").unwrap(), None);
    claim(&store, &endpoint("4", "n4", "a"), false, 0).unwrap();
}

#[test]
fn endpoints_that_are_kept_do_not_expire() {
    let store = Store::in_memory().unwrap();
    for id in ["1", "2"] {
        claim(&store, &endpoint(id, &format!("n{id}"), "a"), false, 0).unwrap();
    }
    store
        .keep_endpoints(&["2".to_owned(), "unknown".to_owned()], 200)
        .unwrap();
    let gone = store.expire_endpoints(100, 10).unwrap();
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
    store.reserve(&reservation("shop", "a"), 0, 1).unwrap();
    store.reserve(&reservation("shop", "a"), 0, 1).unwrap();
    let quota = store.reserve(&reservation("other", "a"), 0, 1).unwrap_err();
    assert!(
        matches!(quota, ReserveRefused::Quota { limit: 1 }),
        "{quota}"
    );
    let taken = store.reserve(&reservation("shop", "b"), 0, 1).unwrap_err();
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
    let held = store.reserve(&reservation("shop", "b"), 0, 1).unwrap_err();
    assert!(matches!(held, ReserveRefused::Taken { .. }), "{held}");
    store.reserve(&reservation("shop", "b"), 100, 1).unwrap();
    assert_eq!(store.reservations(Some("b"), None, 9).unwrap().len(), 1);
}

#[test]
fn what_counts_once_counts_once_also_when_room_is_short() {
    let store = Store::in_memory().unwrap();
    let use_it = |what, id: &str, now| store.use_once(what, id, now, now + 10, 2).unwrap();
    assert_eq!(use_it(Once::Token, "x", 0), Used::First);
    assert_eq!(use_it(Once::Token, "x", 9), Used::Again);
    assert_eq!(use_it(Once::Nonce, "x", 5), Used::First);
    assert_eq!(use_it(Once::Nonce, "y", 9), Used::Full);
    // At 10 the token may be forgotten, which makes room.
    assert_eq!(use_it(Once::Nonce, "y", 10), Used::First);
    assert_eq!(use_it(Once::Nonce, "x", 14), Used::Again);
}

#[test]
fn keys_that_prove_nothing_any_more_are_forgotten() {
    let store = Store::in_memory().unwrap();
    let key = |id: &str, until: u64| SigningKey {
        id: id.to_owned(),
        algorithm: "EdDSA".to_owned(),
        private: "hush-hush".to_owned(),
        made_ms: 0,
        signs_until_ms: until / 2,
        proves_until_ms: until,
    };
    store.put_signing_keys(&[key("old", 10)], 0).unwrap();
    store.put_signing_keys(&[key("new", 30)], 10).unwrap();
    let ids: Vec<String> = store
        .signing_keys()
        .unwrap()
        .into_iter()
        .map(|key| key.id)
        .collect();
    assert_eq!(ids, ["new"]);
    assert!(!format!("{:?}", key("k", 1)).contains("hush"));
    assert!(store.remove_signing_key("new").unwrap());
}

#[test]
fn an_answer_is_for_its_caller_and_request() {
    let store = Store::in_memory().unwrap();
    let answer = |request: &str, until_ms| Answer {
        request: request.to_owned(),
        status: 201,
        body: "{}".to_owned(),
        until_ms,
    };
    store
        .remember_answer("a", "b:c", &answer("r", 10), 0, 2)
        .unwrap();
    assert!(matches!(
        store.answer("a", "b:c", "r", 9).unwrap(),
        Remembered::Same(_)
    ));
    assert_eq!(
        store.answer("a", "b:c", "other", 9).unwrap(),
        Remembered::Other
    );
    assert_eq!(
        store.answer("a:b", "c", "r", 9).unwrap(),
        Remembered::Nothing
    );
    assert_eq!(
        store.answer("a", "b:c", "r", 10).unwrap(),
        Remembered::Nothing
    );
    // The one whose time ends first goes.
    for (key, until) in [("k2", 50), ("k3", 60)] {
        store
            .remember_answer("a", key, &answer("r", until), 0, 2)
            .unwrap();
    }
    assert_eq!(
        store.answer("a", "b:c", "r", 0).unwrap(),
        Remembered::Nothing
    );
    assert!(matches!(
        store.answer("a", "k2", "r", 0).unwrap(),
        Remembered::Same(_)
    ));
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
    store.use_once(Once::Token, "t", 0, 100, 10).unwrap();
    store.backup(&copy).unwrap();
    assert!(
        store.backup(&copy).is_err(),
        "a backup is never written over"
    );
    claim(&store, &endpoint("2", "late", "a"), false, 0).unwrap();

    let in_use = Store::restore(&copy, &path).unwrap_err();
    assert!(matches!(in_use, StoreError::InUse { .. }), "{in_use}");
    drop(store);
    let aside = Store::restore(&copy, &path).unwrap().unwrap();
    let back = Store::open(&path).unwrap();
    assert!(back.endpoint("shop").unwrap().is_some());
    assert!(back.endpoint("late").unwrap().is_none());
    assert_eq!(
        back.use_once(Once::Token, "t", 0, 100, 10).unwrap(),
        Used::Again,
        "a token that was used stays used"
    );
    let before = Store::open(&aside).unwrap();
    assert!(before.endpoint("late").unwrap().is_some());
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
                    store.remove_endpoint(&id.to_string()).unwrap();
                }
                Step::Keep { id, until } => store.keep_endpoints(&[id.to_string()], until).unwrap(),
                Step::Expire => {
                    store.expire_endpoints(now, 2).unwrap();
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
            let transaction = store.read().unwrap();
            schema::TENANTS.each(&transaction, None, |tenant, has: endpoint::Has| {
                assert_eq!(has.endpoints, counts.remove(tenant).unwrap_or_default());
                true
            }).unwrap();
            prop_assert!(counts.is_empty());
            let mut ids = 0;
            schema::ENDPOINT_IDS.each(&transaction, None, |_, _: String| { ids += 1; true }).unwrap();
            prop_assert_eq!(ids, all.len());
        }
    }
}
