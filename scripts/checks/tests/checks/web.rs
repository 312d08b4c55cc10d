//! Programs of the web at the hub's HTTP port: a browser, a suite of WebSocket cases, a load of
//! HTTP/2. What they meet is built by others, so they find what our own tests share a mistake with.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use nowconnect_tunnel::websocket_config;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, accept_with_config};

use crate::gateway::{PATIENCE, Setup, http};
use crate::parts::{Daemon, eventually, free_port, nginx, program, run_ok, skip_without};

/// How long a suite or a browser may take on a slow machine.
const SUITE_DEADLINE: Duration = Duration::from_secs(300);

/// Cases of frames, pings, reserved bits, opcodes, fragments, UTF-8, closing, and odd sizes.
const CASES: [&str; 8] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];

/// Cases of messages up to 16 MiB, whole and in fragments.
const LARGE: [&str; 2] = ["9.1.*", "9.2.*"];

/// Fewer than the suite has of these, so that one that runs none cannot pass.
const CASES_MIN: usize = 230;

#[test]
#[ignore = "slow: some hundred WebSocket cases"]
fn websockets_through_the_hub_conform() {
    if skip_without(&["kosoku"]) {
        return;
    }
    let origin = echo_server(WebSocketConfig::default());
    let web = WebHub::start(origin);
    web.wait_for_origin();
    let cases: Vec<&str> = CASES.iter().chain(&LARGE).copied().collect();
    conforms(web.setup.folder(), web.plain, &cases);
}

#[test]
#[ignore = "slow: some hundred WebSocket cases"]
fn the_settings_of_tunnels_conform() {
    if skip_without(&["kosoku"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Large messages are beyond their limit, which is what the limit is for.
    conforms(folder.path(), echo_server(websocket_config()), &CASES);
}

/// Runs the cases against a server and reads the report; the suite's own exit code says nothing.
fn conforms(folder: &Path, port: u16, cases: &[&str]) {
    let reports = folder.join("reports");
    let mut command = program("kosoku");
    for case in cases {
        command.arg("-i").arg(case);
    }
    command
        .args(["-m", "fuzzingclient", "-p", "4", "-o"])
        .arg(&reports)
        .arg(format!("127.0.0.1:{port}"));
    let mut suite = Daemon::start("suite", &mut command, folder);
    suite.wait_until_ended(SUITE_DEADLINE);
    let index = std::fs::read(reports.join("index.json")).unwrap();
    let index: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_slice(&index).unwrap();
    let results: Vec<_> = index.values().flatten().collect();
    assert!(results.len() >= CASES_MIN, "{} cases ran", results.len());
    // Neither says that something is wrong: the first is stricter than the standard asks for, the
    // second is about choices that it leaves open.
    let good = ["OK", "NON-STRICT", "INFORMATIONAL"];
    let failed: Vec<_> = results
        .iter()
        .filter(|(_, result)| {
            let of = |key: &str| result[key].as_str().unwrap_or_default();
            !good.contains(&of("behavior")) || !good.contains(&of("behaviorClose"))
        })
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
#[ignore = "slow: needs a browser"]
fn a_browser_meets_nothing_odd() {
    if skip_without(&["chromium"]) {
        return;
    }
    let (sender, reports) = channel();
    let origin = page_server(sender);
    let web = WebHub::start(origin);
    web.wait_for_origin();
    let profile = web.setup.folder().join("profile");
    let mut command = program("chromium");
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args(["--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync"])
        // The test's own authority is in no store.
        .arg("--ignore-certificate-errors")
        .arg("--host-resolver-rules=MAP shop.example.com 127.0.0.1")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("https://shop.example.com:{}/", web.tls));
    let _browser = Daemon::start("browser", &mut command, web.setup.folder());
    let report = reports
        .recv_timeout(SUITE_DEADLINE)
        .expect("the page should have told what it saw");
    let report: Value = serde_json::from_str(&report).expect(&report);
    assert_eq!(
        report,
        json!({
            "text": "some text",
            "protocol": "h2",
            "uploaded": "1048576",
            "events": "0,1,2",
            "echo": "hello",
        })
    );
}

#[test]
#[ignore = "slow: needs a load generator"]
fn a_load_of_http2_meets_no_error() {
    if skip_without(&["h2load", "nginx"]) {
        return;
    }
    let origin = free_port();
    let web = WebHub::start(origin);
    let _nginx = nginx(web.setup.folder(), origin);
    web.wait_for_origin();
    for (connections, streams) in [(1, 1), (16, 32), (64, 4)] {
        let said = run_ok(
            program("h2load")
                .args(["-n", "4000", "-t", "1"])
                .args(["-c", &connections.to_string(), "-m", &streams.to_string()])
                .arg(format!("--connect-to=127.0.0.1:{}", web.tls))
                .arg(format!("https://shop.example.com:{}/", web.tls)),
        );
        let all =
            "4000 total, 4000 started, 4000 done, 4000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(said.contains(all), "{connections} × {streams}: {said}");
    }
}

/// A hub with an HTTP port in clear and one with TLS, and an agent before an origin.
struct WebHub {
    plain: u16,
    tls: u16,
    _hub: Daemon,
    _agent: Daemon,
    /// Last, for it has the folder of the others' logs.
    setup: Setup,
}

impl WebHub {
    fn start(origin: u16) -> Self {
        let mut setup = Setup::new();
        let (plain, tls) = (free_port(), free_port());
        let certificate = setup.authority.issue("web", &["shop.example.com"]);
        std::fs::write(setup.folder().join("policies/web.cedar"), WEB_POLICY).unwrap();
        setup.config["ingress"] = json!({
            "listeners": [
                {"name": "web", "bind": format!("127.0.0.1:{plain}")},
                {"name": "web-tls", "bind": format!("127.0.0.1:{tls}"),
                 "tls": {"cert_file": certificate.cert_file, "key_file": certificate.key_file}},
            ],
            "routes": [{"name": "shop", "host": "*", "connector": "shop", "public": true}],
        });
        let hub = setup.hub();
        let agent = setup.agent(&setup.agent_config(&[("shop", origin)]));
        Self {
            setup,
            plain,
            tls,
            _hub: hub,
            _agent: agent,
        }
    }

    /// Waits until the origin answers at the hub's port, whatever it says.
    fn wait_for_origin(&self) {
        eventually("an answer of the origin", PATIENCE, || {
            let answer = http(self.plain, "/")?;
            let head = answer.to_ascii_lowercase();
            (!head.contains("x-nowconnect-error")).then_some(())
        });
    }
}

const WEB_POLICY: &str = r#"
@id("any-http")
permit (principal is NowConnect::Viewer, action == NowConnect::Action::"http-request", resource);
@id("any-upstream")
permit (principal is NowConnect::Node, action == NowConnect::Action::"upstream-open", resource);
"#;

/// Sends messages back; it lives until the test's process ends.
fn echo_server(config: WebSocketConfig) -> u16 {
    serve(move |mut stream| {
        if is_upgrade(&stream) {
            echo(stream, config);
        } else {
            // A connection that ends early is the asker's to explain.
            let _ = nothing_here(&mut stream);
        }
    })
}

/// Whether the request that comes asks for a WebSocket; it is not read.
fn is_upgrade(stream: &TcpStream) -> bool {
    let mut head = [0; 4096];
    let seen = stream.peek(&mut head).unwrap_or(0);
    let head = String::from_utf8_lossy(&head[..seen]).to_ascii_lowercase();
    head.contains("\r\nupgrade: websocket\r\n")
}

fn nothing_here(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line != "\r\n" {
        line.clear();
    }
    write!(
        stream,
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

fn serve(answer: impl Fn(TcpStream) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

fn echo(stream: TcpStream, config: WebSocketConfig) {
    // A handshake that is wrong gets its answer by the library.
    let Ok(mut socket) = accept_with_config(stream, Some(config)) else {
        return;
    };
    loop {
        match socket.read() {
            Ok(message) if message.is_text() || message.is_binary() => {
                if socket.send(message).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(tungstenite::Error::ConnectionClosed) => return,
            Err(_) => {
                // What it owes the other side is still to be sent.
                let _ = socket.flush();
                return;
            }
        }
    }
}

/// A page that tries what pages do and reports what it saw.
const PAGE: &str = r#"<!doctype html><title>shop</title><script>
const report = {};
async function look() {
    report.text = await (await fetch('/text')).text();
    report.protocol = performance.getEntriesByName(location.origin + '/text')[0].nextHopProtocol;
    const megabyte = new Blob([new Uint8Array(1 << 20)]);
    report.uploaded = await (await fetch('/upload', { method: 'POST', body: megabyte })).text();
    report.events = await new Promise((done, failed) => {
        const source = new EventSource('/events'), seen = [];
        source.onmessage = ({ data }) => {
            if (seen.push(data) === 3) { source.close(); done(seen.join(',')); }
        };
        source.onerror = () => failed('the event stream broke');
    });
    report.echo = await new Promise((done, failed) => {
        const socket = new WebSocket(`wss://${location.host}/echo`);
        socket.onopen = () => socket.send('hello');
        socket.onmessage = ({ data }) => { socket.close(); done(data); };
        socket.onerror = () => failed('the WebSocket broke');
    });
}
look().catch((error) => { report.error = String(error); })
    .finally(() => fetch('/report', { method: 'POST', body: JSON.stringify(report) }));
</script>"#;

/// Serves [`PAGE`] and what it asks for; reports go to `reports`.
fn page_server(reports: Sender<String>) -> u16 {
    serve(move |stream| {
        // A connection that ends early is the browser's to explain.
        let _ = answer(stream, &reports);
    })
}

fn answer(mut stream: TcpStream, reports: &Sender<String>) -> std::io::Result<()> {
    if is_upgrade(&stream) {
        echo(stream, WebSocketConfig::default());
        return Ok(());
    }
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = first.split(' ').nth(1).unwrap_or_default();
    let (kind, text) = match path {
        "/" => ("text/html", PAGE.to_owned()),
        "/text" => ("text/plain", "some text".to_owned()),
        "/upload" => ("text/plain", body.len().to_string()),
        "/report" => {
            // The test may have what it wants already.
            let _ = reports.send(String::from_utf8_lossy(&body).into_owned());
            ("text/plain", String::new())
        }
        "/events" => return events(&mut stream),
        _ => ("text/plain", String::new()),
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    )
}

/// Three events, and a connection that stays open after them.
fn events(stream: &mut TcpStream) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    )?;
    for number in 0..3 {
        write!(stream, "data: {number}\n\n")?;
    }
    // Until whoever listens goes.
    stream.read(&mut [0]).map(drop)
}

fn nginx(folder: &Path, port: u16) -> Daemon {
    let server = format!("listen 127.0.0.1:{port};\nreturn 200 \"shop\";");
    nginx::start(folder, port, &server)
}
