//! Certificates that a real authority issues to a hub, and a real client looks at.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::gateway::{PATIENCE, Setup, binary, clean};
use crate::parts::pebble::{PROGRAMS, Pebble, shown, shown_next};
use crate::parts::{Daemon, eventually, free_port, program, run, run_ok, skip_without};

/// A hub with a plain and a TLS port, and an authority that looks at them.
struct Issuing {
    pebble: Pebble,
    roots: PathBuf,
    tls_port: u16,
    /// The last to go: what runs writes to its folder.
    setup: Setup,
}

impl Issuing {
    /// The hub publishes these hosts; `acme` has more of its settings, `authority` of the
    /// authority's.
    fn new(hosts: &[&str], acme: &Value, authority: &Value) -> Self {
        let mut setup = Setup::new();
        let (plain, tls_port) = (free_port(), free_port());
        let pebble = Pebble::start(
            setup.folder(),
            &setup.authority,
            (plain, tls_port),
            authority,
        );
        let mut settings = json!({
            "directory_url": pebble.directory(),
            "terms_of_service_agreed": true,
            "state_file": setup.folder().join("state/certificates.redb"),
            "contact": ["mailto:ops@example.com"],
            "ca_file": setup.authority.bundle(),
        });
        for (key, value) in acme.as_object().unwrap() {
            settings[key] = value.clone();
        }
        let routes: Vec<Value> = hosts
            .iter()
            .map(|host| {
                let name = host.replace('*', "any");
                json!({"name": name, "host": host, "connector": "shop"})
            })
            .collect();
        setup.config["ingress"] = json!({
            "listeners": [
                {"name": "web", "bind": format!("127.0.0.1:{plain}")},
                {"name": "web-tls", "bind": format!("127.0.0.1:{tls_port}"), "tls": {}},
            ],
            "routes": routes,
            "acme": settings,
        });
        let roots = pebble.roots();
        Self {
            pebble,
            roots,
            tls_port,
            setup,
        }
    }

    fn hub(&self) -> Daemon {
        self.setup.hub()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = clean(&binary("nowconnect"));
        command.arg("certificates").args(arguments);
        command
            .arg("--socket")
            .arg(self.setup.folder().join("admin.sock"));
        command
    }

    /// What `nowconnect certificates list` says of a name.
    fn status(&self, name: &str) -> Value {
        let page = run_ok(&mut self.command(&["list", "--json"]));
        let page: Value = serde_json::from_str(&page).unwrap();
        let all = page["certificates"].as_array().unwrap();
        let found = all.iter().find(|one| one["names"][0] == name);
        found.cloned().unwrap_or(Value::Null)
    }

    /// Waits until the last order of a name has failed with this code.
    fn fails(&self, name: &str, code: &str) -> Value {
        eventually(&format!("{name}: {code}"), PATIENCE, || {
            let status = self.status(name);
            (status["last_error"]["code"] == code).then_some(status)
        })
    }

    /// Whether a handshake for this name ends with the alert that says there is no such name.
    fn refuses(&self, name: &str) -> bool {
        let mut ask = program("openssl");
        ask.args(["s_client", "-connect"])
            .arg(format!("127.0.0.1:{}", self.tls_port))
            .args(["-servername", name]);
        let seen = run(&mut ask);
        let told = String::from_utf8_lossy(&seen.stderr).into_owned();
        !seen.status.success() && told.contains("unrecognized name")
    }
}

#[test]
fn certificates_are_issued_over_either_challenge_kept_and_renewed() {
    if skip_without(&PROGRAMS) {
        return;
    }
    for challenge in ["tls_alpn_01", "http_01"] {
        let issuing = Issuing::new(
            &["shop.test"],
            &json!({"challenges": [challenge]}),
            &json!({}),
        );
        let hub = issuing.hub();
        let port = issuing.tls_port;
        let first = shown_next(port, "shop.test", &issuing.roots, None);
        // A client that trusts the authority's root gets as far as the route, whose agent is away.
        let mut ask = program("curl");
        ask.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(["--resolve", &format!("shop.test:{port}:127.0.0.1")])
            .arg("--cacert")
            .arg(&issuing.roots)
            .arg(format!("https://shop.test:{port}/"));
        assert_eq!(run_ok(&mut ask), "503", "{challenge}");
        assert_eq!(issuing.pebble.orders(), 1, "{challenge}");
        let log = hub.log();
        assert!(log.contains("certificate_issued"), "{challenge}");
        assert!(log.contains("a certificate authority looked at a name"));
        let metrics = issuing.setup.metrics();
        for line in [
            "nowconnect_certificate_orders_total{result=\"issued\"} 1",
            "nowconnect_http_certificates_missing 0",
            "nowconnect_http_certificate_not_after_seconds{name=\"shop.test\",source=\"acme\"}",
        ] {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
        let state = issuing.setup.folder().join("state/certificates.redb");
        let mode =
            |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o600);
        assert_eq!(mode(state.parent().unwrap()), 0o700);

        drop(hub);
        let _hub = issuing.hub();
        let again = shown_next(port, "shop.test", &issuing.roots, None);
        assert_eq!(again, first, "{challenge}: what was issued is kept");
        assert_eq!(issuing.pebble.orders(), 1, "{challenge}: nothing was asked");

        run_ok(&mut issuing.command(&["renew", "shop.test"]));
        shown_next(port, "shop.test", &issuing.roots, Some(&first));
        let unknown = run(&mut issuing.command(&["renew", "other.test"]));
        assert!(!unknown.status.success());
        assert_eq!(issuing.pebble.orders(), 2, "{challenge}");
    }
}

#[test]
fn a_certificate_is_renewed_before_it_ends() {
    if skip_without(&PROGRAMS) {
        return;
    }
    // A third of it is left when it is renewed.
    let short = json!({"certificateValidityPeriod": 30});
    let issuing = Issuing::new(&["shop.test"], &json!({}), &short);
    let hub = issuing.hub();
    let first = shown_next(issuing.tls_port, "shop.test", &issuing.roots, None);
    shown_next(issuing.tls_port, "shop.test", &issuing.roots, Some(&first));
    assert!(hub.log().contains("certificate_renewed"));
}

#[test]
fn what_an_authority_refuses_is_told_and_tried_later_and_unknown_names_ask_for_nothing() {
    if skip_without(&PROGRAMS) {
        return;
    }
    let issuing = Issuing::new(
        &["away.test", "blocked.test", "private", "*.wild.test"],
        &json!({}),
        &json!({"domainBlocklist": ["blocked.test"]}),
    );
    issuing.pebble.lead_away("away.test", "127.0.0.2");
    let hub = issuing.hub();
    let away = issuing.fails("away.test", "acme_validation_failed");
    let blocked = issuing.fails("blocked.test", "acme_refused");
    for status in [&away, &blocked] {
        assert_eq!(status["failures"], 1, "{status}");
        assert_eq!(status["under_way"], false, "{status}");
        assert!(status["not_after"].is_null(), "{status}");
    }
    let message = away["last_error"]["message"].as_str().unwrap();
    assert!(message.contains("127.0.0.2"), "{message}");
    assert!(hub.log().contains("certificate_failed"));
    let orders = issuing.pebble.orders();
    for name in ["away.test", "unknown.test", "a.wild.test", "private"] {
        assert!(issuing.refuses(name), "{name}");
    }
    assert_eq!(
        issuing.pebble.orders(),
        orders,
        "a handshake asks for nothing"
    );
    assert!(issuing.status("unknown.test").is_null());
    let metrics = issuing.setup.metrics();
    let counted = "nowconnect_certificate_orders_total{result=\"acme_validation_failed\"} 1";
    assert!(metrics.contains(counted), "{metrics}");

    // Put right, it need not wait for its next try.
    issuing.pebble.lead_back("away.test");
    run_ok(&mut issuing.command(&["renew", "away.test"]));
    shown_next(issuing.tls_port, "away.test", &issuing.roots, None);
    assert!(issuing.status("away.test")["last_error"].is_null());
    assert!(shown(issuing.tls_port, "blocked.test", &issuing.roots).is_none());
}

#[test]
fn an_account_is_bound_to_one_that_the_authority_knows() {
    if skip_without(&PROGRAMS) {
        return;
    }
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let required = json!({
        "externalAccountBindingRequired": true,
        "externalAccountMACKeys": {"kid-1": key},
    });
    let mut issuing = Issuing::new(&["shop.test"], &json!({}), &required);
    let hub = issuing.hub();
    issuing.fails("shop.test", "acme_account_refused");
    drop(hub);
    let file = issuing.setup.folder().join("external.key");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    issuing.setup.config["ingress"]["acme"]["external_account"] =
        json!({"key_id": "kid-1", "hmac_key_file": file});
    let hub = issuing.hub();
    shown_next(issuing.tls_port, "shop.test", &issuing.roots, None);
    assert!(!hub.log().contains(key), "a key is in the log");
}
