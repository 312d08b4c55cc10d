//! Where Redis is and how to reach it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limits::{HUB_PRESENCE, OWNERSHIP_LEASE};
use crate::secret::Secret;

/// Redis' own port.
const DEFAULT_PORT: u16 = 6379;

/// Sentinel's own port.
const DEFAULT_SENTINEL_PORT: u16 = 26_379;

/// Addresses in one URL.
const MAX_ADDRESSES: usize = 64;

/// The longest prefix of keys, in bytes.
const MAX_PREFIX_BYTES: usize = 64;

/// Where Redis is and how to reach it. Build it with [`RedisConfig::from_url`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// Which kind of Redis, and where.
    pub topology: Topology,
    /// The number of the database; a cluster has only 0.
    pub database: u16,
    /// TLS to Redis and to Sentinels; `None` is plain TCP.
    pub tls: Option<RedisTls>,
    /// The ACL user; `None` is Redis' `default`.
    pub username: Option<String>,
    /// Its password. Use `password_file` where it changes.
    pub password: Option<Secret>,
    /// Holds the password, one line; read anew with each connection. In place of `password`.
    pub password_file: Option<PathBuf>,
    /// The first part of every key. Clusters that share a Redis need different ones.
    pub prefix: String,
    /// Bounds in time.
    pub timing: RedisTiming,
    /// How long a claim stands without renewal.
    pub ownership_lease: Duration,
    /// How long a hub counts as present without another word.
    pub hub_presence: Duration,
}

/// Which kind of Redis, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Standalone(Address),
    /// Sentinels that know the master.
    Sentinel {
        /// Some of the Sentinels; they are asked in a random order.
        sentinels: Vec<Address>,
        /// The name under which they know the master.
        master: String,
        /// The Sentinels' own user, if they ask for one.
        username: Option<String>,
        /// Holds the Sentinels' own password, one line.
        password_file: Option<PathBuf>,
    },
    /// Some nodes of a cluster; they name the others.
    Cluster(Vec<Address>),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// TLS to Redis. The server's name is always checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// Roots as PEM; `None` takes the system's.
    pub ca_bundle: Option<PathBuf>,
    /// This hub's chain as PEM, where Redis asks for one.
    pub cert_file: Option<PathBuf>,
    /// This hub's key as PEM.
    pub key_file: Option<PathBuf>,
}

/// Bounds in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisTiming {
    /// For a call, waiting for its turn included. Default 500 ms.
    pub call: Duration,
    /// For a connection, with TLS, authentication and finding the master. Default 2 s.
    pub dial: Duration,
    /// Between two probes of a connection that is not used. Default 1 s.
    pub probe: Duration,
    /// The longest pause between two dials; they begin with 100 ms. Default 5 s.
    pub backoff_max: Duration,
}

impl Default for RedisTiming {
    fn default() -> Self {
        Self {
            call: Duration::from_millis(500),
            dial: Duration::from_secs(2),
            probe: Duration::from_secs(1),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// What is wrong with the configuration. Never shows the password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisConfigError {
    /// The URL.
    #[error(
        "{problem}: write `redis://[user[:password]@]host[:port][/database]`, \
         `redis+sentinel://sentinel,sentinel/master[/database]` or `redis+cluster://node,node`, \
         with `rediss` for TLS"
    )]
    Url {
        /// What is wrong with it.
        problem: String,
    },
    /// The prefix of keys.
    #[error("the key prefix `{prefix}` needs 1 to 64 letters, digits, `.`, `_`, `-` or `:`")]
    Prefix {
        /// As it was given.
        prefix: String,
    },
    /// A password is given twice.
    #[error("give the password in the URL or in a file, not both")]
    TwoPasswords,
    /// Half of a client's certificate.
    #[error("a certificate for redis needs both `cert_file` and `key_file`")]
    HalfCertificate,
    /// A file.
    #[error("cannot read `{}`: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl RedisConfig {
    /// Reads a URL: `redis://[user[:password]@]host[:port][/database]`,
    /// `redis+sentinel://sentinel,sentinel/master[/database]` or `redis+cluster://node,node`, each
    /// with `rediss` for TLS. User and password are percent-encoded, and are Redis', not the
    /// Sentinels'.
    ///
    /// # Errors
    /// [`RedisConfigError::Url`].
    pub fn from_url(url: &str) -> Result<Self, RedisConfigError> {
        let wrong = |problem: &str| RedisConfigError::Url {
            problem: problem.to_owned(),
        };
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| wrong("the redis URL has no scheme"))?;
        let (rest, query) = rest.split_once(['?', '#']).unwrap_or((rest, ""));
        if !query.is_empty() {
            return Err(wrong("the redis URL takes no `?` or `#`"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, hosts) = match authority.rsplit_once('@') {
            Some((user_info, hosts)) => (Some(user_info), hosts),
            None => (None, authority),
        };
        let (kind, tls) = match scheme {
            "redis" | "valkey" => (Kind::Standalone, false),
            "rediss" | "valkeys" => (Kind::Standalone, true),
            "redis+sentinel" | "valkey+sentinel" => (Kind::Sentinel, false),
            "rediss+sentinel" | "valkeys+sentinel" => (Kind::Sentinel, true),
            "redis+cluster" | "valkey+cluster" => (Kind::Cluster, false),
            "rediss+cluster" | "valkeys+cluster" => (Kind::Cluster, true),
            other => return Err(wrong(&format!("`{other}` is no scheme of a redis URL"))),
        };
        let (username, password) = match user_info.map(|info| info.split_once(':')) {
            None => (None, None),
            Some(None) => (user_info.map(decoded).transpose()?, None),
            Some(Some((user, password))) => {
                let user = (!user.is_empty()).then(|| decoded(user)).transpose()?;
                (user, Some(Secret::new(decoded(password)?)))
            }
        };
        let (topology, database) = topology(kind, hosts, path)?;
        Ok(Self {
            topology,
            database,
            tls: tls.then(RedisTls::default),
            username,
            password,
            password_file: None,
            prefix: "nowconnect".to_owned(),
            timing: RedisTiming::default(),
            ownership_lease: OWNERSHIP_LEASE,
            hub_presence: HUB_PRESENCE,
        })
    }

    /// Checks what a URL does not hold.
    pub(super) fn check(&self) -> Result<(), RedisConfigError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
        let length = self.prefix.len();
        if length == 0 || length > MAX_PREFIX_BYTES || !self.prefix.chars().all(fits) {
            return Err(RedisConfigError::Prefix {
                prefix: self.prefix.clone(),
            });
        }
        if self.password.is_some() && self.password_file.is_some() {
            return Err(RedisConfigError::TwoPasswords);
        }
        let half = |tls: &RedisTls| tls.cert_file.is_some() != tls.key_file.is_some();
        if self.tls.as_ref().is_some_and(half) {
            return Err(RedisConfigError::HalfCertificate);
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Standalone,
    Sentinel,
    Cluster,
}

fn topology(kind: Kind, hosts: &str, path: &str) -> Result<(Topology, u16), RedisConfigError> {
    let wrong = |problem: String| RedisConfigError::Url { problem };
    let default_port = match kind {
        Kind::Standalone | Kind::Cluster => DEFAULT_PORT,
        Kind::Sentinel => DEFAULT_SENTINEL_PORT,
    };
    let addresses: Vec<_> = hosts
        .split(',')
        .map(|host| address(host, default_port))
        .collect::<Result<_, _>>()?;
    if addresses.len() > MAX_ADDRESSES {
        return Err(wrong(format!(
            "the redis URL has {} addresses, and {MAX_ADDRESSES} is the bound",
            addresses.len()
        )));
    }
    let database = |text: &str| match text {
        "" => Ok(0),
        text => text
            .parse::<u16>()
            .map_err(|_| wrong(format!("`{text}` is no number of a redis database"))),
    };
    match kind {
        Kind::Standalone => match <[Address; 1]>::try_from(addresses) {
            Ok([only]) => Ok((Topology::Standalone(only), database(path)?)),
            Err(_) => Err(wrong(
                "several addresses need a Sentinel or cluster URL".into(),
            )),
        },
        Kind::Sentinel => {
            let (master, number) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                return Err(wrong("the Sentinel URL names no master".into()));
            }
            let topology = Topology::Sentinel {
                sentinels: addresses,
                master: decoded(master)?,
                username: None,
                password_file: None,
            };
            Ok((topology, database(number)?))
        }
        Kind::Cluster => match database(path)? {
            0 => Ok((Topology::Cluster(addresses), 0)),
            _ => Err(wrong("a redis cluster has database 0 alone".into())),
        },
    }
}

fn address(text: &str, default_port: u16) -> Result<Address, RedisConfigError> {
    let wrong = || RedisConfigError::Url {
        problem: format!("`{text}` is no address of a redis"),
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            match port {
                "" => (host, None),
                port => (host, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().map_err(|_| wrong())?,
        None => default_port,
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '[' | ']');
    if host.is_empty() || port == 0 || host.contains(odd) {
        return Err(wrong());
    }
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

/// Undoes percent-encoding (RFC 3986 §2.1). What fails is not shown: it may be a password.
fn decoded(text: &str) -> Result<String, RedisConfigError> {
    let wrong = || RedisConfigError::Url {
        problem: "user, password or master of the redis URL are not percent-encoded UTF-8".into(),
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else {
            return Err(wrong());
        };
        rest = after;
        let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or_else(wrong);
        let value = digit(high)? * 16 + digit(low)?;
        bytes.push(u8::try_from(value).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// Reads a file of at most 64 KiB, as every one named by this configuration is.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, RedisConfigError> {
    use std::io::Read as _;
    const MAX_FILE_BYTES: u64 = 1 << 16;
    let failed = |reason: String| RedisConfigError::File {
        path: path.to_owned(),
        reason,
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(error.to_string()))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(failed(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// The password that a file holds.
pub(super) fn read_password(path: &Path) -> Result<Secret, RedisConfigError> {
    let failed = |reason: &str| RedisConfigError::File {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let text = String::from_utf8(read(path)?).map_err(|_| failed("it is not UTF-8"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(failed("it holds no password")),
        password => Ok(Secret::new(password)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_one_server_sentinels_or_a_cluster() {
        let one = RedisConfig::from_url("redis://cache.example:7000/3").unwrap();
        assert_eq!(
            one.topology,
            Topology::Standalone(at("cache.example", 7000))
        );
        assert_eq!((one.database, &one.tls, &one.username), (3, &None, &None));

        let url = "rediss+sentinel://hub:p%40ss%3a@[::1]:1,s2,s3:3/mymaster/2";
        let sentinel = RedisConfig::from_url(url).unwrap();
        assert_eq!(
            sentinel.topology,
            Topology::Sentinel {
                sentinels: vec![at("::1", 1), at("s2", 26_379), at("s3", 3)],
                master: "mymaster".to_owned(),
                username: None,
                password_file: None,
            }
        );
        assert_eq!(sentinel.database, 2);
        assert_eq!(sentinel.tls, Some(RedisTls::default()));
        assert_eq!(sentinel.username.as_deref(), Some("hub"));
        assert_eq!(sentinel.password.unwrap().expose(), "p@ss:");

        let cluster = RedisConfig::from_url("valkey+cluster://:secret@a,b:7001").unwrap();
        assert_eq!(
            cluster.topology,
            Topology::Cluster(vec![at("a", 6379), at("b", 7001)])
        );
        assert_eq!((cluster.username, cluster.password.is_some()), (None, true));
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        for url in [
            "cache.example",
            "http://hunter2@cache.example",
            "redis://",
            "redis://user:hunter2@a,b",
            "redis://user:hunter2@a:0",
            "redis://user:hunter2@a:65536",
            "redis://user:hunter2@a/x",
            "redis://user:hunter2@a b",
            "redis://user:hunter2%4@a",
            "redis://user:hunter2%zz@a",
            "redis://user:hunter2@a?insecure=1",
            "redis+sentinel://user:hunter2@a",
            "redis+cluster://user:hunter2@a/1",
            "redis://[::1",
        ] {
            let error = RedisConfig::from_url(url).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let config = RedisConfig::from_url("redis://user:hunter2@a").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn what_no_url_holds_is_checked() {
        let with = |change: fn(&mut RedisConfig)| {
            let mut config = RedisConfig::from_url("rediss://user:x@a").unwrap();
            change(&mut config);
            config.check()
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert!(with(|config| config.prefix = "a{b}".to_owned()).is_err());
        assert!(with(|config| config.prefix = String::new()).is_err());
        assert_eq!(
            with(|config| config.password_file = Some("p".into())),
            Err(RedisConfigError::TwoPasswords)
        );
        assert_eq!(
            with(|config| {
                config.tls = Some(RedisTls {
                    cert_file: Some("c".into()),
                    ..RedisTls::default()
                });
            }),
            Err(RedisConfigError::HalfCertificate)
        );
    }

    #[test]
    fn a_password_file_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "hunter2\n").unwrap();
        assert_eq!(read_password(&path).unwrap().expose(), "hunter2");
        std::fs::write(&path, "\n").unwrap();
        assert!(read_password(&path).is_err());
        assert!(read_password(&folder.path().join("none")).is_err());
    }

    fn at(host: &str, port: u16) -> Address {
        Address {
            host: host.to_owned(),
            port,
        }
    }
}
