//! Forward proxies with a user and a password: tinyproxy for HTTP CONNECT, microsocks for SOCKS5.

use std::path::Path;

use super::{Daemon, free_port, program};

/// The user and the password of both.
pub(crate) const CREDENTIALS: (&str, &str) = ("site", "let-me-out");

/// A forward proxy.
pub(crate) struct ForwardProxy {
    /// Its port.
    pub(crate) port: u16,
    /// The server; public so that a test can look at its log.
    pub(crate) daemon: Daemon,
}

impl ForwardProxy {
    /// An HTTP proxy that allows CONNECT to `hub_port` only.
    pub(crate) fn connect(folder: &Path, hub_port: u16) -> Self {
        let port = free_port();
        let config = folder.join("tinyproxy.conf");
        let (user, password) = CREDENTIALS;
        let text = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 100\nLogLevel Connect\n\
             BasicAuth {user} {password}\nConnectPort {hub_port}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = program("tinyproxy");
        command.arg("-d").arg("-c").arg(&config);
        Self::started("tinyproxy", &mut command, folder, port)
    }

    /// A SOCKS5 proxy.
    pub(crate) fn socks(folder: &Path) -> Self {
        let port = free_port();
        let (user, password) = CREDENTIALS;
        let mut command = program("microsocks");
        command.args([
            "-i",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-u",
            user,
            "-P",
            password,
        ]);
        Self::started("microsocks", &mut command, folder, port)
    }

    fn started(name: &str, command: &mut std::process::Command, folder: &Path, port: u16) -> Self {
        let mut daemon = Daemon::start(name, command, folder);
        daemon.wait_for_port(port);
        Self { port, daemon }
    }
}
