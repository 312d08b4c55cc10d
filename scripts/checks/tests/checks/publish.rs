//! From nothing to an address that works, as a new user does it: a hub of `nowconnect dev`, a
//! service, `nowconnect-agent http PORT`. No network and no configuration.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use tokio_tungstenite::tungstenite::{Message, accept, client};

use crate::gateway::{PATIENCE, binary, clean};
use crate::parts::{Daemon, eventually, free_port};

#[test]
fn an_address_works_streams_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let ports = Ports {
        web: free_port(),
        control: free_port(),
        tunnel: free_port(),
    };
    let (go_on, waits) = channel();
    let service = service(waits);
    let hub = ports.hub(folder.path());
    let mut agent = ports.agent(folder.path(), service);
    let address = address(&mut agent);
    let host = address.strip_prefix("http://").unwrap();
    assert!(
        host.starts_with("t-") && host.ends_with(&format!(".localhost:{}", ports.web)),
        "{address}"
    );

    // A page, an event stream whose first event comes before the second is there, a WebSocket.
    assert_eq!(get(host, "/"), Some("hello".to_owned()));
    let mut events = ask(host, "/events").unwrap();
    read_until(&mut events, "data: one\n\n");
    go_on.send(()).unwrap();
    read_until(&mut events, "data: two\n\n");
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, ports.web)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut socket, _) = client(format!("ws://{host}/echo"), stream).unwrap();
    socket.send(Message::text("there and back")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("there and back"));
    drop(socket);
    for line in ["GET / 200 ", "GET /events 200 ", "GET /echo 101 "] {
        agent.wait_for(line, |agent| agent.log().contains(line).then_some(()));
    }

    // Killed and started again: the agent first, then the hub.
    drop(agent);
    let offline = || get(host, "/").is_none().then_some(());
    eventually("the name without its agent", PATIENCE, offline);
    let mut agent = ports.agent(folder.path(), service);
    assert_eq!(self::address(&mut agent), address);
    serves(host);
    drop(hub);
    let _hub = ports.hub(folder.path());
    serves(host);
    assert!(!agent.log().contains("forgotten"), "{}", agent.log());
}

struct Ports {
    web: u16,
    control: u16,
    tunnel: u16,
}

impl Ports {
    fn hub(&self, folder: &Path) -> Daemon {
        let local = |port: u16| format!("127.0.0.1:{port}");
        let mut command = clean(&binary("nowconnect"));
        command
            .args(["dev", "--http", &local(self.web)])
            .args(["--control", &local(self.control)])
            .args(["--tunnel", &local(self.tunnel)])
            .env("XDG_STATE_HOME", folder);
        let mut hub = Daemon::start("hub", &mut command, folder);
        hub.wait_for("the hub's greeting", |hub| {
            hub.log()
                .contains(&format!("http://NAME.localhost:{}", self.web))
                .then_some(())
        });
        hub
    }

    fn agent(&self, folder: &Path, service: u16) -> Daemon {
        let mut command = clean(&binary("nowconnect-agent"));
        command
            .args(["http", &service.to_string()])
            .arg("--control")
            .arg(format!("http://127.0.0.1:{}", self.control))
            .env("XDG_STATE_HOME", folder);
        Daemon::start("agent", &mut command, folder)
    }
}

/// What the agent prints once the address works.
fn address(agent: &mut Daemon) -> String {
    agent.wait_for("an address", |agent| {
        let log = agent.log();
        let line = log.lines().find(|line| line.starts_with("http://"))?;
        let (address, _) = line.split_once(" -> ")?;
        Some(address.to_owned())
    })
}

fn serves(host: &str) {
    eventually("an answer of the service", PATIENCE, || {
        get(host, "/").filter(|body| body == "hello")
    });
}

/// Sends a request to `name.localhost:port`, all of which are this machine.
fn ask(host: &str, path: &str) -> Option<TcpStream> {
    let port: u16 = host.rsplit(':').next()?.parse().ok()?;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    Some(stream)
}

/// The body of a 200.
fn get(host: &str, path: &str) -> Option<String> {
    let mut answer = String::new();
    ask(host, path)?.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200 ").then(|| body.to_owned())
}

fn read_until(stream: &mut TcpStream, wanted: &str) {
    let mut read = String::new();
    let mut byte = [0];
    while !read.contains(wanted) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "it ended: {read}");
        read.push(char::from(byte[0]));
    }
}

/// A service with a page, an event stream that waits for a word between its two events, and a
/// WebSocket that echoes.
fn service(waits: Receiver<()>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let waits = Arc::new(Mutex::new(waits));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let waits = Arc::clone(&waits);
            // A viewer that leaves ends no more than its own connection.
            std::thread::spawn(move || answer(stream, &waits));
        }
    });
    port
}

fn answer(mut stream: TcpStream, waits: &Mutex<Receiver<()>>) -> std::io::Result<()> {
    let mut seen = [0; 4096];
    let length = stream.peek(&mut seen)?;
    if String::from_utf8_lossy(&seen[..length]).starts_with("GET /echo ") {
        let Ok(mut socket) = accept(stream) else {
            return Ok(());
        };
        while let Ok(message) = socket.read() {
            if message.is_text() && socket.send(message).is_err() {
                break;
            }
        }
        return Ok(());
    }
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    if !first.starts_with("GET /events ") {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
        return write!(stream, "{head}hello");
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    write!(stream, "{head}data: one\n\n")?;
    let waited = waits.lock().map(|waits| waits.recv_timeout(PATIENCE));
    if let Ok(Ok(())) = waited {
        write!(stream, "data: two\n\n")?;
    }
    Ok(())
}
