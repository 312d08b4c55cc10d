//! Signing keys.

use super::*;

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
