//! The stage: a folder with configuration, certificates, policies and plugins, and the hub and
//! the agent that run from it.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::Failed;
use crate::embedded::Embedded;

/// How long anything on the stage may take to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at something that has not happened yet.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Where hub and agent log, in the stage's folder.
const LOG: &str = "demo.log";

/// A Unix socket's path has at most 107 bytes.
const SOCKET_PATH_MAX: usize = 100;

/// The folder, the ports, and what runs.
#[derive(Debug)]
pub struct Stage {
    /// The folder with all files.
    pub folder: PathBuf,
    /// Where the operator's command line is.
    pub programs: PathBuf,
    /// The hub's port for agents.
    pub tunnel: u16,
    /// The hub's port for metrics.
    pub metrics: u16,
    /// The agent's health port.
    pub health: u16,
    /// Hub and agent.
    pub gateway: Embedded,
}

impl Stage {
    /// An empty stage beside the programs.
    ///
    /// # Errors
    /// A folder that cannot be made, or no free port.
    pub fn new(programs: &Path) -> Result<Self, Failed> {
        let beside = programs.parent().unwrap_or(programs).join("demo");
        let fits = beside.as_os_str().len() + "/admin.sock".len() <= SOCKET_PATH_MAX;
        // Another demo may be running there.
        let is_free = UnixStream::connect(beside.join("admin.sock")).is_err();
        let folder = if fits && is_free {
            beside
        } else {
            std::env::temp_dir().join(format!("nowconnect-demo-{}", std::process::id()))
        };
        if folder.exists() {
            std::fs::remove_dir_all(&folder)
                .map_err(Failed::doing("removing the last demo's folder"))?;
        }
        for name in ["policies", "plugins"] {
            std::fs::create_dir_all(folder.join(name)).map_err(Failed::doing(folder.display()))?;
        }
        Ok(Self {
            programs: programs.to_owned(),
            tunnel: port_near(8765)?,
            metrics: port_near(8000)?,
            health: port_near(8090)?,
            gateway: Embedded::new(folder.join(LOG))?,
            folder,
        })
    }

    /// Writes a file of the stage in one step, so that a watcher never reads half of it.
    ///
    /// # Errors
    /// The disk.
    pub fn write(&self, name: &str, text: &str) -> Result<(), Failed> {
        let path = self.folder.join(name);
        let new = self.folder.join(format!(".{}.new", name.replace('/', "-")));
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(Failed::doing(path.display()))
    }

    /// Copies all files of an extension into a folder of the stage and says how many.
    ///
    /// # Errors
    /// There is none, or the disk.
    pub fn copy(&self, from: &Path, extension: &str, to: &str) -> Result<usize, Failed> {
        let entries = std::fs::read_dir(from).map_err(Failed::doing(from.display()))?;
        let mut copied = 0;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|found| found == extension) {
                let name = path.file_name().unwrap_or_default();
                std::fs::copy(&path, self.folder.join(to).join(name))
                    .map_err(Failed::doing(path.display()))?;
                copied += 1;
            }
        }
        if copied == 0 {
            return Err(Failed(format!(
                "{}: there is no *.{extension}",
                from.display()
            )));
        }
        Ok(copied)
    }

    /// Makes an authority (`ca.pem`) and the hub's certificate (`hub.pem`, `hub.key`).
    ///
    /// # Errors
    /// Randomness or the disk.
    pub fn make_certificates(&self) -> Result<(), Failed> {
        let doing =
            |what: &'static str| move |error: rcgen::Error| Failed(format!("{what}: {error}"));
        let mut authority = CertificateParams::default();
        authority
            .distinguished_name
            .push(DnType::CommonName, "demo authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().map_err(doing("the authority's key"))?;
        let certificate = authority
            .self_signed(&authority_key)
            .map_err(doing("the authority"))?;
        self.write("ca.pem", &certificate.pem())?;
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().map_err(doing("the hub's key"))?;
        let params = CertificateParams::new(vec!["localhost".to_owned()])
            .map_err(doing("the hub's name"))?;
        let certificate = params
            .signed_by(&key, &issuer)
            .map_err(doing("the hub's certificate"))?;
        self.write("hub.pem", &certificate.pem())?;
        self.write("hub.key", &key.serialize_pem())
    }

    /// Starts the hub from `cloud.yaml`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_hub(&mut self) -> Result<(), Failed> {
        self.gateway.start_hub(&self.folder.join("cloud.yaml"))
    }

    /// Starts the agent from `premise.yaml`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_agent(&mut self) -> Result<(), Failed> {
        self.gateway.start_agent(&self.folder.join("premise.yaml"))
    }

    /// Runs `nowconnect` to its end and returns what it printed.
    ///
    /// # Errors
    /// It fails.
    pub fn nowconnect(&self, arguments: &[&str]) -> Result<String, Failed> {
        let output = Command::new(self.programs.join("nowconnect"))
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .map_err(Failed::doing("nowconnect"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(Failed(format!(
            "nowconnect {}: {}\n{said}{errors}",
            arguments.join(" "),
            output.status
        )))
    }

    /// Where hub and agent log.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.folder.join(LOG)
    }

    /// All that hub and agent have logged.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asks `look` until it has an answer.
    ///
    /// # Errors
    /// [`PATIENCE`] is over, or the agent has ended; the end of the log is in the message.
    pub fn eventually<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, Failed> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            self.gateway.check()?;
            if Instant::now() > end {
                let problem = self.gateway.agent_problem().unwrap_or_default();
                let log = tail(&self.log());
                return Err(Failed(format!(
                    "{what}: not within {PATIENCE:?} {problem}\n{log}"
                )));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// The wanted port if nothing has it, else any free one.
fn port_near(wanted: u16) -> Result<u16, Failed> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Failed::doing("a free port"))
}

/// A port for a listener: the wanted one if nothing has it, else any free one.
///
/// # Errors
/// No port is free.
pub fn listener_port(wanted: u16) -> Result<u16, Failed> {
    port_near(wanted)
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
