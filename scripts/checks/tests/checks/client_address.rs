//! Real services behind an agent that are told who the client is, by the PROXY protocol.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use serde_json::json;

use crate::gateway::{PATIENCE, Setup};
use crate::parts::{Daemon, eventually, free_port, nginx, program, run_ok, skip_without};

#[test]
fn nginx_behind_an_agent_sees_the_clients_address() {
    if skip_without(&["nginx"]) {
        return;
    }
    each_version_is_understood(nginx);
}

#[test]
fn haproxy_behind_an_agent_sees_the_clients_address() {
    if skip_without(&["haproxy"]) {
        return;
    }
    each_version_is_understood(haproxy);
}

/// `start` starts a service that takes connections with a header only, and answers HTTP with the
/// client's address and port.
fn each_version_is_understood(start: fn(&Path, u16) -> Daemon) {
    let mut setup = Setup::new();
    let target = free_port();
    let _service = start(setup.folder(), target);
    let ports = ["v1", "v2"].map(|version| {
        setup.config["connectors"][version] = json!({"proxy_protocol_out": version});
        setup.listen(version)
    });
    // The agent's own word wins over the hub's, which has none here.
    let own = setup.listen("own");
    let _hub = setup.hub();
    let mut config = setup.agent_config(&[("v1", target), ("v2", target), ("own", target)]);
    config["targets"]["own"]["proxy_protocol"] = json!("v2");
    let _agent = setup.agent(&config);
    for port in ports.into_iter().chain([own]) {
        let (client, told) = eventually("an answer", PATIENCE, || asked_who(port));
        assert!(told.ends_with(&client), "{client}: {told}");
    }
}

/// The client's own address, and what the service behind the listener says it is.
fn asked_who(port: u16) -> Option<(String, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let client = stream.local_addr().ok()?.to_string();
    answer
        .starts_with("HTTP/1.1 200")
        .then(|| (client, answer.trim_end().to_owned()))
}

fn nginx(folder: &Path, port: u16) -> Daemon {
    let server = format!(
        "listen 127.0.0.1:{port} proxy_protocol;\n\
         return 200 \"$proxy_protocol_addr:$proxy_protocol_port\";"
    );
    nginx::start(folder, port, &server)
}

fn haproxy(folder: &Path, port: u16) -> Daemon {
    let config = folder.join("haproxy.cfg");
    let text = format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         frontend who\n  bind 127.0.0.1:{port} accept-proxy\n  \
         http-request return status 200 content-type text/plain lf-string \"%ci:%cp\"\n"
    );
    std::fs::write(&config, text).unwrap();
    run_ok(program("haproxy").arg("-c").arg("-f").arg(&config));
    let mut command = program("haproxy");
    command.arg("-db").arg("-f").arg(&config);
    let mut daemon = Daemon::start("haproxy", &mut command, folder);
    daemon.wait_for_port(port);
    daemon
}
