//! The one connection to Redis, and the task that keeps it.
//!
//! ```text
//!            dial, INFO, probe                trouble in a call or a probe
//!   Away ─────────────────────► Healthy ─────────────────────────────────► Away
//!    └──┘ pause: random, to twice the last and at most `backoff_max`
//! ```
//! *Trouble* is a broken connection, a server that cannot serve now (a replica after a failover,
//! one that loads, a cluster without a slot), or [`SLOW_CALLS`] calls in a row without an answer in
//! time. While it is away calls fail without waiting, and only the task tries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value, cmd};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::config::{RedisConfig, Topology};
use super::connect::{Connection, DialError, dial};
use super::eviction::{self, Eviction};
use super::reply::Reply;
use super::script::Script;
use super::{OpenError, reason};
use crate::error::{RegistryError, Unavailable};
use crate::health::Health;
use crate::limits::MAX_CALLS_IN_FLIGHT;

/// Calls in a row without an answer in time after which the connection is given up. One alone may
/// be one script that was slow.
const SLOW_CALLS: u32 = 3;

/// Keys that one probe of a cluster asks for, each in a random slot: where one of three masters
/// is gone, one probe in 650 misses it. The others answer as if nothing was wrong until their
/// timeout for nodes has passed.
const CLUSTER_PROBES: usize = 16;

/// How long a probe's key stays.
const PROBE_KEPT: Duration = Duration::from_secs(1);

/// The first pause between two dials.
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// See the module. Dropping it ends the task and the connection.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

struct Shared {
    config: RedisConfig,
    current: Mutex<Current>,
    health: watch::Sender<Health>,
    eviction: Mutex<Eviction>,
    /// Wakes the task when the connection was given up.
    lost: Notify,
    slow: AtomicU32,
    turns: Semaphore,
}

#[derive(Default)]
struct Current {
    connection: Option<Connection>,
    /// Rises with each connection, so that a late failure of one does not end the next.
    number: u64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .field("health", &*self.health.borrow())
            .finish_non_exhaustive()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Link {
    pub(super) async fn open(config: RedisConfig) -> Result<Self, OpenError> {
        config.check()?;
        let shared = Arc::new(Shared {
            config,
            current: Mutex::default(),
            health: watch::Sender::new(Health::away("not dialled yet")),
            eviction: Mutex::default(),
            lost: Notify::new(),
            slow: AtomicU32::new(0),
            turns: Semaphore::new(MAX_CALLS_IN_FLIGHT),
        });
        match shared.connect().await {
            Ok(()) => {}
            Err(Failure::Unfit(error)) => return Err(error),
            Err(Failure::Away(why)) => shared.stay_away(why),
        }
        let keeper = tokio::spawn(Arc::clone(&shared).keep()).abort_handle();
        Ok(Self { shared, keeper })
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    pub(super) fn eviction(&self) -> Eviction {
        self.shared.eviction.lock().clone()
    }

    /// Runs a script; Redis knows it by its hash after the first time.
    pub(super) async fn run(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> Result<Reply, RegistryError> {
        let call = |command: &str, script: &str| {
            let mut command = cmd(command);
            command.arg(script).arg(keys.len());
            for key in keys {
                command.arg(key);
            }
            for argument in arguments {
                command.arg(*argument);
            }
            command
        };
        let by_hash = call("EVALSHA", &script.hash);
        let answer = match self.shared.send(script.name, &by_hash).await {
            Err(CallError::NoScript) => {
                let whole = call("EVAL", &script.text);
                self.shared.send(script.name, &whole).await
            }
            answer => answer,
        };
        Reply::read(script.name, answer.map_err(|error| error.of(script.name))?)
    }

    /// Sends a command.
    pub(super) async fn send(
        &self,
        what: &'static str,
        command: &Cmd,
    ) -> Result<Value, RegistryError> {
        let answer = self.shared.send(what, command).await;
        answer.map_err(|error| error.of(what))
    }
}

/// Why there is no connection.
enum Failure {
    /// For now.
    Away(Arc<str>),
    /// As long as Redis or the configuration is as it is.
    Unfit(OpenError),
}

enum CallError {
    NoScript,
    Registry(RegistryError),
}

impl CallError {
    fn of(self, what: &'static str) -> RegistryError {
        match self {
            Self::Registry(error) => error,
            Self::NoScript => RegistryError::Refused {
                what,
                reason: "redis forgets scripts at once".into(),
            },
        }
    }
}

impl Shared {
    async fn send(&self, what: &'static str, command: &Cmd) -> Result<Value, CallError> {
        let (connection, number) = {
            let current = self.current.lock();
            (current.connection.clone(), current.number)
        };
        let Some(mut connection) = connection else {
            let reason = match &*self.health.borrow() {
                Health::Away { reason } => Arc::clone(reason),
                Health::Healthy => "it was lost just now".into(),
            };
            return Err(CallError::Registry(Unavailable::Away { reason }.into()));
        };
        let after = self.config.timing.call;
        let asked = AtomicBool::new(false);
        let answer = timeout(after, async {
            // Closed by nobody, so there is always a turn.
            let _turn = self.turns.acquire().await;
            asked.store(true, Ordering::Relaxed);
            connection.send(command).await
        })
        .await;
        match answer {
            Ok(Ok(value)) => {
                self.slow.store(0, Ordering::Relaxed);
                Ok(value)
            }
            Ok(Err(error)) => Err(self.failed(what, number, &error)),
            Err(_) => {
                // One that only waited for its turn says nothing of the store.
                let asked = asked.load(Ordering::Relaxed);
                if asked && self.slow.fetch_add(1, Ordering::Relaxed) + 1 >= SLOW_CALLS {
                    let text = format!("no answer within {} ms", after.as_millis());
                    self.give_up(number, text.into());
                }
                Err(CallError::Registry(Unavailable::TimedOut { after }.into()))
            }
        }
    }

    fn failed(&self, what: &'static str, number: u64, error: &RedisError) -> CallError {
        if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) {
            return CallError::NoScript;
        }
        let why = reason(error);
        if !is_trouble(error) {
            return CallError::Registry(RegistryError::Refused { what, reason: why });
        }
        self.give_up(number, Arc::clone(&why));
        CallError::Registry(Unavailable::Failed { reason: why }.into())
    }

    /// Ends the connection `number`, if it is still the one in use.
    fn give_up(&self, number: u64, why: Arc<str>) {
        {
            // Health changes together with the connection: a dial that succeeds right now is
            // not overwritten.
            let mut current = self.current.lock();
            if current.number != number || current.connection.take().is_none() {
                return;
            }
            self.stay_away(Arc::clone(&why));
        }
        warn!(reason = %why, "the registry's store is away");
        self.lost.notify_one();
    }

    fn stay_away(&self, reason: Arc<str>) {
        self.health.send_if_modified(|health| {
            let now = Health::Away { reason };
            let differs = *health != now;
            *health = now;
            differs
        });
    }

    /// Watches the connection until the task is aborted.
    async fn keep(self: Arc<Self>) {
        let mut pause = BACKOFF_MIN;
        loop {
            if self.current.lock().connection.is_some() {
                pause = BACKOFF_MIN;
                let probe = self
                    .config
                    .timing
                    .probe
                    .mul_f64(rand::random_range(0.8..1.2));
                let _lost_or_due = timeout(probe, self.lost.notified()).await;
                // One that fails gives the connection up itself.
                let shared = &self;
                let probes = self.probes().into_iter().map(|probe| async move {
                    let _answer = shared.send("probe", &probe).await;
                });
                join_all(probes).await;
                continue;
            }
            sleep(pause.mul_f64(rand::random_range(0.0..1.0))).await;
            pause = (pause * 2).min(self.config.timing.backoff_max);
            match self.connect().await {
                Ok(()) => info!("the registry's store answers"),
                Err(Failure::Away(why)) => self.stay_away(why),
                Err(Failure::Unfit(error)) => self.stay_away(reason(error)),
            }
        }
    }

    /// Writes of keys that nobody reads and that go by themselves. A server that answers PING, and
    /// reads too, may still be unable to keep a claim.
    fn probes(&self) -> Vec<Cmd> {
        let count = match self.config.topology {
            Topology::Standalone(_) | Topology::Sentinel { .. } => 1,
            Topology::Cluster(_) => CLUSTER_PROBES,
        };
        let probe = || {
            let mut command = cmd("SET");
            let slot = rand::random::<u32>();
            command.arg(format!("{}:probe:{slot:08x}", self.config.prefix));
            command
                .arg("")
                .arg("PX")
                .arg(PROBE_KEPT.as_millis().to_string());
            command
        };
        (0..count).map(|_| probe()).collect()
    }

    /// Dials, and takes the connection into use if Redis is fit.
    async fn connect(&self) -> Result<(), Failure> {
        let within = self.config.timing.dial;
        let late =
            || Failure::Away(format!("no connection within {} ms", within.as_millis()).into());
        let dialled = timeout(within, dial(&self.config))
            .await
            .map_err(|_| late())?;
        let mut connection = dialled.map_err(|error| match error {
            DialError::Config(error) => Failure::Unfit(error.into()),
            DialError::Redis(error) => Failure::Away(reason(error)),
        })?;
        let eviction = match timeout(within, connection.send(&cmd("INFO"))).await {
            Err(_) => return Err(late()),
            Ok(Ok(info)) => eviction::judge(&info).map_err(Failure::Unfit)?,
            Ok(Err(error)) if is_trouble(&error) => return Err(Failure::Away(reason(error))),
            Ok(Err(error)) => Eviction::Unreadable {
                reason: reason(error).to_string(),
            },
        };
        if let Eviction::Unreadable { reason } = &eviction {
            warn!(
                %reason,
                "whether redis evicts keys cannot be read: let the user run `INFO`, and make \
                 sure of `maxmemory-policy noeviction`"
            );
        }
        let probes = self.probes().into_iter().map(|probe| {
            let mut connection = connection.clone();
            async move { connection.send(&probe).await }
        });
        let answers = timeout(within, join_all(probes))
            .await
            .map_err(|_| late())?;
        let trouble = answers.into_iter().filter_map(Result::err).find(is_trouble);
        if let Some(error) = trouble {
            return Err(Failure::Away(reason(error)));
        }
        *self.eviction.lock() = eviction;
        self.slow.store(0, Ordering::Relaxed);
        let mut current = self.current.lock();
        current.number += 1;
        current.connection = Some(connection);
        self.health.send_replace(Health::Healthy);
        Ok(())
    }
}

/// Whether the connection or the server behind it is of no use now, rather than the one command.
fn is_trouble(error: &RedisError) -> bool {
    if error.is_io_error() || error.is_connection_dropped() || error.is_timeout() {
        return true;
    }
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "both kinds are open enums of the client's library"
    )]
    match error.kind() {
        ErrorKind::Io
        | ErrorKind::AuthenticationFailed
        | ErrorKind::ClusterConnectionNotFound
        | ErrorKind::MasterNameNotFoundBySentinel => true,
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::Moved
                | ServerErrorKind::TryAgain
        ),
        _ => {
            // Redis 6.2 wraps what a script ran into: the code is then `ERR`.
            let text = error.to_string();
            ["MISCONF", "NOREPLICAS", "READONLY"]
                .iter()
                .any(|code| error.code() == Some(*code) || text.contains(&format!("-{code} ")))
        }
    }
}
