//! How a connection is made.

use std::time::Duration;

use rand::seq::SliceRandom as _;
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo as _, RedisConnectionInfo, RedisResult, TlsCertificates, TlsMode, Value,
};

use super::config::{self, Address, RedisConfig, RedisConfigError, RedisTls, Topology};
use crate::secret::Secret;

/// A connection, shared by whoever clones it.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let answer = match self {
            Self::Single(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        }?;
        answer.extract_error()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error(transparent)]
    Config(#[from] RedisConfigError),
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
}

/// Dials once. Files are read anew, so that passwords and certificates can be changed under a
/// running hub. Not bounded in time as a whole: the caller does that.
pub(super) async fn dial(config: &RedisConfig) -> Result<Connection, DialError> {
    let password = match &config.password_file {
        Some(path) => Some(config::read_password(path)?),
        None => config.password.clone(),
    };
    let certificates = config.tls.as_ref().map(certificates).transpose()?;
    if certificates.is_some() {
        // The client takes the process' default. An earlier one, set by the hub, stays.
        let _already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    let to = To {
        config,
        password,
        certificates,
    };
    match &config.topology {
        Topology::Standalone(address) => to.standalone(address).await,
        Topology::Sentinel {
            sentinels,
            master,
            username,
            password_file,
        } => {
            let own = match password_file {
                Some(path) => Some(config::read_password(path)?),
                None => None,
            };
            let client = to.sentinel(sentinels, master, username.as_deref(), own.as_ref())?;
            to.master(client).await
        }
        Topology::Cluster(nodes) => to.cluster(nodes).await,
    }
}

/// What a dial needs of the configuration.
struct To<'a> {
    config: &'a RedisConfig,
    password: Option<Secret>,
    certificates: Option<TlsCertificates>,
}

impl To<'_> {
    async fn standalone(self, address: &Address) -> Result<Connection, DialError> {
        let info = self.info(address)?;
        let settings = self.settings();
        let client = match self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates)?,
            None => Client::open(info)?,
        };
        let connection = client
            .get_multiplexed_async_connection_with_config(&settings)
            .await?;
        Ok(Connection::Single(connection))
    }

    fn sentinel(
        &self,
        sentinels: &[Address],
        master: &str,
        username: Option<&str>,
        password: Option<&Secret>,
    ) -> Result<SentinelClient, DialError> {
        // In a random order, so that one that hangs does not use up the time of every dial.
        let mut addresses: Vec<_> = sentinels.iter().map(|at| self.address(at)).collect();
        addresses.shuffle(&mut rand::rng());
        let mut builder =
            SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
                .set_client_to_redis_db(i64::from(self.config.database));
        if let Some(certificates) = &self.certificates {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_certificates(certificates.clone());
        }
        if let Some(username) = &self.config.username {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = &self.password {
            builder = builder.set_client_to_redis_password(password.expose());
        }
        if let Some(username) = username {
            builder = builder.set_client_to_sentinel_username(username);
        }
        if let Some(password) = password {
            builder = builder.set_client_to_sentinel_password(password.expose());
        }
        Ok(builder.build()?)
    }

    /// Asks a Sentinel for the master; the client also asks the master for its role.
    async fn master(&self, mut client: SentinelClient) -> Result<Connection, DialError> {
        let connection = client
            .get_async_connection_with_config(&self.settings())
            .await?;
        Ok(Connection::Single(connection))
    }

    async fn cluster(self, nodes: &[Address]) -> Result<Connection, DialError> {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|node| self.info(node))
            .collect::<Result<_, _>>()?;
        let timing = self.config.timing;
        // Within the time of one call the client follows a slot that moved and waits for a
        // failover; what takes longer is for the watching task.
        let mut builder: ClusterClientBuilder = ClusterClient::builder(nodes)
            .retries(3)
            .min_retry_wait(20)
            .max_retry_wait(100)
            .connection_timeout(timing.dial / 2)
            .response_timeout(timing.call);
        if let Some(certificates) = self.certificates {
            builder = builder.tls(TlsMode::Secure).certs(certificates);
        }
        let connection = builder.build()?.get_async_connection().await?;
        Ok(Connection::Cluster(connection))
    }

    fn info(&self, address: &Address) -> RedisResult<ConnectionInfo> {
        let mut redis = RedisConnectionInfo::default().set_db(i64::from(self.config.database));
        if let Some(username) = &self.config.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &self.password {
            redis = redis.set_password(password.expose());
        }
        let info = self.address(address).into_connection_info()?;
        Ok(info.set_redis_settings(redis))
    }

    fn address(&self, address: &Address) -> ConnectionAddr {
        let Address { host, port } = address;
        if self.certificates.is_none() {
            return ConnectionAddr::Tcp(host.clone(), *port);
        }
        ConnectionAddr::TcpTls {
            host: host.clone(),
            port: *port,
            insecure: false,
            tls_params: None,
        }
    }

    /// Without the client's own bound on an answer: ours is on the whole call, and is shorter
    /// than a connection lives.
    fn settings(&self) -> AsyncConnectionConfig {
        let half: Duration = self.config.timing.dial / 2;
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(half))
            .set_response_timeout(None)
    }
}

fn certificates(tls: &RedisTls) -> Result<TlsCertificates, RedisConfigError> {
    let client_tls = match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig {
            client_cert: config::read(cert)?,
            client_key: config::read(key)?,
        }),
        (Some(_), None) | (None, Some(_)) => return Err(RedisConfigError::HalfCertificate),
        (None, None) => None,
    };
    let root_cert = match &tls.ca_bundle {
        Some(path) => Some(config::read(path)?),
        None => None,
    };
    Ok(TlsCertificates {
        client_tls,
        root_cert,
    })
}
