//! Proxies that end TLS in front of a hub: nginx and HAProxy, with the configuration that
//! `examples/` ships.

use std::path::{Path, PathBuf};

use super::certificates::Certificate;
use super::{Daemon, free_port, program, run_ok};
use crate::repository::root;

/// A proxy that takes TLS on a port of its own and speaks plainly to the hub.
pub(crate) struct Ingress {
    /// Where it takes TLS.
    pub(crate) port: u16,
    daemon: Daemon,
}

impl Ingress {
    /// nginx with `examples/ingress-nginx/nginx.conf`.
    pub(crate) fn nginx(folder: &Path, certificate: &Certificate, hub_port: u16) -> Self {
        let own = folder.join("nginx");
        for name in ["logs", "body", "proxy"] {
            std::fs::create_dir_all(own.join(name)).unwrap();
        }
        let port = free_port();
        let config = adapted(
            "examples/ingress-nginx/nginx.conf",
            &own,
            certificate,
            port,
            hub_port,
        );
        let arguments = |command: &mut std::process::Command| {
            command
                .arg("-p")
                .arg(&own)
                .arg("-c")
                .arg(&config)
                .args(["-e", "error.log"]);
        };
        let mut check = program("nginx");
        arguments(&mut check);
        run_ok(check.arg("-t"));
        let mut command = program("nginx");
        arguments(&mut command);
        // One process in the foreground, so that ending it ends everything.
        command.args(["-g", "daemon off; master_process off;"]);
        let mut daemon = Daemon::start("nginx", &mut command, folder);
        daemon.wait_for_port(port);
        Self { port, daemon }
    }

    /// HAProxy with `examples/ingress-haproxy/haproxy.cfg`.
    pub(crate) fn haproxy(folder: &Path, certificate: &Certificate, hub_port: u16) -> Self {
        let own = folder.join("haproxy");
        std::fs::create_dir_all(&own).unwrap();
        let port = free_port();
        // HAProxy wants certificate and key in one file.
        let both = own.join("both.pem");
        let pem = [&certificate.cert_file, &certificate.key_file]
            .map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::write(&both, pem.concat()).unwrap();
        let joined = Certificate {
            cert_file: both.clone(),
            key_file: both,
        };
        let config = adapted(
            "examples/ingress-haproxy/haproxy.cfg",
            &own,
            &joined,
            port,
            hub_port,
        );
        run_ok(program("haproxy").arg("-c").arg("-f").arg(&config));
        let mut command = program("haproxy");
        command.arg("-db").arg("-f").arg(&config);
        let mut daemon = Daemon::start("haproxy", &mut command, folder);
        daemon.wait_for_port(port);
        Self { port, daemon }
    }

    /// What the proxy has printed.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }
}

/// A shipped configuration with its files and ports replaced by this test's.
fn adapted(
    shipped: &str,
    own: &Path,
    certificate: &Certificate,
    port: u16,
    hub_port: u16,
) -> PathBuf {
    let mut text = std::fs::read_to_string(root().join(shipped)).unwrap();
    for (from, to) in [
        (
            "/etc/nowconnect/tls/both.pem",
            certificate.cert_file.display().to_string(),
        ),
        (
            "/etc/nowconnect/tls/cert.pem",
            certificate.cert_file.display().to_string(),
        ),
        (
            "/etc/nowconnect/tls/key.pem",
            certificate.key_file.display().to_string(),
        ),
        ("127.0.0.1:8765", format!("127.0.0.1:{hub_port}")),
        ("bind :443", format!("bind 127.0.0.1:{port}")),
        ("listen 443", format!("listen 127.0.0.1:{port}")),
    ] {
        text = text.replace(from, &to);
    }
    let name = Path::new(shipped).file_name().unwrap();
    let config = own.join(name);
    std::fs::write(&config, text).unwrap();
    config
}
