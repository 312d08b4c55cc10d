//! Real servers for the tests. Each takes a free port and a folder of its own, is waited for with
//! a deadline, and ends with the value that started it.
//!
//! A test that needs one begins with `if skip_without(&["slapd"]) { return; }`: where a program is
//! missing that fails, naming `make install-parts`, unless `ALLOW_SKIP=1` makes it a counted skip.

pub(crate) mod cerbos;
pub(crate) mod certificates;
pub(crate) mod forward_proxy;
pub(crate) mod ingress;
pub(crate) mod nginx;
pub(crate) mod oidc;
pub(crate) mod otlp;
pub(crate) mod pebble;
pub(crate) mod slapd;
pub(crate) mod tokens;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::repository::root;

/// How long a server may take until it answers: slow machines under load included.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long one command of a test may run.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The most of a log that a failure shows, in bytes.
const LOG_TAIL_BYTES: usize = 6_000;

/// Whether one of `programs` is missing, so that the test has nothing to talk to. A name with a
/// slash is a path below the project's folder.
pub(crate) fn skip_without(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .filter(|name| find(name).is_none())
        .collect();
    if missing.is_empty() {
        return false;
    }
    let allowed = std::env::var("ALLOW_SKIP").is_ok_and(|value| value == "1");
    assert!(
        allowed,
        "missing: {missing:?}; `make install-parts` installs them, for slow tests `make test-all`; \
         ALLOW_SKIP=1 does without"
    );
    if let Some(path) = std::env::var_os("NOWCONNECT_SKIP_LOG") {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let mut log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        writeln!(log, "{test}: {missing:?} missing").unwrap();
    }
    true
}

/// Where a program is; `sbin` counts although it is not on everybody's `PATH`.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(root().join(name)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// A command for a program that [`skip_without`] has seen.
pub(crate) fn program(name: &str) -> Command {
    let mut command =
        Command::new(find(name).unwrap_or_else(|| panic!("`{name}` is not installed")));
    command.stdin(Stdio::null());
    command
}

/// A loopback port that was free a moment ago, and that this process gives out only once.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap();
    loop {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        if given.insert(port) {
            return port;
        }
    }
}

/// Asks `look` until it has an answer; the test fails after `deadline`.
pub(crate) fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {deadline:?}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Output {
    let shown = format!("{command:?}");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect(&shown);
    let reader = |mut stream: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes
        })
    };
    let stdout = reader(Box::new(child.stdout.take().unwrap()));
    let stderr = reader(Box::new(child.stderr.take().unwrap()));
    let end = Instant::now() + COMMAND_DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{shown}: still running after {COMMAND_DEADLINE:?}");
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    Output {
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

/// Runs a command that must succeed and returns its stdout.
pub(crate) fn run_ok(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let output = run(command);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{shown}: {}\n{stdout}\n{stderr}",
        output.status
    );
    stdout.into_owned()
}

/// A running server. Dropping it kills it.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a server whose output goes to a file in `folder`.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let child = command
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {command:?}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
        }
    }

    /// All that the server has printed.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for `look` to find something; fails early if the server ends, and shows its log.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        let end = Instant::now() + START_DEADLINE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > end {
                let log = self.log();
                let tail =
                    &log[log.floor_char_boundary(log.len().saturating_sub(LOG_TAIL_BYTES))..];
                panic!(
                    "{}: {what}: exit {ended:?}, within {START_DEADLINE:?}\n{tail}",
                    self.name
                );
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until the program has ended by itself.
    pub(crate) fn wait_until_ended(&mut self, deadline: Duration) -> ExitStatus {
        eventually(&format!("the end of {}", self.name), deadline, || {
            self.child.try_wait().unwrap()
        })
    }

    /// Waits until the port takes connections.
    pub(crate) fn wait_for_port(&mut self, port: u16) {
        self.wait_for(&format!("port {port}"), |_| accepts(port).then_some(()));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail = &log[log.floor_char_boundary(log.len().saturating_sub(LOG_TAIL_BYTES))..];
            eprintln!("--- log of {} ---\n{tail}", self.name);
        }
    }
}

fn accepts(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
}
