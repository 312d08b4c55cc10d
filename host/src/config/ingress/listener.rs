//! Public HTTP ports.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::super::build::{Surroundings, cidrs, name, rate, socket_address};
use super::super::file::{HttpListenerFile, HttpTlsFile};
use super::super::problem::Problems;
use super::super::tree::Path;
use super::super::{ClientCertificates, ListenerName, ProxyProtocolIn, RateLimit, TlsFiles};

/// One public HTTP port.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpListenerConfig {
    /// Unique among listeners.
    pub name: ListenerName,
    /// The address and port; port 0 asks the system for a free one.
    pub bind: SocketAddr,
    /// The certificates; `None` serves plain HTTP.
    pub tls: Option<HttpTls>,
    /// Certificates that clients are asked for; only with `tls`.
    pub client_certificates: Option<ClientCertificates>,
    /// Whether HTTP/2 is spoken beside HTTP/1.1.
    pub http2: bool,
    /// Client addresses that are let in; empty means all.
    pub allow_cidrs: Vec<IpNet>,
    /// Proxies whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether traces of viewers go on here, those of `trusted_proxies` where there are any.
    pub continue_traces: bool,
    /// The most connections at once; `None` leaves only `limits.max_conn_total`.
    pub max_connections: Option<u32>,
    /// Requests a second from one source address.
    pub rate_per_source: Option<RateLimit>,
    /// Whether clients come with a PROXY protocol header, and from whom it is believed.
    pub proxy_protocol: ProxyProtocolIn,
    /// The listen backlog asked of the system, in connections.
    pub backlog: u32,
}

/// The certificates of a public HTTP port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpTls {
    /// Shown where no other fits the name that a client asks for.
    pub default: Option<TlsFiles>,
    /// Those for the names in them.
    pub certificates: Vec<TlsFiles>,
}

impl HttpListenerConfig {
    pub(super) fn build(
        file: &HttpListenerFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        let listener_name = name(ListenerName::parse(&file.name), &path.key("name"), problems);
        let bind = socket_address(&file.bind, &path.key("bind"), problems);
        let allow_cidrs = cidrs(&file.allow_cidrs, &path.key("allow_cidrs"), problems);
        let trusted_proxies = cidrs(
            &file.trusted_proxies,
            &path.key("trusted_proxies"),
            problems,
        );
        let proxy_protocol =
            ProxyProtocolIn::build(&file.proxy_protocol, &path.key("proxy_protocol"), problems);
        let client_certificates = file
            .client_certificates
            .as_ref()
            .map(|clients| ClientCertificates::build(clients, around));
        if client_certificates.is_some() && file.tls.is_none() {
            problems.add_with_help(
                &path.key("client_certificates"),
                format!("`{path}` asks clients for certificates, and speaks no TLS"),
                "set `tls` as well: certificates are shown in its handshake",
            );
        }
        Some(Self {
            name: listener_name?,
            bind: bind?,
            tls: file
                .tls
                .as_ref()
                .map(|tls| HttpTls::build(tls, &path.key("tls"), around, problems)),
            client_certificates,
            http2: file.http2,
            allow_cidrs,
            trusted_proxies,
            continue_traces: file.continue_traces,
            max_connections: file.max_connections,
            rate_per_source: rate(file.rate_per_source.as_ref()),
            proxy_protocol,
            backlog: file.backlog,
        })
    }
}

impl HttpTls {
    fn build(
        file: &HttpTlsFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        let default = match (&file.cert_file, &file.key_file) {
            (Some(cert), Some(key)) => Some(TlsFiles {
                cert_file: around.path(cert),
                key_file: around.path(key),
            }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                problems.add_with_help(
                    path,
                    format!("`{path}` has one of `cert_file` and `key_file` without the other"),
                    "write both, the chain and the key that its first certificate was made with",
                );
                None
            }
        };
        let certificates = file.certificates.iter();
        Self {
            default,
            certificates: certificates
                .map(|files| TlsFiles::build(files, around))
                .collect(),
        }
    }

    /// Every certificate that is in a file.
    pub(crate) fn files(&self) -> impl Iterator<Item = &TlsFiles> {
        self.default.iter().chain(&self.certificates)
    }
}
