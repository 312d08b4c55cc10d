//! The origin and the ways to it: nothing, an HAProxy, an nginx, and the product.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use super::Way;
use crate::failure::{Context, Failure};
use crate::peers::credentials::ServerFiles;
use crate::peers::nowconnect::{HubShape, Plugins, RunningHub, start_shaped};
use crate::peers::{Site, Yard, free_port};
use crate::process::{Meter, Tied};

/// How long a way may take until its ports answer. A hub compiles its plugins first.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The configuration of a proxy.
type WriteConfig = fn(&Front<'_>) -> String;

/// Connections that a proxy keeps to the origin.
const KEPT: u32 = 256;

/// Everything that is measured, running. Dropping it ends it.
pub(super) struct Stage {
    ways: Vec<Way>,
    _processes: Vec<Tied>,
    _hubs: Vec<RunningHub>,
}

impl Stage {
    /// Starts the origin with these files and each way to it; hubs with so many plugins each.
    pub(super) fn start(
        site: &Site,
        files: &[(&str, usize)],
        chains: &[usize],
        notes: &mut BTreeSet<String>,
    ) -> Result<Self, Failure> {
        let yard = Yard::new(site, "http")?;
        let place = || format!("HTTP (logs in {})", yard.dir.display());
        let (origin, nginx) = start_origin(&yard, files).context(place)?;
        let certificate = ServerFiles::create(&yard.dir)?;
        let mut ways = vec![Way {
            name: "origin".to_owned(),
            plain: origin,
            tls: 0,
            meter: Meter::of(vec![nginx.pid()]),
        }];
        let mut processes = vec![nginx];
        let fronts: [(&str, WriteConfig); 2] = [("haproxy", haproxy), ("nginx", nginx_proxy)];
        for (name, config) in fronts {
            if site.tools.find(name).is_none() {
                notes.insert(format!("http-rate: {name} left out: not installed"));
                continue;
            }
            let front = Front {
                yard: &yard,
                plain: free_port()?,
                tls: free_port()?,
                origin,
                certificate: &certificate,
            };
            let file = yard.write(&format!("{name}.cfg"), &config(&front))?;
            let file = file.display().to_string();
            let process = if name == "haproxy" {
                yard.spawn(name, name, &["-db", "-f", &file], &[])?
            } else {
                let dir = yard.dir.display().to_string();
                yard.spawn("nginx-proxy", name, &["-p", &dir, "-c", &file], &[])?
            };
            ways.push(Way {
                name: name.to_owned(),
                plain: front.plain,
                tls: front.tls,
                meter: Meter::of(vec![process.pid()]),
            });
            processes.push(process);
        }
        let mut hubs = Vec::new();
        for plugins in chains {
            let hub = start_hub(site, origin, *plugins)?;
            let ingress = hub
                .ingress
                .context(|| "the hub has no ingress".to_owned())?;
            ways.push(Way {
                name: format!("hub_w{plugins}"),
                plain: ingress.plain,
                tls: ingress.tls,
                meter: hub.peer.meter.clone(),
            });
            hubs.push(hub);
        }
        for way in &ways {
            wait_for(way.plain, files[0].0)
                .context(|| format!("{} (logs below {})", way.name, site.dir.display()))?;
        }
        Ok(Self {
            ways,
            _processes: processes,
            _hubs: hubs,
        })
    }

    pub(super) fn ways(&self) -> &[Way] {
        &self.ways
    }
}

/// A hub and its agent before an origin, with so many plugins at `http_request`.
pub(super) fn start_hub(site: &Site, origin: u16, plugins: usize) -> Result<RunningHub, Failure> {
    let yard = Yard::new(site, "http-hub")?;
    let shape = HubShape {
        plugins: Plugins::AtHttpRequest(plugins),
        origin: Some(origin),
        ..HubShape::shipped()
    };
    start_shaped(&yard, &shape).context(|| format!("hub (logs in {})", yard.dir.display()))
}

/// Waits until a request gets its answer.
pub(super) fn wait_for(port: u16, file: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        match ask(port, file) {
            Ok(()) => return Ok(()),
            Err(last) if Instant::now() > deadline => {
                return Err(Failure::new(format!("not ready in time: {last}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn ask(port: u16, file: &str) -> Result<(), Failure> {
    use std::io::{Read, Write};

    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = format!("GET /{file} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    if &status == b"HTTP/1.1 200" {
        return Ok(());
    }
    let status = String::from_utf8_lossy(&status).into_owned();
    Err(Failure::new(format!("it answered `{status}`")))
}

fn start_origin(yard: &Yard<'_>, files: &[(&str, usize)]) -> Result<(u16, Tied), Failure> {
    let port = free_port()?;
    let root = yard.dir.join("files");
    fs::create_dir_all(&root).context(|| format!("create {}", root.display()))?;
    for (name, bytes) in files {
        let path = root.join(name);
        fs::write(&path, vec![b'n'; *bytes]).context(|| format!("write {}", path.display()))?;
    }
    let server = format!(
        "server {{\n listen 127.0.0.1:{port} backlog=1024;\n root {};\n }}\n",
        root.display()
    );
    let config = yard.write("origin.cfg", &nginx(yard, "origin", &server))?;
    let (dir, config) = (yard.dir.display().to_string(), config.display().to_string());
    let process = yard.spawn("origin", "nginx", &["-p", &dir, "-c", &config], &[])?;
    Ok((port, process))
}

struct Front<'a> {
    yard: &'a Yard<'a>,
    plain: u16,
    tls: u16,
    origin: u16,
    certificate: &'a ServerFiles,
}

fn haproxy(front: &Front<'_>) -> String {
    format!(
        "global\n  nbthread 2\n  maxconn 4000\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n  \
         http-reuse always\n\
         frontend in\n  bind 127.0.0.1:{}\n  bind 127.0.0.1:{} ssl crt {} alpn h2,http/1.1\n  \
         default_backend out\n\
         backend out\n  server s 127.0.0.1:{}\n",
        front.plain,
        front.tls,
        front.certificate.both.display(),
        front.origin,
    )
}

fn nginx_proxy(front: &Front<'_>) -> String {
    let server = format!(
        "upstream origin {{ server 127.0.0.1:{}; keepalive {KEPT}; keepalive_requests 1000000; }}\n\
         server {{\n listen 127.0.0.1:{} backlog=1024;\n \
         listen 127.0.0.1:{} ssl http2 backlog=1024;\n \
         ssl_certificate {};\n ssl_certificate_key {};\n http2_max_requests 1000000;\n \
         location / {{\n proxy_pass http://origin;\n proxy_http_version 1.1;\n \
         proxy_set_header Connection \"\";\n proxy_set_header Host $host;\n }}\n}}\n",
        front.origin,
        front.plain,
        front.tls,
        front.certificate.certificate.display(),
        front.certificate.key.display(),
    );
    nginx(front.yard, "proxy", &server)
}

/// An nginx with one server, that writes below the yard only.
fn nginx(yard: &Yard<'_>, name: &str, server: &str) -> String {
    let dir = yard.dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!(" {kind}_temp_path {dir}/{name}-{kind};\n"))
        .collect();
    format!(
        "daemon off;\npid {dir}/{name}.pid;\nerror_log stderr crit;\nworker_processes 2;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n access_log off;\n sendfile on;\n keepalive_requests 1000000;\n{temporary}\
         {server}}}\n"
    )
}
