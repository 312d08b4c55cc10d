#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod agree;
mod answers;
mod backup;
mod deleted;
mod endpoints;
mod file;
mod keys;
mod lapse;
mod once;
mod ports;
mod quotas;
mod reservations;

use super::*;

const LIMITS: Limits = Limits {
    per_tenant: 3,
    total: 5,
    deleted_per_tenant: 3,
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
        port: None,
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
