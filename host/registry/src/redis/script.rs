//! The scripts that run in Redis. Each is atomic, touches the keys of one slot, and can be run
//! again. Their texts stand in `scripts/`; what they answer is an array whose first element says
//! what came of it.

use std::sync::LazyLock;

/// A script and the name by which errors call it.
pub(super) struct Script {
    pub(super) name: &'static str,
    pub(super) text: String,
    /// The SHA-1 under which Redis keeps it.
    pub(super) hash: String,
}

impl Script {
    fn new(name: &'static str, body: &str) -> Self {
        let text = format!("{}\n{body}", include_str!("scripts/common.lua"));
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { name, text, hash }
    }
}

macro_rules! scripts {
    ($($constant:ident = $name:literal;)*) => {
        $(pub(super) static $constant: LazyLock<Script> = LazyLock::new(|| {
            Script::new($name, include_str!(concat!("scripts/", $name, ".lua")))
        });)*
    };
}

scripts! {
    CLAIM = "claim";
    PUBLISH = "publish";
    RENEW = "renew";
    OFFER = "offer";
    RELEASE = "release";
    RECORD = "record";
    INDEX_PUT = "index_put";
    INDEX_REMOVE = "index_remove";
    HUB_ANNOUNCE = "hub_announce";
    HUB_WITHDRAW = "hub_withdraw";
    HUB_LIST = "hub_list";
    LEASE_HOLD = "lease_hold";
    LEASE_DROP = "lease_drop";
    CHANGE = "change";
    COUNT = "count";
    REVOKE = "revoke";
    REVOCATIONS = "revocations";
}
