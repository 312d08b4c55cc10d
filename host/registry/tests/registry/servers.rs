//! Real Redis servers. Each takes a free port and a folder of its own, is waited for, and ends
//! with the value that started it.

mod authority;
mod cluster;
mod sentinel;

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) use authority::Authority;
pub(crate) use cluster::Cluster;
pub(crate) use sentinel::Sentinels;

use crate::wait::PATIENCE;

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Redis in a cluster listens on its port plus this one too.
const BUS_OFFSET: u16 = 10_000;

/// Whether Redis is missing, so that the test has nothing to talk to: that fails, unless
/// `ALLOW_SKIP=1` makes it a skip.
pub(crate) fn skip_without_redis() -> bool {
    let missing: Vec<_> = ["redis-server", "redis-cli"]
        .into_iter()
        .filter(|name| find(name).is_none())
        .collect();
    if missing.is_empty() {
        return false;
    }
    let allowed = std::env::var("ALLOW_SKIP").is_ok_and(|value| value == "1");
    assert!(
        allowed,
        "missing: {missing:?}; `make install-parts` installs them, ALLOW_SKIP=1 does without"
    );
    true
}

/// A server, ended when it is dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    folder: TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
    /// What `redis-cli` needs besides the port.
    client: Vec<String>,
}

impl Server {
    /// One without persistence, on a free port.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::prepare(arguments).started()
    }

    pub(super) fn prepare(arguments: &[&str]) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let mut all: Vec<String> = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
            .map(str::to_owned)
            .into();
        all.extend(["--dir".to_owned(), folder.path().display().to_string()]);
        all.extend(["--port".to_owned(), port.to_string()]);
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Self {
            port,
            folder,
            arguments: all,
            child: None,
            client: Vec::new(),
        }
    }

    /// As `prepare`, with what only a server's own port decides.
    pub(super) fn with(mut self, arguments: &[String], client: &[String]) -> Self {
        self.arguments.extend_from_slice(arguments);
        self.client.extend_from_slice(client);
        self
    }

    pub(super) fn started(mut self) -> Self {
        self.start_again();
        self
    }

    /// Starts it anew, on the same port and with the same arguments.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = File::create(self.folder.path().join("log")).unwrap();
        let mut command = program("redis-server");
        command
            .args(&self.arguments)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.child = Some(command.spawn().unwrap());
        let end = Instant::now() + PATIENCE;
        // One that wants a password answers that it does.
        while !["PONG", "NOAUTH", "NOPERM"]
            .iter()
            .any(|answer| self.try_cli(&["PING"]).contains(answer))
        {
            assert!(
                Instant::now() < end,
                "redis does not answer: {}",
                self.log()
            );
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it in the middle of what it does; it keeps its connections.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// What `redis-cli` prints for a command.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let answer = self.try_cli(arguments);
        let bad = answer.starts_with("ERR") || answer.contains("Could not connect");
        assert!(!bad, "{arguments:?}: {answer}");
        answer
    }

    fn try_cli(&self, arguments: &[&str]) -> String {
        let output = program("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(&self.client)
            .args(arguments)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // A paused one is ended as well.
            let _gone = child.kill();
            let _waited = child.wait();
        }
    }
}

/// Where a program is; `sbin` counts although it is not on everybody's `PATH`.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

fn program(name: &str) -> Command {
    let mut command = Command::new(find(name).unwrap());
    command.stdin(Stdio::null());
    command
}

/// A loopback port that was free a moment ago, as its bus port was, and that this process gives
/// out only once.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap();
    loop {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let Some(bus) = port.checked_add(BUS_OFFSET) else {
            continue;
        };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, bus)).is_ok()
            && !given.contains(&bus)
            && given.insert(port)
        {
            return port;
        }
    }
}
