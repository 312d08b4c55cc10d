//! nginx as the service behind HTTP by host name, over HTTP/1.1 and, where TLS to it agrees on
//! that, HTTP/2; curl as the viewer, in both.

use std::path::Path;

use serde_json::{Value, json};

use crate::gateway::{PATIENCE, Setup};
use crate::parts::certificates::Certificate;
use crate::parts::{Daemon, eventually, free_port, nginx, program, run_ok, skip_without};

/// What lets requests through, beside what lets agents in.
pub(crate) const HTTP_POLICY: &str = r#"
@id("any-request")
permit (principal is NowConnect::Viewer, action == NowConnect::Action::"http-request", resource);
@id("any-upstream")
permit (principal is NowConnect::Node, action == NowConnect::Action::"upstream-open", resource);
"#;

/// The service's page: larger than any buffer on its way.
const PAGE_BYTES: usize = 24 << 20;

#[test]
fn nginx_behind_a_route_is_as_without_one() {
    if skip_without(&["nginx", "curl"]) {
        return;
    }
    let mut setup = Setup::new();
    let folder = setup.folder().to_owned();
    let certificate = setup.authority.issue("origin", &["origin.test"]);
    let (plain, tls) = (free_port(), free_port());
    let _nginx = origin(&folder, &certificate, (plain, tls));
    let port = free_port();
    std::fs::write(folder.join("policies/http.cedar"), HTTP_POLICY).unwrap();
    setup.config["ingress"] = json!({
        "listeners": [{"name": "web", "bind": format!("127.0.0.1:{port}"),
                       "tls": {"cert_file": setup.certificate.cert_file, "key_file": setup.certificate.key_file}}],
        "routes": [
            route("plain", "localhost"),
            {"name": "tls", "host": "127.0.0.1", "connector": "tls", "host_header": "origin.test",
             "rewrite_location": true},
        ],
    });
    setup.config["connectors"] = json!({
        "tls": {"health_check": {"interval_ms": 200, "http": {"path": "/up", "status": [204]}}},
    });
    let _hub = setup.hub();
    let mut config = setup.agent_config(&[("plain", plain), ("tls", tls)]);
    config["targets"]["tls"]["tls"] = json!({
        "ca_bundle": setup.authority.bundle(), "server_name": "origin.test", "alpn": ["h2", "http/1.1"],
    });
    let _agent = setup.agent(&config);

    let page = std::fs::read(folder.join("site/page.bin")).unwrap();
    for (host, spoken) in [("localhost", "HTTP/1.1"), ("127.0.0.1", "HTTP/2.0")] {
        for version in ["--http1.1", "--http2"] {
            let viewer = Viewer {
                folder: &folder,
                ca: setup.authority.bundle().display().to_string(),
                base: format!("https://{host}:{port}"),
                version,
            };
            viewer.sees_what_is_there(spoken, &page);
        }
    }
    eventually("the target is looked at", PATIENCE, || {
        let up = "nowconnect_health_checks_total{connector=\"tls\",result=\"up\"}";
        setup.metrics().contains(up).then_some(())
    });
    let metrics = setup.metrics();
    assert!(!metrics.contains("nowconnect_targets_down{connector=\"tls\"} 1"));
}

/// curl, over one version of HTTP.
struct Viewer<'a> {
    folder: &'a Path,
    ca: String,
    base: String,
    version: &'static str,
}

impl Viewer<'_> {
    fn sees_what_is_there(&self, spoken: &str, page: &[u8]) {
        let told = self.ask(&["/who"]);
        assert_eq!(told, format!("GET {spoken} 127.0.0.1"), "{}", self.base);

        let whole = self.folder.join("whole");
        self.ask(&["/page.bin", "-o", &whole.display().to_string()]);
        assert!(std::fs::read(&whole).unwrap() == page, "{}", self.base);

        let part = self.folder.join("part");
        let status = self.ask(&[
            "/page.bin",
            "-r",
            "1000000-1999999",
            "-w",
            "%{http_code}",
            "-o",
            &part.display().to_string(),
        ]);
        assert_eq!(status, "206");
        assert!(std::fs::read(&part).unwrap() == page[1_000_000..2_000_000]);

        let head = self.ask(&["/page.bin", "-I", "-w", "%header{content-length}"]);
        assert!(head.ends_with(&PAGE_BYTES.to_string()), "{head}");

        let put = self.folder.join("site/page.bin").display().to_string();
        let expect = "Expect: 100-continue";
        let status = self.ask(&[
            "/put/up.bin",
            "-T",
            &put,
            "-H",
            expect,
            "-w",
            "%{http_code}",
        ]);
        assert!(status == "201" || status == "204", "{status}");
        assert!(std::fs::read(self.folder.join("site/put/up.bin")).unwrap() == page);

        let missing = self.ask(&["/missing", "-o", "/dev/null", "-w", "%{http_code}"]);
        assert_eq!(missing, "404");
        if spoken == "HTTP/2.0" {
            // The service names itself, and its viewers know it by another name.
            let moved = self.ask(&["/moved", "-o", "/dev/null", "-w", "%header{location}"]);
            assert_eq!(moved, format!("{}/who", self.base));
        }
    }

    /// Asks for the first of these with the rest as options; what curl prints.
    fn ask(&self, what: &[&str]) -> String {
        let mut curl = program("curl");
        curl.args(["-sS", "--noproxy", "*", "--max-time", "60", self.version]);
        curl.args(["--cacert", &self.ca]);
        curl.arg(format!("{}{}", self.base, what[0]));
        run_ok(curl.args(&what[1..]))
    }
}

fn route(name: &str, host: &str) -> Value {
    json!({"name": name, "host": host, "connector": name})
}

fn origin(folder: &Path, certificate: &Certificate, (plain, tls): (u16, u16)) -> Daemon {
    let site = folder.join("site");
    std::fs::create_dir_all(site.join("put")).unwrap();
    let page: Vec<u8> = (0..PAGE_BYTES).map(|at| (at % 251) as u8).collect();
    std::fs::write(site.join("page.bin"), page).unwrap();
    let server = format!(
        "listen 127.0.0.1:{plain};\nlisten 127.0.0.1:{tls} ssl http2;\n\
         ssl_certificate {certificate};\nssl_certificate_key {key};\n\
         root {site};\nclient_max_body_size 64m;\n\
         location = /who {{ return 200 \"$request_method $server_protocol $http_x_forwarded_for\"; }}\n\
         location = /up {{ return 204; }}\n\
         location = /moved {{ return 302 http://$host/who; }}\n\
         location /put/ {{ dav_methods PUT; }}",
        certificate = certificate.cert_file.display(),
        key = certificate.key_file.display(),
        site = site.display(),
    );
    nginx::start(folder, plain, &server)
}
