//! An engine with an observer that remembers, and the facts that tests ask about.

use std::sync::Arc;
use std::time::Duration;

use nowconnect_plugins::{
    Agent, CallInfo, CallOutcome, CallReport, Carry, Closed, Dropped, EngineSettings, Enrich, Head,
    Hello, Hook, HttpRequest, HttpRequestOutcome, HttpResponse, HttpResponseOutcome, LoadError,
    MemoryKv, MemoryKvSettings, Open, OpenOutcome, Peer, PluginEngine, PluginLogLine,
    PluginObserver, PluginSet, PluginSource, PluginSpec, Signals, Viewer,
};
use parking_lot::Mutex;

use super::guest;

/// An engine small enough to have one for each test.
pub(crate) struct Bench {
    pub(crate) engine: PluginEngine,
    pub(crate) seen: Arc<Seen>,
    pub(crate) agent: Agent,
    pub(crate) peer: Peer,
    pub(crate) viewer: Viewer,
}

/// What the observer was told.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) calls: Mutex<Vec<(Hook, CallOutcome, String)>>,
    pub(crate) log_lines: Mutex<Vec<String>>,
    pub(crate) dropped: Mutex<Vec<(Dropped, u64)>>,
    pub(crate) quarantine: Mutex<Vec<bool>>,
    pub(crate) metrics: Mutex<Vec<String>>,
    pub(crate) fetched: Mutex<Vec<&'static str>>,
    pub(crate) instances_made: Mutex<u32>,
}

impl PluginObserver for Seen {
    fn call_ended(&self, report: &CallReport<'_>) {
        if !report.instantiate.is_zero() {
            *self.instances_made.lock() += 1;
        }
        let detail = report.detail.unwrap_or_default().to_owned();
        self.calls
            .lock()
            .push((report.hook, report.outcome, detail));
    }

    fn log_line(&self, line: &PluginLogLine<'_>) {
        self.log_lines.lock().push(line.message.to_owned());
    }

    fn dropped(&self, _: &str, what: Dropped, number: u64) {
        self.dropped.lock().push((what, number));
    }

    fn count(&self, _: &str, name: &str, delta: u64, _: &[(String, String)]) {
        self.metrics.lock().push(format!("{name} {delta}"));
    }

    fn observe(&self, _: &str, name: &str, value: f64, _: &[(String, String)]) {
        self.metrics.lock().push(format!("{name} {value}"));
    }

    fn fetched(&self, _: &str, outcome: &'static str, _: Duration) {
        self.fetched.lock().push(outcome);
    }

    fn quarantine(&self, _: &str, quarantined: bool) {
        self.quarantine.lock().push(quarantined);
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with_settings(EngineSettings::default())
    }

    pub(crate) fn with_cache(folder: std::path::PathBuf) -> Self {
        Self::with_settings(EngineSettings {
            cache_dir: Some(folder),
            ..EngineSettings::default()
        })
    }

    pub(crate) fn with_settings(settings: EngineSettings) -> Self {
        let seen = Arc::new(Seen::default());
        let settings = EngineSettings {
            instances_max: 64,
            ..settings
        };
        let kv = Arc::new(MemoryKv::new(MemoryKvSettings::default()));
        let engine = PluginEngine::new(settings, kv, Arc::clone(&seen) as _).unwrap();
        Self {
            engine,
            seen,
            agent: Agent {
                id: "site-1".to_owned(),
                version: "0.1.0".to_owned(),
                ..Agent::default()
            },
            peer: Peer {
                ip: "192.0.2.1".to_owned(),
                port: 4711,
                ..Peer::default()
            },
            viewer: Viewer::default(),
        }
    }

    pub(crate) async fn load(&self, specs: Vec<PluginSpec>) -> Result<PluginSet, Vec<LoadError>> {
        PluginSet::load(&self.engine, specs).await
    }

    /// A set of one guest with default settings.
    pub(crate) async fn set_of(&self, name: &str) -> PluginSet {
        self.load(vec![spec(name)]).await.unwrap()
    }

    pub(crate) async fn open(&self, set: &PluginSet) -> OpenOutcome {
        self.open_on(set, "public", "db").await
    }

    pub(crate) async fn open_on(
        &self,
        set: &PluginSet,
        listener: &str,
        connector: &str,
    ) -> OpenOutcome {
        let info = info();
        self.open_as(set, &info, listener, connector).await
    }

    pub(crate) async fn open_as(
        &self,
        set: &PluginSet,
        info: &CallInfo<'_>,
        listener: &str,
        connector: &str,
    ) -> OpenOutcome {
        let open = Open {
            connector,
            listener,
            peer: &self.peer,
            viewer: &self.viewer,
            agent: &self.agent,
            via_mesh: false,
        };
        set.open(info, &open).await
    }

    pub(crate) async fn enrich(&self, set: &PluginSet) -> Signals {
        let enrich = Enrich {
            connector: "db",
            listener: "public",
            peer: &self.peer,
            viewer: &self.viewer,
            http: None,
        };
        set.enrich(&info(), &enrich).await
    }

    pub(crate) async fn close(&self, set: &PluginSet, carry: &Carry) {
        let closed = Closed {
            connector: "db",
            listener: "public",
            peer: &self.peer,
            viewer: &self.viewer,
            agent_id: "site-1",
            cause: "fin",
            bytes_c2a: 1,
            bytes_a2c: 2,
            lasted_ms: 3,
        };
        set.close(&info(), &closed, carry).await;
    }

    pub(crate) async fn request(&self, set: &PluginSet) -> HttpRequestOutcome {
        let request = HttpRequest {
            head: Head {
                method: "GET",
                scheme: "https",
                authority: "app.example",
                path_with_query: "/",
                headers: &[("accept".to_owned(), b"*/*".to_vec())],
            },
            peer: &self.peer,
            viewer: &self.viewer,
            agent: &self.agent,
            endpoint: "app",
            connector: "web",
        };
        set.http_request(&info(), &request).await
    }

    pub(crate) async fn response(&self, set: &PluginSet) -> HttpResponseOutcome {
        let response = HttpResponse {
            status: 200,
            headers: &[],
        };
        set.http_response(&info(), &response, &Carry::default())
            .await
    }

    pub(crate) fn hello<'a>(&'a self, announced: &'a [&'a str]) -> Hello<'a> {
        Hello {
            agent: &self.agent,
            peer: &self.peer,
            announced,
            why: "new",
        }
    }

    pub(crate) fn outcomes(&self) -> Vec<CallOutcome> {
        let calls = self.seen.calls.lock();
        calls.iter().map(|(_, outcome, _)| *outcome).collect()
    }

    pub(crate) fn last_detail(&self) -> String {
        let calls = self.seen.calls.lock();
        calls.last().map(|(_, _, detail)| detail.clone()).unwrap()
    }
}

/// A guest from `tests/guests`, with no grants.
pub(crate) fn spec(name: &str) -> PluginSpec {
    let plugin = name.replace('_', "-");
    let mut spec = PluginSpec::new(plugin, PluginSource::Bytes(guest::component(name)));
    // A busy test machine may take the processor from a well-behaved guest for a while.
    spec.limits.guest_time = Duration::from_secs(5);
    spec.limits.wall_time = Duration::from_secs(20);
    spec
}

pub(crate) fn info() -> CallInfo<'static> {
    CallInfo {
        request_id: "r-1",
        ..CallInfo::default()
    }
}

pub(crate) fn grants(grants: &[&str]) -> Vec<String> {
    grants.iter().map(|grant| (*grant).to_owned()).collect()
}
