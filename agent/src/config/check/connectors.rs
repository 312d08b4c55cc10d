//! Connectors and their targets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use nowconnect_protocol::ConnectorName;
use serde_saphyr::Spanned;

use super::values::WEEK_MS;
use super::{Checker, Found, Origin, found, server_name};
use crate::config::env::TARGET_PREFIX;
use crate::config::error::nearest;
use crate::config::file::{TargetSection, TargetTlsSection, TunnelSection, known};
use crate::config::{ClientCertificateFiles, ProxyHeader, Target, TargetAddress, TargetTls};

/// HELLO names at most this many connectors.
const CONNECTORS_MAX: usize = nowconnect_protocol::limits::MAX_CONNECTORS;

impl Checker<'_> {
    pub(super) fn exported_connectors(
        &mut self,
        tunnel: &TunnelSection,
    ) -> Vec<Found<ConnectorName>> {
        let given: Vec<Found<String>> = match self.env.var("NC_CONNECTORS") {
            Some(list) => list
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(|name| Found {
                    value: name.to_owned(),
                    origin: Origin::Variable("NC_CONNECTORS".to_owned()),
                })
                .collect(),
            None => tunnel
                .exported_connectors
                .iter()
                .flatten()
                .map(found)
                .collect(),
        };
        let mut names: Vec<Found<ConnectorName>> = Vec::new();
        for found in given {
            match ConnectorName::parse(&found.value) {
                Ok(name) if names.iter().any(|known| known.value == name) => self.problem(
                    &found.origin,
                    format!("`tunnel.exported_connectors` names `{name}` twice"),
                ),
                Ok(value) => names.push(Found {
                    value,
                    origin: found.origin,
                }),
                Err(error) => self.problem(
                    &found.origin,
                    format!("`tunnel.exported_connectors`: {error}"),
                ),
            }
        }
        names
    }

    pub(super) fn check_exported(
        &mut self,
        exported: &[Found<ConnectorName>],
        targets: &BTreeMap<ConnectorName, Target>,
    ) {
        let count = if exported.is_empty() {
            targets.len()
        } else {
            exported.len()
        };
        if count > CONNECTORS_MAX {
            self.problem(
                &Origin::File(None),
                format!("{count} connectors are offered; one agent may offer {CONNECTORS_MAX}"),
            );
        }
        if count == 0 {
            self.problem(
                &Origin::File(None),
                "no connector is configured; add one under `targets`, such as `ssh: {host: 127.0.0.1, port: 22}`"
                    .to_owned(),
            );
        }
        for found in exported {
            if !targets.contains_key(&found.value) {
                let near = nearest(
                    found.value.as_str(),
                    targets.keys().map(ConnectorName::as_str),
                );
                let hint =
                    near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                self.problem(
                    &found.origin,
                    format!(
                        "connector `{}` is exported but has no entry under `targets`{hint}",
                        found.value
                    ),
                );
            }
        }
    }

    pub(super) fn targets(
        &mut self,
        sections: BTreeMap<String, Spanned<TargetSection>>,
    ) -> BTreeMap<ConnectorName, (Origin, TargetSection)> {
        let mut targets = BTreeMap::new();
        for (name, section) in sections {
            let origin = Origin::File(known(section.referenced));
            match ConnectorName::parse(&name) {
                Ok(name) => {
                    targets.insert(name, (origin, section.value));
                }
                Err(error) => self.problem(&origin, format!("`targets.{name}`: {error}")),
            }
        }
        targets
    }

    /// `NC_TARGET_<name>_HOST` and `_PORT` change a known target or add a new one. A variable's
    /// name cannot hold `-` or `.`, so those of a known connector match `_` too.
    pub(super) fn targets_from_env(
        &mut self,
        targets: &mut BTreeMap<ConnectorName, (Origin, TargetSection)>,
        exported: &[Found<ConnectorName>],
    ) {
        for variable in self.env.names(TARGET_PREFIX) {
            let origin = Origin::Variable(variable.clone());
            let rest = &variable[TARGET_PREFIX.len()..];
            let Some((name, field)) = rest.rsplit_once('_') else {
                continue;
            };
            let value = self.env.var(&variable).unwrap_or_default();
            let mut known = matching(name, targets.keys(), exported);
            if known.len() > 1 {
                self.problem(
                    &origin,
                    format!(
                        "matches the connectors `{}` and `{}`; set that target in the file",
                        known[0], known[1]
                    ),
                );
                continue;
            }
            let connector = match known.pop().map_or_else(|| ConnectorName::parse(name), Ok) {
                Ok(connector) => connector,
                Err(error) => {
                    self.problem(&origin, error.to_string());
                    continue;
                }
            };
            let entry = targets
                .entry(connector)
                .or_insert_with(|| (origin.clone(), TargetSection::default()));
            match field {
                "HOST" => {
                    entry.1.host = Some(unplaced(value));
                    entry.1.unix = None;
                }
                "PORT" => match value.trim().parse::<u64>() {
                    Ok(port) => {
                        entry.1.port = Some(unplaced(port));
                        entry.1.unix = None;
                    }
                    Err(_) => self.problem(
                        &origin,
                        format!("`{value}` must be a port number from 1 to 65535"),
                    ),
                },
                _ => self.problem(
                    &origin,
                    format!("unknown field `{field}` of a target; known are `HOST` and `PORT`"),
                ),
            }
        }
    }

    pub(super) fn checked_targets(
        &mut self,
        sections: BTreeMap<ConnectorName, (Origin, TargetSection)>,
    ) -> BTreeMap<ConnectorName, Target> {
        let mut targets = BTreeMap::new();
        for (name, (origin, section)) in sections {
            if let Some(target) = self.target(&name, &origin, section) {
                targets.insert(name, target);
            }
        }
        targets
    }

    fn target(
        &mut self,
        name: &ConnectorName,
        origin: &Origin,
        section: TargetSection,
    ) -> Option<Target> {
        let key = format!("targets.{name}");
        let address = match (section.unix, section.host, section.port) {
            (Some(path), None, None) => Some(TargetAddress::Unix(self.path(&path))),
            (Some(_), _, _) => {
                self.problem(
                    origin,
                    format!("`{key}` has `unix` beside `host` or `port`; keep one of the two"),
                );
                None
            }
            (None, Some(host), Some(port)) => self.tcp_address(&key, &host, &port),
            (None, Some(_), None) => {
                self.problem(origin, format!("`{key}` has a `host` but no `port`"));
                None
            }
            (None, None, _) => {
                self.problem(
                    origin,
                    format!("`{key}` needs `host` and `port`, or `unix: /path/of/socket`"),
                );
                None
            }
        };
        let tls = section.tls.map(|tls| self.target_tls(&key, tls));
        if let (Some(tls), Some(TargetAddress::Unix(_))) = (&tls, &address)
            && tls.server_name.is_none()
        {
            self.problem(
                origin,
                format!("`{key}.tls.server_name` is needed: a Unix socket has no host name"),
            );
        }
        let header_key = format!("{key}.proxy_protocol");
        let proxy_header = self.optional(
            &header_key,
            None,
            section.proxy_protocol.as_ref(),
            |text| match text {
                "off" => Ok(ProxyHeader::Off),
                "v1" => Ok(ProxyHeader::V1),
                "v2" => Ok(ProxyHeader::V2),
                _ => Err(format!("`{text}` must be `off`, `v1` or `v2`")),
            },
        );
        let timeout_key = format!("{key}.connect_timeout_ms");
        let connect_timeout = section
            .connect_timeout_ms
            .map(|value| Duration::from_millis(self.bounded(&timeout_key, &value, 1, 120_000)));
        let idle_key = format!("{key}.idle_timeout_ms");
        let idle_timeout = section
            .idle_timeout_ms
            .map(|value| Duration::from_millis(self.bounded(&idle_key, &value, 100, WEEK_MS)));
        Some(Target {
            address: address?,
            tls,
            proxy_header,
            connect_timeout,
            idle_timeout,
        })
    }

    fn tcp_address(
        &mut self,
        key: &str,
        host: &Spanned<String>,
        port: &Spanned<u64>,
    ) -> Option<TargetAddress> {
        let text = host.value.trim();
        let text = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        let odd = |char: char| char.is_whitespace() || "/@?#".contains(char);
        let is_name_or_address = !text.contains(':') || text.parse::<IpAddr>().is_ok();
        if text.is_empty() || text.len() > 253 || text.contains(odd) || !is_name_or_address {
            self.problem(
                &Origin::File(known(host.referenced)),
                format!("`{key}.host`: `{}` is not a host name or an IP address; the port has a key of its own", host.value),
            );
            return None;
        }
        let port = u16::try_from(self.bounded(&format!("{key}.port"), port, 1, 65_535)).ok()?;
        Some(TargetAddress::Tcp {
            host: text.to_owned(),
            port,
        })
    }

    fn target_tls(&mut self, key: &str, section: TargetTlsSection) -> TargetTls {
        let ca_bundle = section.ca_bundle.map(|path| self.path(&path));
        let name_key = format!("{key}.tls.server_name");
        let server_name = self.optional(&name_key, None, section.server_name.as_ref(), server_name);
        let mut alpn = Vec::new();
        for protocol in section.alpn.unwrap_or_default() {
            if protocol.value.is_empty() || protocol.value.len() > 255 {
                self.problem(
                    &Origin::File(known(protocol.referenced)),
                    format!("`{key}.tls.alpn`: a protocol has 1 to 255 bytes"),
                );
            } else {
                alpn.push(protocol.value);
            }
        }
        TargetTls {
            ca_bundle,
            server_name,
            alpn,
            client_certificate: self.client_certificate(key, section.cert_file, section.key_file),
        }
    }

    fn client_certificate(
        &mut self,
        key: &str,
        cert_file: Option<Spanned<String>>,
        key_file: Option<Spanned<String>>,
    ) -> Option<ClientCertificateFiles> {
        let (lone, there, missing) = match (cert_file, key_file) {
            (None, None) => return None,
            (Some(cert_file), Some(key_file)) => {
                return Some(ClientCertificateFiles {
                    cert_file: self.path(&cert_file),
                    key_file: self.path(&key_file),
                });
            }
            (Some(lone), None) => (lone, "cert_file", "key_file"),
            (None, Some(lone)) => (lone, "key_file", "cert_file"),
        };
        self.problem(
            &Origin::File(known(lone.referenced)),
            format!("`{key}.tls.{there}` needs `{missing}` beside it: a client certificate is shown with its key"),
        );
        None
    }
}

/// The known connectors that a variable's part may mean: the one of that very name, else all
/// whose names look the same as a variable.
fn matching<'a>(
    name: &str,
    targets: impl Iterator<Item = &'a ConnectorName>,
    exported: &'a [Found<ConnectorName>],
) -> Vec<ConnectorName> {
    let known: BTreeSet<&ConnectorName> = targets
        .chain(exported.iter().map(|found| &found.value))
        .collect();
    if let Some(exact) = known.iter().find(|known| known.as_str() == name) {
        return vec![(*exact).clone()];
    }
    known
        .into_iter()
        .filter(|known| as_variable(known.as_str()) == as_variable(name))
        .cloned()
        .collect()
}

fn unplaced<T>(value: T) -> Spanned<T> {
    let nowhere = serde_saphyr::Location::UNKNOWN;
    Spanned::new(value, nowhere, nowhere)
}

fn as_variable(name: &str) -> String {
    name.to_ascii_uppercase().replace(['-', '.'], "_")
}
