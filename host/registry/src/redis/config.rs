//! Where Redis is and how to reach it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::url;
use crate::secret::Secret;

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
        url::read(url)
    }

    /// Checks what a URL does not hold. [`RedisRegistry::open`](crate::RedisRegistry::open) does
    /// it too; here it is done without dialling.
    ///
    /// # Errors
    /// The prefix is none, a password is given twice, or half of a certificate is missing.
    pub fn check(&self) -> Result<(), RedisConfigError> {
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

impl RedisConfig {
    /// Reads every file that it names, as each dial does.
    ///
    /// # Errors
    /// The first that cannot be read, or holds no password.
    pub fn check_files(&self) -> Result<(), RedisConfigError> {
        let of_sentinels = match &self.topology {
            Topology::Sentinel { password_file, .. } => password_file.as_ref(),
            Topology::Standalone(_) | Topology::Cluster(_) => None,
        };
        for path in self.password_file.iter().chain(of_sentinels) {
            read_password(path)?;
        }
        if let Some(tls) = &self.tls {
            for path in tls
                .ca_bundle
                .iter()
                .chain(&tls.cert_file)
                .chain(&tls.key_file)
            {
                read(path)?;
            }
        }
        Ok(())
    }
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
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

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
        let mut config = RedisConfig::from_url("redis://a").unwrap();
        config.password_file = Some(path.clone());
        assert_eq!(config.check_files(), Ok(()));
        std::fs::write(&path, "\n").unwrap();
        assert!(read_password(&path).is_err());
        assert!(config.check_files().is_err());
        assert!(read_password(&folder.path().join("none")).is_err());
    }
}
