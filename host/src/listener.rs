//! The public ports: every client's connection becomes one flow, or is closed.
//!
//! ```text
//! pass ─► accept ─► PROXY header ─► limits, addresses ─► agent ─► authorize ─► OPEN
//!                                                          ▲                     │
//!                                                          └── not started ◄─────┘
//! ```
//! A pass is taken before the accept, so that a hub that is full leaves clients in the system's
//! backlog instead of accepting what it cannot serve. A port's socket outlives a reload: only
//! its [`Rules`] are swapped, so a client never meets a closed port because a limit changed. A
//! port that moves to another address of the same number is bound over the old one, which then
//! closes.

mod client;
mod observer;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use ipnet::IpNet;
use nowconnect_policy::{ListenerFacts, Name};
use nowconnect_protocol::ProxyProtocol;
use nowconnect_tunnel::WorkerId;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::authorize::policy_name;
use crate::config::{CloudConfig, FlowTimes, ListenerConfig};
use crate::connector::Connector;
use crate::hub::Hub;
use crate::limit::{Gate, Rate, SourceRates};
use crate::registry::ConnectorKey;
use crate::telemetry::events;

pub(crate) use client::{Client, Place};

/// How long an accept that failed for want of a resource waits before the next; doubles up to
/// [`ACCEPT_PAUSE_MAX`].
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);

/// See [`ACCEPT_PAUSE`].
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Clients that are accepted in one go while more wait; then tunnels on the same thread get
/// their turn, which send what was opened.
const CLIENTS_PER_TURN: u64 = 4;

/// One bound port.
#[derive(Debug)]
pub(crate) struct Port {
    /// `None` once nobody is accepted any more: the port is then free for others.
    socket: Mutex<Option<Arc<TcpListener>>>,
    /// Where it is bound, with the port that the system chose.
    pub(crate) address: SocketAddr,
    rules: ArcSwap<Rules>,
    /// The worker that accepts, where it matters which.
    home: watch::Sender<Option<WorkerId>>,
    stop: watch::Sender<bool>,
}

/// What holds for a port's clients; swapped whole by a reload.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) config: ListenerConfig,
    /// As policies know it.
    pub(crate) name: Name,
    pub(crate) text: Arc<str>,
    pub(crate) connector: Arc<Connector>,
    pub(crate) times: FlowTimes,
    /// The header that the connector's target expects.
    pub(crate) proxy_protocol_out: Option<ProxyProtocol>,
    /// `security.allow_cidrs`, which count for every listener.
    pub(crate) allow_cidrs: Vec<IpNet>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) flows: Arc<AtomicUsize>,
    pub(crate) rate: Rate,
    pub(crate) rate_per_source: SourceRates,
    /// Whether it is there for a tunnel of the control plane, and in no configuration.
    pub(crate) of_tunnel: bool,
}

impl Rules {
    /// The rules for a listener; counts go on from `earlier`.
    pub(crate) fn new(
        hub: &Hub,
        config: &CloudConfig,
        listener: &ListenerConfig,
        earlier: Option<&Self>,
    ) -> Self {
        let key = ConnectorKey {
            tenant: listener.tenant.clone(),
            name: listener.connector.clone(),
        };
        let limit = listener.max_connections.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        Self {
            config: listener.clone(),
            name: policy_name(&listener.tenant, listener.name.as_str()),
            text: Arc::from(listener.name.as_str()),
            connector: hub.connectors.entry(&key, &hub.metrics),
            times: config.flow_times(listener),
            proxy_protocol_out: config
                .connector(&listener.tenant, &listener.connector)
                .proxy_protocol_out,
            allow_cidrs: config.security.allow_cidrs.clone(),
            gate: earlier.map_or_else(|| Gate::new(limit), |earlier| Arc::clone(&earlier.gate)),
            flows: earlier.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.flows)),
            rate: Rate::new(listener.rate),
            rate_per_source: SourceRates::new(listener.rate_per_source),
            of_tunnel: earlier.is_some_and(|earlier| earlier.of_tunnel),
        }
    }

    /// The policies' row of this listener.
    pub(crate) fn facts(&self, port: u16) -> ListenerFacts {
        ListenerFacts {
            listener: self.name.clone(),
            port,
            protocol: "tcp".to_owned(),
        }
    }

    pub(crate) fn open_flows(&self) -> usize {
        self.flows.load(Ordering::Relaxed)
    }
}

/// Forgets listeners that are gone once nothing runs over them any more: a flow is asked about
/// again with its listener's row, so the row stays as long as the flow.
pub(crate) fn forget_retired(hub: &Hub) {
    let ports = hub.ports.lock().clone();
    let facts = hub.authorizer().facts();
    hub.retired.lock().retain(|rules| {
        let named_again = ports.iter().any(|port| port.rules().name == rules.name);
        let in_use = rules.open_flows() > 0;
        if !named_again && !in_use {
            facts.remove_listener(&rules.name);
        }
        !named_again && in_use
    });
}

impl Port {
    /// Binds the listener's port; nobody is accepted before [`serve`](Self::serve).
    ///
    /// # Errors
    /// The address is taken, not ours, or needs a right that we lack.
    pub(crate) fn bind(rules: Rules) -> io::Result<Arc<Self>> {
        let port = Self::reserve(rules, false)?;
        port.listen()?;
        Ok(port)
    }

    /// Takes the listener's port without letting clients connect; `beside` says that a port of
    /// ours that [`shares`](Self::share) its number has to give way to this one.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub(crate) fn reserve(rules: Rules, beside: bool) -> io::Result<Arc<Self>> {
        let socket = reserve(rules.config.bind, beside)?;
        let address = socket.local_addr()?;
        Ok(Arc::new(Self {
            socket: Mutex::new(Some(Arc::new(socket))),
            address,
            rules: ArcSwap::from_pointee(rules),
            home: watch::channel(None).0,
            stop: watch::channel(false).0,
        }))
    }

    /// Lets clients connect; they wait until somebody [`serve`](Self::serve)s them.
    ///
    /// # Errors
    /// Somebody else began to listen there meanwhile.
    pub(crate) fn listen(&self) -> io::Result<()> {
        let backlog = i32::try_from(self.rules().config.backlog).unwrap_or(i32::MAX);
        match &*self.socket.lock() {
            Some(socket) => SockRef::from(socket.as_ref()).listen(backlog),
            None => Ok(()),
        }
    }

    /// Whether another port of this process may be bound over this one. Only while one takes the
    /// place of the other: a second hub must not get at our clients without a word.
    pub(crate) fn share(&self, shared: bool) -> io::Result<()> {
        match &*self.socket.lock() {
            Some(socket) => SockRef::from(socket.as_ref()).set_reuse_port(shared),
            None => Ok(()),
        }
    }

    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Other rules for clients that come from now on.
    pub(crate) fn set_rules(&self, rules: Rules) {
        let limit = rules.config.max_connections.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        rules.gate.set_limit(limit);
        self.rules.store(Arc::new(rules));
    }

    /// Whether it takes no clients although nobody has stopped it.
    pub(crate) fn is_down(&self) -> bool {
        !*self.stop.borrow() && self.socket.lock().is_none()
    }

    /// Stops accepting. Its flows live on.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Accepts clients on one of the workers until stopped or draining.
    pub(crate) fn serve(self: &Arc<Self>, hub: &Arc<Hub>) {
        let rules = self.rules();
        info!(
            event = events::LISTENER_STARTED,
            listener = %rules.text,
            address = %self.address,
            connector = %rules.connector.key,
            "a listener accepts clients"
        );
        self.move_to_tunnel(hub);
        self.settle(hub);
    }

    /// Accepts from now on where the only tunnel of the connector is driven, if there is only
    /// one: a client's socket is then handed over without waking another thread.
    pub(crate) fn move_to_tunnel(&self, hub: &Hub) {
        let pool = hub.router().pool(&self.rules().connector.key);
        let worker = pool.and_then(|pool| pool.only().and_then(|tunnel| tunnel.worker));
        if worker.is_some() {
            self.home.send_replace(worker);
        }
    }

    fn settle(self: &Arc<Self>, hub: &Arc<Hub>) {
        let (port, shared) = (Arc::clone(self), Arc::clone(hub));
        let home = *self.home.borrow();
        let make = move || async move { port.accept_clients(shared).await };
        let started = hub.workers().is_some_and(|workers| match home {
            Some(home) => workers.spawn_on(home, make).is_ok(),
            None => workers.spawn(make).is_ok(),
        });
        if !started {
            // Clients are refused at once, and `/readyz` says so: they would wait in vain.
            *self.socket.lock() = None;
            warn!(listener = %self.rules().text, "no worker takes a listener");
        }
    }

    async fn accept_clients(self: Arc<Self>, hub: Arc<Hub>) {
        let mut stop = self.stop.subscribe();
        let mut home = self.home.subscribe();
        let mut phase = hub.phase();
        let here = WorkerId::current();
        tokio::select! {
            () = self.accept_loop(&hub) => {}
            _ = home.wait_for(|home| home.is_some() && *home != here) => {
                return self.settle(&hub);
            }
            _ = stop.wait_for(|stopped| *stopped) => self.accept_last(&hub),
            () = phase.draining() => {}
        }
        *self.socket.lock() = None;
        info!(
            event = events::LISTENER_STOPPED,
            listener = %self.rules().text,
            "a listener accepts no more clients"
        );
    }

    /// Takes in who connected before the port was given up: closing the socket would reset them.
    fn accept_last(&self, hub: &Arc<Hub>) {
        let Some(socket) = self.socket.lock().clone() else {
            return;
        };
        let rules = self.rules();
        // Ends with the backlog; beyond the bounds on number nobody is taken in.
        while let (Some(in_all), Some(here)) = (
            hub.connections.pass().now_or_never(),
            rules.gate.pass().now_or_never(),
        ) {
            let Ok((stream, peer)) = socket.accept() else {
                return;
            };
            let place = Place {
                _in_all: in_all,
                _here: here,
            };
            start(
                Client::new(Arc::clone(hub), Arc::clone(&rules), peer, place),
                stream,
            );
        }
    }

    async fn accept_loop(self: &Arc<Self>, hub: &Arc<Hub>) {
        let Some(socket) = self.socket.lock().clone() else {
            return;
        };
        #[expect(
            deprecated,
            reason = "its replacement is unsafe code; an `Arc<TcpListener>` keeps one descriptor open for its life, which is what the warning is about"
        )]
        let watched = AsyncFd::new(socket);
        let socket = match watched {
            Ok(socket) => socket,
            Err(error) => return warn!(%error, "a listener cannot be watched"),
        };
        let mut pause = ACCEPT_PAUSE;
        for turn in 1_u64.. {
            if turn % CLIENTS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
            // Only where a client waits: a listener without clients would hold a place that
            // another one's client needs.
            let mut ready = match socket.readable().await {
                Ok(ready) => ready,
                Err(error) => return warn!(%error, "a listener cannot be watched"),
            };
            let rules = self.rules();
            let place = Place {
                _in_all: hub.connections.pass().await,
                _here: rules.gate.pass().await,
            };
            let Ok(accepted) = ready.try_io(|socket| socket.get_ref().accept()) else {
                continue;
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSE;
                    // What was waited for may have been a while: the rules in force count.
                    let client = Client::new(Arc::clone(hub), self.rules(), peer, place);
                    start(client, stream);
                }
                Err(error) if is_of_one_client(&error) => {
                    rules.connector.metrics.accept_error();
                    debug!(%error, "a client left before it was accepted");
                }
                Err(error) => {
                    rules.connector.metrics.accept_error();
                    warn!(listener = %rules.text, %error, "accepting clients failed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
    }
}

/// Mostly a client's flow starts without waiting for anything, and then it needs no task.
fn start(client: Client, stream: TcpStream) {
    let mut starting = Box::pin(client.begin(stream));
    let mut unwoken = std::task::Context::from_waker(std::task::Waker::noop());
    match starting.as_mut().poll(&mut unwoken) {
        Poll::Ready(()) => {}
        // Polled again by its own task, which registers its own waker.
        Poll::Pending => drop(tokio::task::spawn_local(starting)),
    }
}

fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Binds a TCP port for a listener.
pub(crate) fn reserve(address: SocketAddr, beside: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // `[::]` is meant for both families where the system has both.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    if beside {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
