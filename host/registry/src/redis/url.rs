//! Reads the URL of a Redis.

use super::config::{Address, RedisConfig, RedisConfigError, RedisTiming, RedisTls, Topology};
use crate::limits::{HUB_PRESENCE, OWNERSHIP_LEASE};
use crate::secret::Secret;

/// Redis' own port.
const DEFAULT_PORT: u16 = 6379;

/// Sentinel's own port.
const DEFAULT_SENTINEL_PORT: u16 = 26_379;

/// Addresses in one URL.
const MAX_ADDRESSES: usize = 64;

/// See [`RedisConfig::from_url`].
pub(super) fn read(url: &str) -> Result<RedisConfig, RedisConfigError> {
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
    if path.contains('@') {
        return Err(wrong(
            "a password in the redis URL has its `/` written as `%2F`",
        ));
    }
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
    Ok(RedisConfig {
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
            .map_err(|_| wrong("the database of the redis URL is no number".into())),
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
        // Not shown: a password that holds a `/` ends up here.
        problem: "a `host[:port]` of the redis URL is none; write `/`, `@`, `?` and `#` of a \
                  password as `%2F`, `%40`, `%3F` and `%23`"
            .to_owned(),
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

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
            "redis://user:hunter2/x@a",
            "redis://user:x/hunter2@a",
            "redis://user:6379/hunter2@a",
            "redis+sentinel://user:1/m/hunter2@a",
            "redis+sentinel://user:1/hunter2@a",
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

    fn at(host: &str, port: u16) -> Address {
        Address {
            host: host.to_owned(),
            port,
        }
    }
}
