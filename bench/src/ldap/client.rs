//! A blocking LDAP client: connect, bind, search.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use super::ber::{self, ENUMERATED, INTEGER, OCTET_STRING, SEQUENCE};
use super::{LdapOptions, Scope, filter, password};
use crate::failure::{Context, Failure};

const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const SEARCH_REQUEST: u8 = 0x63;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const SEARCH_REFERENCE: u8 = 0x73;
const CONTROLS: u8 = 0xa0;
const PAGED_RESULTS: &[u8] = b"1.2.840.113556.1.4.319";

/// Bytes of answers held while a message is incomplete; entries are a few kilobytes.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Everything that a worker needs to connect.
#[derive(Clone)]
pub(crate) struct Connector {
    target: String,
    addresses: Vec<SocketAddr>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    bind: Vec<u8>,
    timeout: Duration,
}

impl Connector {
    pub(crate) fn from_options(options: &LdapOptions) -> Result<Self, Failure> {
        let port = options.port.unwrap_or(if options.ssl { 636 } else { 389 });
        let scheme = if options.ssl { "ldaps" } else { "ldap" };
        let addresses: Vec<SocketAddr> = (options.host.as_str(), port)
            .to_socket_addrs()
            .context(|| format!("resolve `{}`", options.host))?
            .collect();
        let tls = if options.ssl {
            let name = options.server_name.as_ref().unwrap_or(&options.host);
            let name = ServerName::try_from(name.clone())
                .context(|| format!("`{name}` as a server name"))?;
            Some((tls_config(options)?, name))
        } else {
            None
        };
        let bind = ber::constructed(
            BIND_REQUEST,
            &[
                ber::integer(3),
                ber::octets(options.bind_dn.as_bytes()),
                ber::tlv(0x80, password(options)?.as_bytes()),
            ],
        );
        Ok(Self {
            target: format!("{scheme}://{}:{port}", options.host),
            addresses,
            tls,
            bind,
            timeout: Duration::from_secs_f64(options.timeout.max(0.001)),
        })
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Connects and binds.
    pub(crate) fn connect(&self) -> Result<LdapClient, Failure> {
        let address = self
            .addresses
            .first()
            .context(|| format!("no address for {}", self.target))?;
        let tcp = TcpStream::connect_timeout(address, self.timeout)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(self.timeout))?;
        tcp.set_write_timeout(Some(self.timeout))?;
        let stream: Box<dyn ReadWrite> = match &self.tls {
            None => Box::new(tcp),
            Some((config, name)) => {
                let tls = ClientConnection::new(Arc::clone(config), name.clone())
                    .context(|| "start TLS".to_owned())?;
                Box::new(StreamOwned::new(tls, tcp))
            }
        };
        let mut client = LdapClient {
            stream,
            buffer: Vec::new(),
            last_id: 0,
        };
        client.bind(&self.bind)?;
        Ok(client)
    }
}

fn tls_config(options: &LdapOptions) -> Result<Arc<ClientConfig>, Failure> {
    let path = options
        .ca_file
        .as_ref()
        .context(|| "`ssl` needs `ca-file`: the bundle that the server is checked by".to_owned())?;
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(path).context(|| format!("read {}", path.display()))?
    {
        let certificate = certificate.context(|| format!("read {}", path.display()))?;
        roots
            .add(certificate)
            .context(|| format!("certificate in {}", path.display()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context(|| "choose TLS versions".to_owned())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What is searched for, encoded once.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    request: Vec<u8>,
    page_size: u32,
    all_pages: bool,
}

impl Search {
    pub(crate) fn from_options(options: &LdapOptions) -> Result<Self, Failure> {
        let scope = match options.scope {
            Scope::Base => 0,
            Scope::Level => 1,
            Scope::Subtree => 2,
        };
        let attributes: Vec<Vec<u8>> = options
            .attrs
            .iter()
            .filter(|name| !name.is_empty())
            .map(|name| ber::octets(name.as_bytes()))
            .collect();
        let request = ber::constructed(
            SEARCH_REQUEST,
            &[
                ber::octets(options.base_dn.as_bytes()),
                ber::number(ENUMERATED, scope),
                ber::number(ENUMERATED, 0),
                ber::integer(0),
                ber::integer(0),
                ber::tlv(ber::BOOLEAN, &[0]),
                filter::encode(&options.filter)?,
                ber::constructed(SEQUENCE, &attributes),
            ],
        );
        Ok(Self {
            request,
            page_size: options.page_size,
            all_pages: options.all_pages,
        })
    }

    fn controls(&self, cookie: &[u8]) -> Vec<u8> {
        if self.page_size == 0 {
            return Vec::new();
        }
        let value = ber::constructed(
            SEQUENCE,
            &[ber::integer(self.page_size), ber::octets(cookie)],
        );
        let control =
            ber::constructed(SEQUENCE, &[ber::octets(PAGED_RESULTS), ber::octets(&value)]);
        ber::tlv(CONTROLS, &control)
    }
}

trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

/// A bound connection.
pub(crate) struct LdapClient {
    stream: Box<dyn ReadWrite>,
    buffer: Vec<u8>,
    last_id: u32,
}

impl LdapClient {
    fn bind(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.send(request, &[])?;
        let (tag, body, _) = self.receive()?;
        if tag != BIND_RESPONSE {
            return Err(Failure::new(format!("answer {tag:#04x} to a bind")));
        }
        check_result(&body, "bind")
    }

    /// Runs one search and returns how many entries came.
    pub(crate) fn search(&mut self, search: &Search) -> Result<u64, Failure> {
        let mut entries = 0;
        let mut cookie = Vec::new();
        loop {
            self.send(&search.request, &search.controls(&cookie))?;
            let controls = loop {
                let (tag, body, controls) = self.receive()?;
                match tag {
                    SEARCH_ENTRY => entries += 1,
                    SEARCH_REFERENCE => {}
                    SEARCH_DONE => {
                        check_result(&body, "search")?;
                        break controls;
                    }
                    other => {
                        return Err(Failure::new(format!("answer {other:#04x} to a search")));
                    }
                }
            };
            cookie = page_cookie(&controls)?;
            if cookie.is_empty() || !search.all_pages {
                return Ok(entries);
            }
        }
    }

    fn send(&mut self, operation: &[u8], controls: &[u8]) -> Result<(), Failure> {
        self.last_id += 1;
        let parts = [
            ber::integer(self.last_id),
            operation.to_vec(),
            controls.to_vec(),
        ];
        self.stream.write_all(&ber::constructed(SEQUENCE, &parts))?;
        self.stream.flush()?;
        Ok(())
    }

    /// The next message of the current request: tag, body, controls.
    fn receive(&mut self) -> Result<(u8, Vec<u8>, Vec<u8>), Failure> {
        loop {
            if let Some(message) = ber::read(&self.buffer)? {
                let id = ber::expect(message.content, INTEGER)?;
                let operation =
                    ber::read(id.rest)?.context(|| "message without operation".to_owned())?;
                let parsed = (
                    ber::as_number(id.content)?,
                    operation.tag,
                    operation.content.to_vec(),
                    operation.rest.to_vec(),
                );
                let used = self.buffer.len() - message.rest.len();
                self.buffer.drain(..used);
                if parsed.0 != u64::from(self.last_id) {
                    return Err(Failure::new(format!(
                        "answer to message {} where {} is open",
                        parsed.0, self.last_id
                    )));
                }
                return Ok((parsed.1, parsed.2, parsed.3));
            }
            if self.buffer.len() > MAX_MESSAGE_BYTES {
                return Err(Failure::new(format!(
                    "message longer than {MAX_MESSAGE_BYTES} bytes"
                )));
            }
            let mut bytes = [0u8; 16 * 1024];
            let length = self.stream.read(&mut bytes)?;
            if length == 0 {
                return Err(Failure::new("the server closed the connection"));
            }
            self.buffer.extend_from_slice(&bytes[..length]);
        }
    }
}

/// Fails unless an LDAPResult says success.
fn check_result(body: &[u8], what: &str) -> Result<(), Failure> {
    let code = ber::expect(body, ENUMERATED)?;
    match ber::as_number(code.content)? {
        0 => Ok(()),
        other => {
            let matched = ber::expect(code.rest, OCTET_STRING)?;
            let message = ber::expect(matched.rest, OCTET_STRING)?;
            Err(Failure::new(format!(
                "{what} refused with code {other}: {}",
                String::from_utf8_lossy(message.content)
            )))
        }
    }
}

/// The cookie of a paged result; empty at its end.
fn page_cookie(controls: &[u8]) -> Result<Vec<u8>, Failure> {
    if controls.is_empty() {
        return Ok(Vec::new());
    }
    let mut rest = ber::expect(controls, CONTROLS)?.content;
    while !rest.is_empty() {
        let control = ber::expect(rest, SEQUENCE)?;
        rest = control.rest;
        let oid = ber::expect(control.content, OCTET_STRING)?;
        if oid.content != PAGED_RESULTS {
            continue;
        }
        let mut value = ber::read(oid.rest)?.context(|| "paged result without value".to_owned())?;
        if value.tag == ber::BOOLEAN {
            value = ber::expect(value.rest, OCTET_STRING)?;
        }
        let paged = ber::expect(value.content, SEQUENCE)?;
        let estimate = ber::expect(paged.content, INTEGER)?;
        return Ok(ber::expect(estimate.rest, OCTET_STRING)?.content.to_vec());
    }
    Ok(Vec::new())
}
