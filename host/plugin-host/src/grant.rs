//! What an operator grants a plugin, one line for each ability.
//!
//! | grant | allows |
//! |---|---|
//! | `log`, `config`, `clock`, `metrics`, `data` | importing the interface of that name |
//! | `kv`, `kv:4MiB` | importing `kv`, with 1 MiB or that much per tenant |
//! | `fetch:api.example.com` and more, see [`crate::fetch`] | importing `fetch`, to those hosts |
//! | `wasi` | importing WASI, with all its doors closed |
//! | `signals:DE`, `signals:risk-*`, `signals:*` | signals with that name or beginning |
//! | `headers.set:x-tenant-*` | setting those HTTP fields; likewise `headers.append`, `headers.remove` |
//!
//! Hop-by-hop fields and `content-length` can never be granted; `host`, `authorization` and
//! cookies only by their full name, so that no pattern lets them slip in.

use std::str::FromStr;

use thiserror::Error;

use crate::contract::ContractVersion;
use crate::fetch::Hosts;

#[cfg(test)]
mod tests;

/// Key-value quota of a plain `kv`, in bytes per tenant.
const KV_QUOTA_BYTES: u64 = 1024 * 1024;

/// HTTP fields that belong to one hop or to the framing of the message.
const NEVER_EDITED: [&str; 10] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// HTTP fields that a pattern with `*` never covers.
const ONLY_BY_NAME: [&str; 5] = ["authorization", "cookie", "forwarded", "host", "set-cookie"];

/// A capability: one interface of `wit/` that the host links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Write log lines.
    Log,
    /// Read its own settings.
    Config,
    /// Keep entries that outlive a call.
    Kv,
    /// Read the clocks.
    Clock,
    /// Count and measure.
    Metrics,
    /// Read its data files.
    Data,
    /// Send HTTP requests to granted hosts.
    Fetch,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Self; 7] = [
        Self::Log,
        Self::Config,
        Self::Kv,
        Self::Clock,
        Self::Metrics,
        Self::Data,
        Self::Fetch,
    ];

    /// Name of the grant and of the interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Config => "config",
            Self::Kv => "kv",
            Self::Clock => "clock",
            Self::Metrics => "metrics",
            Self::Data => "data",
            Self::Fetch => "fetch",
        }
    }

    /// The first version of the contract that has it.
    pub(crate) const fn since(self) -> ContractVersion {
        match self {
            Self::Log | Self::Config | Self::Kv | Self::Clock | Self::Metrics | Self::Data => {
                ContractVersion::V0_1
            }
            Self::Fetch => ContractVersion::V0_2,
        }
    }

    /// A grant of it, ready to be filled in and pasted.
    pub(crate) const fn paste(self) -> &'static str {
        match self {
            Self::Fetch => "\"fetch:<host>\"",
            Self::Log | Self::Config | Self::Kv | Self::Clock | Self::Metrics | Self::Data => {
                self.as_str()
            }
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

/// A grant that is not understood or not possible.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GrantError {
    /// No such ability.
    #[error(
        "`grants` names `{0}`; known are log, config, kv, clock, metrics, data, fetch:<host>, \
         fetch.network:<network>, wasi, signals:<name>, headers.set:<name>, headers.append:<name> \
         and headers.remove:<name>"
    )]
    Unknown(String),
    /// An ability that needs a name, or takes none.
    #[error("`grants` names `{grant}`: {problem}")]
    Malformed {
        /// What was written.
        grant: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// All that one plugin may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    capabilities: Vec<Capability>,
    kv_quota_bytes: u64,
    hosts: Hosts,
    wasi: bool,
    signals: Vec<Pattern>,
    set: Vec<Pattern>,
    append: Vec<Pattern>,
    remove: Vec<Pattern>,
}

impl Grants {
    /// Reads a list of grants.
    ///
    /// # Errors
    /// The first one that is not understood.
    pub fn parse(grants: &[String]) -> Result<Self, GrantError> {
        let mut all = Self::default();
        for grant in grants {
            all.add(grant)?;
        }
        all.capabilities.sort_unstable();
        all.capabilities.dedup();
        Ok(all)
    }

    /// The capability is granted.
    pub fn allows(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    /// WASI is granted, closed.
    pub fn allows_wasi(&self) -> bool {
        self.wasi
    }

    /// Where `fetch` leads.
    pub(crate) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Bytes of one namespace of the plugin.
    pub fn kv_quota_bytes(&self) -> u64 {
        self.kv_quota_bytes
    }

    /// The plugin may give this signal (without its own name in front).
    pub fn allows_signal(&self, signal: &str) -> bool {
        self.signals.iter().any(|pattern| pattern.matches(signal))
    }

    pub(crate) fn allows_edit(&self, kind: EditKind, name: &str) -> bool {
        if is_never_edited(name) {
            return false;
        }
        let patterns = match kind {
            EditKind::Set => &self.set,
            EditKind::Append => &self.append,
            EditKind::Remove => &self.remove,
        };
        let only_by_name = ONLY_BY_NAME.contains(&name);
        patterns
            .iter()
            .any(|pattern| pattern.matches(name) && (!only_by_name || pattern.is_exact()))
    }

    fn add(&mut self, grant: &str) -> Result<(), GrantError> {
        let (ability, argument) = match grant.split_once(':') {
            Some((ability, argument)) => (ability, Some(argument.trim())),
            None => (grant, None),
        };
        let malformed = |problem| GrantError::Malformed {
            grant: grant.to_owned(),
            problem,
        };
        if let Some(capability) = Capability::parse(ability) {
            self.capabilities.push(capability);
            match (capability, argument) {
                (Capability::Kv, None) => self.kv_quota_bytes = KV_QUOTA_BYTES,
                (Capability::Kv, Some(quota)) => {
                    self.kv_quota_bytes = parse_bytes(quota)
                        .ok_or_else(|| malformed("the quota is a number and KiB or MiB"))?;
                }
                (Capability::Fetch, hosts) => {
                    for host in hosts.unwrap_or_default().split(',') {
                        self.hosts.add_host(host.trim()).map_err(malformed)?;
                    }
                }
                (_, None) => {}
                (_, Some(_)) => return Err(malformed("this one takes nothing after it")),
            }
            return Ok(());
        }
        if ability == "wasi" {
            self.wasi = true;
            return match argument {
                None => Ok(()),
                Some(_) => Err(malformed("this one takes nothing after it")),
            };
        }
        if ability == "fetch.network" {
            let networks = argument.unwrap_or_default().split(',');
            return networks
                .map(str::trim)
                .try_for_each(|network| self.hosts.add_network(network).map_err(malformed));
        }
        let patterns = match ability {
            "signals" => &mut self.signals,
            "headers.set" => &mut self.set,
            "headers.append" => &mut self.append,
            "headers.remove" => &mut self.remove,
            _ => return Err(GrantError::Unknown(grant.to_owned())),
        };
        let names = argument.ok_or_else(|| malformed("it needs `:` and a name"))?;
        for name in names.split(',') {
            let pattern: Pattern = name.trim().parse().map_err(malformed)?;
            if ability != "signals" {
                pattern.check_header().map_err(malformed)?;
            }
            patterns.push(pattern);
        }
        Ok(())
    }
}

/// Which kind of edit a plugin makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EditKind {
    Set,
    Append,
    Remove,
}

impl EditKind {
    pub(crate) const fn grant(self) -> &'static str {
        match self {
            Self::Set => "headers.set",
            Self::Append => "headers.append",
            Self::Remove => "headers.remove",
        }
    }
}

/// A name, or the beginning of names with `*` at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    Prefix(String),
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }

    const fn is_exact(&self) -> bool {
        match self {
            Self::Exact(_) => true,
            Self::Prefix(_) => false,
        }
    }

    fn check_header(&self) -> Result<(), &'static str> {
        let (Self::Exact(text) | Self::Prefix(text)) = self;
        if text.bytes().any(|byte| !is_field_name_byte(byte)) {
            return Err("HTTP field names are lower-case letters, digits and `-`, `_`, `.`");
        }
        if self.is_exact() && NEVER_EDITED.contains(&text.as_str()) {
            return Err("this HTTP field belongs to one hop and is never edited");
        }
        Ok(())
    }
}

impl FromStr for Pattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (text, prefix) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        if text.contains('*') {
            return Err("`*` stands at the end only");
        }
        if text.is_empty() && !prefix {
            return Err("it needs a name after `:`");
        }
        Ok(if prefix {
            Self::Prefix(text.to_owned())
        } else {
            Self::Exact(text.to_owned())
        })
    }
}

/// The host alone sets such a field.
pub(crate) fn is_never_edited(name: &str) -> bool {
    NEVER_EDITED.contains(&name)
}

/// Letters are lower case: the host shows and compares names in that form.
pub(crate) const fn is_field_name_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')
}

fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let unit = match unit {
        "" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}
