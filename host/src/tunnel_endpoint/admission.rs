//! Bounds on peers that have not proven who they are.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::TunnelConfig;
use crate::hub::Hub;
use crate::limit::{Slot, Slots, SourceRates, SourceSlot, SourceSlots};

/// How many peers that are over a bound are told so at a time; further ones are just closed.
const TURNED_AWAY_AT_ONCE: usize = 64;

/// How long telling one takes at most.
const TURN_AWAY_WITHIN: Duration = Duration::from_millis(500);

/// What bounds handshakes. Rebuilt when its configuration changes; admissions of the earlier one
/// stay counted there until they end.
#[derive(Debug)]
pub(crate) struct Admissions {
    at_once: Arc<Slots>,
    per_source: Arc<SourceSlots>,
    rates: SourceRates,
    trusted_ingress: Vec<IpNet>,
    turned_away: Arc<Slots>,
}

/// Leave to be unproven for a while; ends when the HELLO is accepted, or with the connection.
#[derive(Debug)]
pub(crate) struct Admission {
    bounds: Arc<Admissions>,
    slot: Option<Slot>,
    source: Option<SourceSlot>,
    trusted: bool,
    began: Instant,
}

/// Which bound was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crowded {
    /// Too many handshakes in all.
    AtOnce,
    /// Too many at once from this source.
    FromSource,
    /// Too many in a second from this source.
    Rate,
}

impl Crowded {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AtOnce => "at_once",
            Self::FromSource => "per_source",
            Self::Rate => "rate",
        }
    }
}

impl Admissions {
    pub(crate) fn new(config: &TunnelConfig) -> Arc<Self> {
        let bound = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        let handshake = &config.handshake;
        Arc::new(Self {
            at_once: Slots::new(bound(handshake.max_concurrent)),
            per_source: SourceSlots::new(bound(handshake.max_per_source)),
            rates: SourceRates::new(Some(handshake.rate_per_source)),
            trusted_ingress: config.trusted_ingress.clone(),
            turned_away: Slots::new(TURNED_AWAY_AT_ONCE),
        })
    }

    /// Counts a fresh connection. Behind a trusted ingress all agents share its address, so the
    /// bounds for each source wait there until the forwarded address was read.
    pub(crate) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        now: Duration,
    ) -> Result<Admission, Crowded> {
        let slot = self.at_once.take().ok_or(Crowded::AtOnce)?;
        let trusted = self.trusts(peer);
        let mut admission = Admission {
            bounds: Arc::clone(self),
            slot: Some(slot),
            source: None,
            trusted,
            began: Instant::now(),
        };
        if !trusted {
            admission.count_source(peer, now)?;
        }
        Ok(admission)
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_ingress.iter().any(|net| net.contains(&peer))
    }
}

impl Admission {
    /// When the connection was accepted.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// What the request handling needs of it.
    pub(crate) fn source(&self) -> SourceCheck {
        SourceCheck {
            bounds: Arc::clone(&self.bounds),
            trusted: self.trusted,
            slot: RefCell::default(),
        }
    }

    fn count_source(&mut self, source: IpAddr, now: Duration) -> Result<(), Crowded> {
        if !self.bounds.rates.allows(source, now) {
            return Err(Crowded::Rate);
        }
        let slot = self.bounds.per_source.take(source);
        self.source = Some(slot.ok_or(Crowded::FromSource)?);
        Ok(())
    }

    /// The token is proven: the source is no longer unknown, only HELLO is still to come.
    pub(crate) fn expect_hello(&mut self) {
        self.source = None;
    }

    /// HELLO was accepted.
    pub(crate) fn done(&mut self) {
        self.source = None;
        self.slot = None;
    }
}

/// The part of an [`Admission`] that reads forwarded addresses.
#[derive(Debug)]
pub(crate) struct SourceCheck {
    bounds: Arc<Admissions>,
    trusted: bool,
    /// The place of a source that came through a trusted ingress.
    slot: RefCell<Option<SourceSlot>>,
}

impl SourceCheck {
    /// The address that an agent dials from: the last hop in `X-Forwarded-For` that is not a
    /// trusted ingress itself, if the socket's peer is one; else the peer.
    pub(crate) fn agent_address(&self, peer: IpAddr, forwarded_for: Option<&str>) -> IpAddr {
        let Some(list) = forwarded_for.filter(|_| self.trusted) else {
            return peer;
        };
        let mut nearest = peer;
        for hop in list.rsplit(',') {
            // A hop that cannot be read was not written by an ingress that we trust.
            let Ok(address) = hop.trim().parse::<IpAddr>() else {
                return nearest;
            };
            nearest = address.to_canonical();
            if !self.bounds.trusts(nearest) {
                return nearest;
            }
        }
        nearest
    }

    /// Counts a source that came through a trusted ingress; others were counted when they came.
    pub(crate) fn admit(&self, source: IpAddr, now: Duration) -> Result<(), Crowded> {
        if !self.trusted {
            return Ok(());
        }
        if !self.bounds.rates.allows(source, now) {
            return Err(Crowded::Rate);
        }
        let slot = self.bounds.per_source.take(source);
        *self.slot.borrow_mut() = Some(slot.ok_or(Crowded::FromSource)?);
        Ok(())
    }

    /// The token was checked: the source is no longer unknown, or goes.
    pub(crate) fn done(&self) {
        self.slot.take();
    }
}

/// Tells a peer that is over a bound to come back later, if there is room for that, and closes.
pub(crate) fn turn_away(hub: &Arc<Hub>, mut stream: TcpStream, plain: bool) {
    // Before TLS there is nothing that the peer could read.
    if !plain {
        return;
    }
    let Some(slot) = hub.admissions().turned_away.take() else {
        return;
    };
    let retry_after_s = hub.config().tunnel.handshake.retry_after.as_secs().max(1);
    tokio::spawn(async move {
        let _slot = slot;
        let body = r#"{"code":"overloaded","message":"too many handshakes at the moment"}"#;
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: {retry_after_s}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let told = async {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            // Closing over unread bytes would reset the connection and take the answer with it.
            let mut rest = [0; 4096];
            while stream.read(&mut rest).await? > 0 {}
            Ok::<(), std::io::Error>(())
        };
        // It is closed either way.
        let _ = tokio::time::timeout(TURN_AWAY_WITHIN, told).await;
    });
}

#[cfg(test)]
mod tests;
