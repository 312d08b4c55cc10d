//! Pebble, the certificate authority that the makers of Let's Encrypt test with, and its DNS.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::certificates::Authority;
use super::{Daemon, eventually, free_port, program, run, run_ok};
use crate::gateway::PATIENCE;

/// Its programs and those that ask it.
pub(crate) const PROGRAMS: [&str; 4] = ["pebble", "pebble-challtestsrv", "curl", "openssl"];

/// A running authority. Every name leads to 127.0.0.1 unless the test says otherwise.
pub(crate) struct Pebble {
    pebble: Daemon,
    _dns: Daemon,
    port: u16,
    management: u16,
    dns_management: u16,
    folder: PathBuf,
    ca: PathBuf,
}

impl Pebble {
    /// Starts one that looks at names at these ports, with more of its settings. Its own server
    /// has a certificate of `authority`.
    pub(crate) fn start(
        folder: &Path,
        authority: &Authority,
        (http, tls): (u16, u16),
        more: &Value,
    ) -> Self {
        let [port, management, dns, dns_management] = [(); 4].map(|()| free_port());
        let own = authority.issue("pebble", &["localhost", "127.0.0.1"]);
        let mut settings = json!({
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": own.cert_file,
            "privateKey": own.key_file,
            "httpPort": http,
            "tlsPort": tls,
        });
        for (key, value) in more.as_object().unwrap() {
            settings[key] = value.clone();
        }
        let file = folder.join("pebble.json");
        std::fs::write(&file, json!({ "pebble": settings }).to_string()).unwrap();
        let mut names = program("pebble-challtestsrv");
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-dns01", &format!("127.0.0.1:{dns}")]);
        names.args(["-management", &format!("127.0.0.1:{dns_management}")]);
        let mut names = Daemon::start("pebble-dns", &mut names, folder);
        names.wait_for_port(dns_management);
        let mut command = program("pebble");
        command.arg("-config").arg(&file);
        command.args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        // Its pauses and refusals are for clients that it is to try out; ours are tried elsewhere.
        command.env("PEBBLE_VA_NOSLEEP", "1");
        command.env("PEBBLE_WFE_NONCEREJECT", "0");
        let mut pebble = Daemon::start("pebble", &mut command, folder);
        pebble.wait_for_port(management);
        pebble.wait_for_port(port);
        Self {
            pebble,
            _dns: names,
            port,
            management,
            dns_management,
            folder: folder.to_owned(),
            ca: authority.bundle(),
        }
    }

    /// The URL that a client begins with.
    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// Lets a name lead to another address.
    pub(crate) fn lead_away(&self, name: &str, address: &str) {
        self.tell_dns("add-a", &json!({"host": name, "addresses": [address]}));
    }

    /// Lets it lead to 127.0.0.1 again.
    pub(crate) fn lead_back(&self, name: &str) {
        self.tell_dns("clear-a", &json!({"host": name}));
    }

    fn tell_dns(&self, what: &str, record: &Value) {
        let url = format!("http://127.0.0.1:{}/{what}", self.dns_management);
        run_ok(program("curl").args(["-fsS", "-d", &record.to_string(), &url]));
    }

    /// A file with the root of what it issues.
    pub(crate) fn roots(&self) -> PathBuf {
        let file = self.folder.join("pebble-root.pem");
        let url = format!("https://localhost:{}/roots/0", self.management);
        let mut ask = program("curl");
        ask.args(["-fsS", &url, "-o"]).arg(&file);
        run_ok(ask.arg("--cacert").arg(&self.ca));
        file
    }

    /// Orders that clients have made so far.
    pub(crate) fn orders(&self) -> usize {
        let log = self.pebble.log();
        log.matches("POST /order-plz").count()
    }
}

/// The serial number of the certificate that a port shows for a name, if there is one under these
/// roots.
pub(crate) fn shown(port: u16, name: &str, roots: &Path) -> Option<String> {
    let mut ask = program("openssl");
    ask.args(["s_client", "-connect", &format!("127.0.0.1:{port}")]);
    ask.args(["-servername", name, "-verify_hostname", name]);
    ask.args(["-verify_return_error", "-CAfile"]).arg(roots);
    let seen = run(&mut ask);
    let text = String::from_utf8_lossy(&seen.stdout).into_owned();
    if !seen.status.success() || !text.contains("Verify return code: 0 (ok)") {
        return None;
    }
    let begin = text.find("-----BEGIN CERTIFICATE-----")?;
    let file = roots.with_file_name(format!("shown-{name}.pem"));
    std::fs::write(&file, &text[begin..]).unwrap();
    let mut read = program("openssl");
    read.args(["x509", "-noout", "-serial", "-in"]).arg(file);
    Some(run_ok(&mut read).trim().to_owned())
}

/// The same, waiting until there is one that is not `before`.
pub(crate) fn shown_next(port: u16, name: &str, roots: &Path, before: Option<&str>) -> String {
    eventually(&format!("a certificate of {name}"), PATIENCE, || {
        shown(port, name, roots).filter(|serial| Some(serial.as_str()) != before)
    })
}
