//! What the sections need to turn the file form into the runtime form.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::env::Env;
use super::file::RateFile;
use super::limits::RateLimit;
use super::problem::{Problems, hide_user_info};
use super::tree::Path;

/// What is known beside the file's own text.
pub(crate) struct Surroundings<'a> {
    /// The folder of the file: where relative paths start.
    pub(crate) folder: Option<&'a FilePath>,
    pub(crate) env: &'a dyn Env,
}

impl Surroundings<'_> {
    /// A path as the hub opens it.
    pub(crate) fn path(&self, written: &str) -> PathBuf {
        match self.folder {
            Some(folder) => folder.join(written),
            None => PathBuf::from(written),
        }
    }

    pub(crate) fn optional_path(&self, written: Option<&String>) -> Option<PathBuf> {
        written.map(|written| self.path(written))
    }
}

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) fn optional_ms(milliseconds: Option<u64>) -> Option<Duration> {
    milliseconds.map(Duration::from_millis)
}

pub(crate) fn rate(file: Option<&RateFile>) -> Option<RateLimit> {
    file.map(|file| RateLimit {
        per_second: file.per_second,
        burst: file.burst.unwrap_or(file.per_second),
    })
}

/// Networks; a bare address is a network of one.
pub(crate) fn cidrs(texts: &[String], path: &Path, problems: &mut Problems<'_>) -> Vec<IpNet> {
    let mut networks = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let parsed = text
            .parse::<IpNet>()
            .ok()
            .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        match parsed {
            Some(network) if network.trunc() == network => networks.push(network),
            Some(network) => problems.add_with_help(
                &path.index(index),
                format!("`{text}` has bits set beyond its prefix"),
                format!(
                    "write `{}` for the network, or `{}` for the one address",
                    network.trunc(),
                    network.addr()
                ),
            ),
            None => problems.add_with_help(
                &path.index(index),
                format!("`{text}` is no network"),
                "write it as `10.0.0.0/8`, `2001:db8::/32` or a single address",
            ),
        }
    }
    networks
}

/// An address with a port.
pub(crate) fn socket_address(
    text: &str,
    path: &Path,
    problems: &mut Problems<'_>,
) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let help = match text.strip_prefix(':') {
        Some(port) => format!("write `0.0.0.0:{port}`, or `[::]:{port}` for IPv6 as well"),
        None if text.parse::<IpAddr>().is_ok() => {
            "a port is missing: write it as `0.0.0.0:389` or `[::1]:389`".to_owned()
        }
        None => "write address and port, such as `0.0.0.0:389` or `[::1]:389`; host names are not \
                 looked up here"
            .to_owned(),
    };
    problems.add_with_help(
        path,
        format!("`{path}` cannot be `{text}`: that is no address with a port"),
        help,
    );
    None
}

/// An address without a port.
pub(crate) fn ip_address(text: &str, path: &Path, problems: &mut Problems<'_>) -> Option<IpAddr> {
    let parsed = match text {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        _ => text.parse().ok(),
    };
    if parsed.is_none() {
        problems.add_with_help(
            path,
            format!("`{path}` cannot be `{text}`: that is no IP address"),
            "write an address of this machine, or `0.0.0.0` for all",
        );
    }
    parsed
}

/// A URL with one of the schemes and a host. User information is never shown.
pub(crate) fn url(
    text: &str,
    schemes: &[&str],
    path: &Path,
    problems: &mut Problems<'_>,
) -> Option<reqwest::Url> {
    let parsed = reqwest::Url::parse(text).ok().filter(|url| {
        schemes.contains(&url.scheme()) && url.host_str().is_some_and(|host| !host.is_empty())
    });
    if parsed.is_none() {
        problems.add_with_help(
            path,
            format!("`{path}` cannot be `{}`", hide_user_info(text)),
            format!(
                "write a whole URL that begins with `{}://`",
                schemes.join("://` or `")
            ),
        );
    }
    parsed
}

/// A name that the protocol crate parses, or anything else with a sentence for an error.
pub(crate) fn name<T, E: std::fmt::Display>(
    parsed: Result<T, E>,
    path: &Path,
    problems: &mut Problems<'_>,
) -> Option<T> {
    match parsed {
        Ok(name) => Some(name),
        Err(error) => {
            problems.add(path, format!("`{path}`: {error}"));
            None
        }
    }
}
