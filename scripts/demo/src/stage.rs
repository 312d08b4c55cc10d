//! The stage: a folder with configuration, certificates, policies and plugins, and the hub and
//! the agent that run from it, as the programs that users run.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::Failed;

/// How long anything on the stage may take to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long the hub and the agent may take to end after they were asked to.
const END_DEADLINE: Duration = Duration::from_secs(15);

/// Between two looks at something that has not happened yet.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// A Unix socket's path has at most 107 bytes.
const SOCKET_PATH_MAX: usize = 100;

/// The folder, the ports, and what runs.
#[derive(Debug)]
pub struct Stage {
    /// The folder with all files.
    pub folder: PathBuf,
    /// Where `nowconnect` and `nowconnect-agent` are.
    pub programs: PathBuf,
    /// The hub's port for agents.
    pub tunnel: u16,
    /// The hub's port for metrics.
    pub metrics: u16,
    /// The agent's health port.
    pub health: u16,
    running: Vec<(&'static str, Child)>,
}

impl Stage {
    /// An empty stage beside the programs.
    ///
    /// # Errors
    /// A folder that cannot be made, or no free port.
    pub fn new(programs: &Path) -> Result<Self, Failed> {
        let beside = programs.parent().unwrap_or(programs).join("demo");
        let folder = if beside.as_os_str().len() + "/admin.sock".len() <= SOCKET_PATH_MAX {
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
            folder,
            programs: programs.to_owned(),
            tunnel: port_near(8765)?,
            metrics: port_near(8000)?,
            health: port_near(8090)?,
            running: Vec::new(),
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

    /// Starts one of the programs with its configuration; what it prints goes to `<name>.log`.
    ///
    /// # Errors
    /// The program is not there.
    pub fn start(&mut self, name: &'static str, program: &str, config: &str) -> Result<(), Failed> {
        let log =
            File::create(self.folder.join(format!("{name}.log"))).map_err(Failed::doing(name))?;
        let errors = log.try_clone().map_err(Failed::doing(name))?;
        let program = self.programs.join(program);
        let mut command = self.tied_to_this_process(&program);
        command
            .args(["run", "--config", config])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let child = command.spawn().map_err(Failed::doing(program.display()))?;
        self.running.push((name, child));
        Ok(())
    }

    /// Runs `nowconnect` to its end and returns what it printed.
    ///
    /// # Errors
    /// It fails.
    pub fn nowconnect(&self, arguments: &[&str]) -> Result<String, Failed> {
        let mut command = Command::new(self.programs.join("nowconnect"));
        clean(&mut command);
        let output = command
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

    /// All that a program has printed.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let bytes = std::fs::read(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Asks `look` until it has an answer.
    ///
    /// # Errors
    /// [`PATIENCE`] is over, or a program has ended; the end of its log is in the message.
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
            self.check()?;
            if Instant::now() > end {
                let logs = ["hub", "agent"]
                    .map(|name| tail(&self.log(name)))
                    .join("\n");
                return Err(Failed(format!("{what}: not within {PATIENCE:?}\n{logs}")));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Whether everything that was started still runs.
    ///
    /// # Errors
    /// Something ended by itself.
    pub fn check(&mut self) -> Result<(), Failed> {
        for (name, child) in &mut self.running {
            if let Some(status) = child.try_wait().map_err(Failed::doing(&*name))? {
                let log =
                    std::fs::read(self.folder.join(format!("{name}.log"))).unwrap_or_default();
                let log = tail(&String::from_utf8_lossy(&log));
                return Err(Failed(format!("the {name} has ended: {status}\n{log}")));
            }
        }
        Ok(())
    }

    /// Ends what runs, the last started first, and says whether all of it ended well.
    #[must_use]
    pub fn end(&mut self) -> bool {
        let mut well = true;
        while let Some((_, mut child)) = self.running.pop() {
            let asked = Command::new("kill")
                .args(["-s", "TERM", &child.id().to_string()])
                .stderr(Stdio::null())
                .status();
            let end = Instant::now() + END_DEADLINE;
            let status = loop {
                match child.try_wait() {
                    Ok(None) if asked.is_ok() && Instant::now() < end => {
                        std::thread::sleep(POLL_INTERVAL)
                    }
                    Ok(status) => break status,
                    Err(_) => break None,
                }
            };
            well &= status.is_some_and(|status| status.success());
            if status.is_none() {
                // It may have ended between the two looks.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        well
    }

    /// A command whose process does not outlive this one, however it ends.
    fn tied_to_this_process(&self, program: &Path) -> Command {
        let helper = Path::new("/usr/bin/setpriv");
        let mut command = if helper.exists() {
            let mut command = Command::new(helper);
            command.args(["--pdeathsig", "TERM"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        clean(&mut command);
        command
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// A flow through the gateway, held by a client.
#[derive(Debug)]
pub struct Flow(TcpStream);

impl Flow {
    /// Connects to a listener.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(port: u16) -> Result<Self, Failed> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream =
            TcpStream::connect_timeout(&address, PATIENCE).map_err(Failed::doing(address))?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .map_err(Failed::doing(address))?;
        Ok(Self(stream))
    }

    /// The client's own address, by which the hub's log and decisions name it.
    #[must_use]
    pub fn client(&self) -> String {
        self.0
            .local_addr()
            .map(|address| address.to_string())
            .unwrap_or_default()
    }

    /// Whether `text` comes back.
    pub fn echoes(&mut self, text: &str) -> bool {
        let mut back = vec![0; text.len()];
        self.0.write_all(text.as_bytes()).is_ok()
            && self.0.read_exact(&mut back).is_ok()
            && back == text.as_bytes()
    }

    /// Sends a request and returns all that comes back until the end; nothing if the hub closes.
    pub fn ask(&mut self, request: &str) -> String {
        let mut answer = String::new();
        if self.0.write_all(request.as_bytes()).is_ok() {
            // A refusal may come as an end or as a reset.
            let _ = self.0.read_to_string(&mut answer);
        }
        answer
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

/// Takes away the variables that would change what the programs do.
fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        let ours = [
            "NC_",
            "NOWCONNECT_",
            "OTEL_",
            "LOG_LEVEL",
            "SERVICE_CONFIG_DIR",
            "FAPI_MODE",
        ];
        if upper.ends_with("_PROXY") || ours.iter().any(|prefix| upper.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
