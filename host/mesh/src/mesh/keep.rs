//! Keeps a link to one address: dials while there is none, and renews it before a certificate
//! ends.

use std::sync::Arc;
use std::time::Duration;

use nowconnect_protocol::ReplicaId;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::run::Entered;
use super::{Inner, nap, wall_clock};
use crate::address::PeerUrl;
use crate::backoff::Backoff;
use crate::close::CloseCode;
use crate::dial::{self, DialError};
use crate::handshake::{self, HelloError};
use crate::limits::OWN_ADDRESS_PAUSE;
use crate::observer::LinkState;

/// What an address needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// A link.
    Link,
    /// A link in the place of the one that stands.
    Renewal,
    /// Nothing, before the wall clock shows this time or something changes.
    Nothing(Option<i64>),
}

/// How a dial went.
enum Outcome {
    /// A link stands, or stood.
    Linked,
    /// The link that stands already stays.
    Duplicate,
    Failed(DialError),
}

/// Runs until it is aborted.
pub(super) async fn keep(inner: Arc<Inner>, url: PeerUrl) {
    let mut backoff = Backoff::default();
    let mut changed = inner.changed.subscribe();
    let mut stood_since: Option<Instant> = None;
    loop {
        changed.borrow_and_update();
        match need(&inner, &url) {
            Need::Nothing(until) => {
                if stood_since.is_none() && is_linked(&inner, &url) {
                    stood_since = Some(Instant::now());
                }
                tokio::select! {
                    told = changed.changed() => if told.is_err() { return },
                    () = until_wall(until) => {}
                }
            }
            Need::Link => {
                if let Some(since) = stood_since.take() {
                    // However orderly it ended, the peer is likely to be restarting.
                    backoff.link_ended(since.elapsed());
                    pause(&inner, &url, &mut backoff, None).await;
                    continue;
                }
                inner.change(|table| {
                    if let Some(target) = table.target_mut(&url) {
                        target.state = LinkState::Connecting;
                    }
                });
                match attempt(&inner, &url).await {
                    Outcome::Linked => stood_since = Some(Instant::now()),
                    // Theirs is about to be known here; or it is dead, and will be missed.
                    Outcome::Duplicate => pause(&inner, &url, &mut backoff, None).await,
                    Outcome::Failed(error) => pause(&inner, &url, &mut backoff, Some(error)).await,
                }
            }
            Need::Renewal => {
                // Of a renewal that led nowhere the next comes after half of what is left.
                inner.change(|table| table.postpone(&url, wall_clock()));
                match attempt(&inner, &url).await {
                    Outcome::Linked => stood_since = Some(Instant::now()),
                    Outcome::Duplicate => {}
                    Outcome::Failed(error) => {
                        warn!(%url, code = error.code(), %error, "a link was not renewed");
                    }
                }
            }
        }
    }
}

fn is_linked(inner: &Inner, url: &PeerUrl) -> bool {
    inner.table.lock().link_of(url).is_some()
}

fn need(inner: &Inner, url: &PeerUrl) -> Need {
    if inner.is_shut() {
        return Need::Nothing(None);
    }
    let table = inner.table.lock();
    match table.link_of(url) {
        None => Need::Link,
        Some(link) if link.address.as_ref() != Some(url) => Need::Nothing(None),
        Some(link) => match link.renew_at {
            Some(at) if wall_clock() >= at => Need::Renewal,
            at => Need::Nothing(at),
        },
    }
}

async fn until_wall(until: Option<i64>) {
    match until {
        // At least a moment, as whole seconds are compared.
        Some(until) => sleep(nap(until).max(Duration::from_millis(50))).await,
        None => std::future::pending().await,
    }
}

/// Dials once, and has the link served beside.
async fn attempt(inner: &Arc<Inner>, url: &PeerUrl) -> Outcome {
    let within = inner.settings().handshake_timeout;
    match timeout(within, dial_once(inner, url)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failed(DialError::Timeout { within }),
    }
}

async fn dial_once(inner: &Arc<Inner>, url: &PeerUrl) -> Outcome {
    let settings = inner.settings();
    if settings.require_proof && !url.tls() {
        return Outcome::Failed(DialError::Plain {
            url: url.to_string(),
        });
    }
    let loaded = settings.credentials.clone();
    let (mut ws, session, remote) = match dial::open(url, loaded.as_deref()).await {
        Ok(opened) => opened,
        Err(error) => return Outcome::Failed(error),
    };
    let expected = {
        let table = inner.table.lock();
        table
            .target(url)
            .and_then(|target| target.wanted.expected.clone())
    };
    let me = inner.speaker(&settings, loaded.as_deref());
    let known = match handshake::dial(&mut ws, &me, session.as_ref(), expected.as_ref()).await {
        Ok(known) => known,
        Err(HelloError::Refused {
            code: CloseCode::Duplicate,
        }) => return Outcome::Duplicate,
        Err(error) => {
            if let Some(code) = error.close_code() {
                handshake::refuse(&mut ws, code).await;
            }
            return Outcome::Failed(error.into());
        }
    };
    let Some(entered) = Entered::enter(inner, &known, Some(url), loaded.as_deref()) else {
        remember(inner, url, &known.theirs.replica);
        handshake::refuse(&mut ws, CloseCode::Duplicate).await;
        return Outcome::Duplicate;
    };
    let links = inner.table.lock().target(url).map(|target| target.links);
    if links.is_some_and(|links| links > 1) {
        inner.observer.reconnected(known.theirs.replica.as_str());
    }
    let link = async move {
        entered.serve(ws, known, (true, remote)).await;
    };
    // Where the supervisor is gone the link is dropped, and so leaves the table.
    let _ = inner.spawn.send(Box::pin(link)).await;
    Outcome::Linked
}

/// Who is behind an address whose link lost against another one.
fn remember(inner: &Inner, url: &PeerUrl, peer: &ReplicaId) {
    inner.change(|table| {
        if let Some(target) = table.target_mut(url) {
            target.replica = Some(peer.clone());
        }
    });
}

/// Waits before the next dial, unless a link comes from the other side meanwhile.
async fn pause(inner: &Inner, url: &PeerUrl, backoff: &mut Backoff, failed: Option<DialError>) {
    let cap = inner.settings().connect_backoff_max;
    let is_own = matches!(failed, Some(DialError::Hello(HelloError::OwnAddress)));
    let (pause, state) = if is_own {
        (OWN_ADDRESS_PAUSE, LinkState::Closed)
    } else {
        let pause = backoff.next_pause(cap, rand::random());
        (pause, LinkState::Backoff)
    };
    let peer = inner.change(|table| {
        let target = table.target_mut(url)?;
        target.state = state;
        if let Some(error) = &failed {
            target.failures = target.failures.saturating_add(1);
            target.last_error = Some(error.to_string());
        }
        Some(match &target.replica {
            Some(replica) => replica.to_string(),
            None => url.authority(),
        })
    });
    if let (Some(error), Some(peer)) = (failed, peer) {
        tell(inner, url, &peer, &error, backoff.failures(), pause);
    }
    let mut changed = inner.changed.subscribe();
    let arrives = async {
        while !is_linked(inner, url) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = sleep(pause) => {}
        () = arrives => {}
    }
}

/// The first failures in a row are told, then ever fewer of them.
fn tell(
    inner: &Inner,
    url: &PeerUrl,
    peer: &str,
    error: &DialError,
    failures: u32,
    pause: Duration,
) {
    let (code, pause_ms) = (error.code(), pause.as_millis());
    if matches!(error, DialError::Hello(HelloError::OwnAddress)) {
        info!(%url, code, "{error}");
        return;
    }
    inner.observer.failed(peer, code);
    if failures.is_power_of_two() {
        warn!(event = "mesh_dial_failed", %url, code, failures, pause_ms, "no link: {error}");
    } else {
        debug!(event = "mesh_dial_failed", %url, code, failures, pause_ms, "no link: {error}");
    }
}
