//! The peers: this product, the rivals beside it, and plain loopback.
//!
//! Every peer forwards one public port on loopback to the backend's port. Where a peer has
//! two halves, the link between them can be led through a [`DelayProxy`].

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::delay::{DelayProxy, DelaySettings};
use crate::failure::{Context, Failure};
use crate::load::open::open_once;
use crate::process::{Meter, Tied};

pub(crate) mod credentials;
pub(crate) mod nowconnect;
mod rivals;

/// How long a peer may take until its public port answers. A hub compiles its plugins first.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum PeerKind {
    Direct,
    Haproxy2,
    Nowconnect,
    Bare,
    Haproxy2tls,
    RatholeTls,
    WstunnelWss,
    Frp,
    Chisel,
    SshR,
    Bore,
}

impl PeerKind {
    pub(crate) const ALL: [Self; 11] = [
        Self::Direct,
        Self::Haproxy2,
        Self::Nowconnect,
        Self::Bare,
        Self::Haproxy2tls,
        Self::RatholeTls,
        Self::WstunnelWss,
        Self::Frp,
        Self::Chisel,
        Self::SshR,
        Self::Bore,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy2 => "haproxy2",
            Self::Nowconnect => "nowconnect",
            Self::Bare => "bare",
            Self::Haproxy2tls => "haproxy2tls",
            Self::RatholeTls => "rathole-tls",
            Self::WstunnelWss => "wstunnel-wss",
            Self::Frp => "frp",
            Self::Chisel => "chisel",
            Self::SshR => "ssh-R",
            Self::Bore => "bore",
        }
    }

    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Direct => "the client straight to the backend over loopback",
            Self::Haproxy2 => "two chained HAProxies, plain TCP: the unit of the ratios",
            Self::Nowconnect => "hub and agent, TLS, shipped policies, built-in plugins",
            Self::Bare => "this product's data path alone: TLS, no policies, plugins or logs",
            Self::Haproxy2tls => "two chained HAProxies, TLS between them per connection",
            Self::RatholeTls => "rathole, native-tls, a connection per stream",
            Self::WstunnelWss => "wstunnel reverse mode over wss, a connection per stream",
            Self::Frp => "frp, one multiplexed connection with TLS",
            Self::Chisel => "chisel reverse, SSH channels in one WebSocket",
            Self::SshR => "ssh -R, aes128-gcm, SSH channels in one connection",
            Self::Bore => "bore, no encryption, a connection per stream",
        }
    }

    /// Programs that must be there.
    const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Direct | Self::Bare => &[],
            Self::Haproxy2 | Self::Haproxy2tls => &["haproxy"],
            Self::Nowconnect => &["nowconnect", "nowconnect-agent"],
            Self::RatholeTls => &["rathole", "openssl"],
            Self::WstunnelWss => &["wstunnel"],
            Self::Frp => &["frps", "frpc"],
            Self::Chisel => &["chisel"],
            Self::SshR => &["sshd", "ssh", "ssh-keygen"],
            Self::Bore => &["bore"],
        }
    }

    /// Whether two instances cannot run beside each other.
    pub(crate) fn is_alone(self) -> bool {
        self == Self::Bore
    }

    /// The first program that is missing, if any.
    pub(crate) fn missing(self, tools: &Tools) -> Option<&'static str> {
        let mut programs = self.programs().iter();
        programs
            .find(|program| tools.find(program).is_none())
            .copied()
    }

    /// The first line that the peer's program says about itself.
    pub(crate) fn version(self, tools: &Tools) -> String {
        let Some(program) = self.programs().first() else {
            return String::new();
        };
        let flag = match self {
            Self::SshR | Self::Haproxy2 | Self::Haproxy2tls => "-v",
            Self::Direct
            | Self::Bare
            | Self::Nowconnect
            | Self::RatholeTls
            | Self::WstunnelWss
            | Self::Frp
            | Self::Chisel
            | Self::Bore => "--version",
        };
        let Some(path) = tools.find(if self == Self::SshR { "ssh" } else { program }) else {
            return "not installed".to_owned();
        };
        let flag = if self == Self::SshR { "-V" } else { flag };
        let Ok(output) = Command::new(path).arg(flag).output() else {
            return String::new();
        };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| {
            line.chars().any(|character| character.is_ascii_digit())
                && !line.starts_with("Build Timestamp")
        });
        line.unwrap_or_default().trim().to_owned()
    }

    /// Starts the peer in front of the site's backend.
    pub(crate) fn start(self, site: &Site) -> Result<RunningPeer, Failure> {
        let yard = Yard::new(site, self.name())?;
        let mut peer = match self {
            Self::Direct => rivals::start_direct(&yard),
            Self::Haproxy2 => rivals::start_haproxies(&yard, false),
            Self::Haproxy2tls => rivals::start_haproxies(&yard, true),
            Self::Nowconnect => nowconnect::start(&yard, &nowconnect::HubShape::shipped()),
            Self::Bare => nowconnect::start_bare(&yard),
            Self::RatholeTls => rivals::start_rathole(&yard),
            Self::WstunnelWss => rivals::start_wstunnel(&yard),
            Self::Frp => rivals::start_frp(&yard),
            Self::Chisel => rivals::start_chisel(&yard),
            Self::SshR => rivals::start_ssh(&yard),
            Self::Bore => rivals::start_bore(&yard),
        }
        .context(|| format!("{} (logs in {})", self.name(), yard.dir.display()))?;
        peer.wait_until_ready()
            .context(|| format!("{} (logs in {})", self.name(), yard.dir.display()))?;
        Ok(peer)
    }
}

/// Where programs are found: the folder of this product's binaries, the rivals' folder,
/// then `PATH`.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) folders: Vec<PathBuf>,
}

impl Tools {
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = self.folders.clone();
        folders.extend(std::env::split_paths(&path));
        folders.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        folders
            .iter()
            .map(|folder| folder.join(program))
            .find(|file| file.is_file())
    }
}

/// What is common to all peers of a run.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Folder for configurations, keys and logs.
    pub(crate) dir: PathBuf,
    /// The product's sources, for shipped policies and plugins.
    pub(crate) root: PathBuf,
    pub(crate) backend: SocketAddr,
    pub(crate) tools: Tools,
    /// Round trip between the halves of a peer.
    pub(crate) round_trip: Option<Duration>,
}

/// The place where one peer is put together.
pub(crate) struct Yard<'a> {
    pub(crate) site: &'a Site,
    pub(crate) dir: PathBuf,
}

impl<'a> Yard<'a> {
    pub(crate) fn new(site: &'a Site, name: &str) -> Result<Self, Failure> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = site.dir.join(format!("{number:03}-{name}"));
        fs::create_dir_all(&dir).context(|| format!("create {}", dir.display()))?;
        Ok(Self { site, dir })
    }

    /// Writes a file of the peer and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.dir.join(name);
        fs::write(&path, text).context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    pub(crate) fn program(&self, name: &str) -> Result<PathBuf, Failure> {
        self.site
            .tools
            .find(name)
            .context(|| format!("`{name}` is not installed"))
    }

    pub(crate) fn spawn(
        &self,
        name: &str,
        program: &str,
        args: &[&str],
        env: &[(String, String)],
    ) -> Result<Tied, Failure> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        Tied::start(name, &self.dir, &self.program(program)?, &args, env)
    }

    /// Starts a program that is not looked for.
    fn spawn_file(&self, name: &str, program: &Path, args: &[&str]) -> Result<Tied, Failure> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        Tied::start(name, &self.dir, program, &args, &[])
    }

    /// Leads the link to `port` through a far-away proxy where the site asks for one.
    pub(crate) fn link(&self, port: u16) -> Result<Link, Failure> {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let Some(round_trip) = self.site.round_trip else {
            return Ok(Link { port, _proxy: None });
        };
        let proxy = DelayProxy::start(0, target, DelaySettings::of_kernel(round_trip))?;
        Ok(Link {
            port: proxy.address().port(),
            _proxy: Some(proxy),
        })
    }
}

/// The way from one half of a peer to the other.
#[derive(Debug)]
pub(crate) struct Link {
    /// Where the dialling half connects to on loopback.
    pub(crate) port: u16,
    _proxy: Option<DelayProxy>,
}

/// A peer in place. Dropping it ends its processes.
#[derive(Debug)]
pub(crate) struct RunningPeer {
    /// Its public port.
    pub(crate) listener: SocketAddr,
    pub(crate) meter: Meter,
    processes: Vec<Tied>,
    _link: Option<Link>,
}

impl RunningPeer {
    pub(crate) fn new(port: u16, processes: Vec<Tied>, link: Option<Link>) -> Self {
        Self {
            listener: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            meter: Meter::of(processes.iter().map(Tied::pid).collect()),
            processes,
            _link: link,
        }
    }

    pub(crate) fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let Err(last) = open_once(self.listener) else {
                return Ok(());
            };
            for process in &mut self.processes {
                process.check()?;
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("not ready in time: {last}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A port that nothing listens on, below the ephemeral range so that no outgoing connection
/// of the load takes it meanwhile.
pub(crate) fn free_port() -> Result<u16, Failure> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from(std::process::id() % 8_000).unwrap_or(0);
    for _ in 0..10_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (spread + step) % 12_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Failure::new("no free port between 20000 and 32000"))
}

/// Runs a program to its end and gives what it said.
pub(crate) fn run_tool_output(command: &mut Command) -> Result<String, Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().context(|| format!("start {program}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    Err(Failure::new(format!(
        "{program} failed: {complained} {said}"
    )))
}

/// Runs a helper program to its end.
pub(crate) fn run_tool(program: &Path, args: &[&str]) -> Result<(), Failure> {
    let output = Command::new(program)
        .args(args)
        .output()
        .context(|| format!("start {}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} failed: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}
