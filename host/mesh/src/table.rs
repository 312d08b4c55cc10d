//! Which links stand, whom this hub dials, and what an operator sees of both.

use std::collections::BTreeMap;

use nowconnect_protocol::ReplicaId;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::address::PeerUrl;
use crate::choice::{Contender, replaces};
use crate::close::CloseCode;
use crate::limits::{FORGET_AFTER, MAX_PEERS};
use crate::observer::{LinkState, PeerSource, PeerView};
use crate::peers::Wanted;

/// A link that stands.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) contender: Contender,
    /// Tells whoever serves it to end it.
    pub(crate) end: watch::Sender<Option<CloseCode>>,
    /// The address that this hub dialled.
    pub(crate) address: Option<PeerUrl>,
    pub(crate) version: u16,
    pub(crate) proven: bool,
    /// The end of the first certificate of either hub, in seconds since 1970.
    pub(crate) not_after: Option<i64>,
    /// When to renew it, in seconds since 1970.
    pub(crate) renew_at: Option<i64>,
    /// What the peer proved itself with.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// An address that is dialled.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) wanted: Wanted,
    /// Who was there last, or should be.
    pub(crate) replica: Option<ReplicaId>,
    pub(crate) state: LinkState,
    pub(crate) failures: u32,
    pub(crate) last_error: Option<String>,
    /// Links through this address so far.
    pub(crate) links: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    links: BTreeMap<ReplicaId, (u64, Standing)>,
    targets: BTreeMap<PeerUrl, Target>,
    /// Peers whose link ended and that nobody dials.
    gone: BTreeMap<ReplicaId, (Instant, String)>,
    next_id: u64,
}

impl Table {
    /// Lets a link in, where it does not lose against the one that stands. Gives its number, and
    /// the link whose place it took.
    pub(crate) fn enter(
        &mut self,
        me: &ReplicaId,
        peer: &ReplicaId,
        link: Standing,
    ) -> Option<(u64, Option<Standing>)> {
        if let Some((_, standing)) = self.links.get(peer)
            && !replaces(me, peer, &standing.contender, &link.contender)
        {
            return None;
        }
        self.next_id += 1;
        self.gone.remove(peer);
        let replaced = self.links.insert(peer.clone(), (self.next_id, link));
        Some((self.next_id, replaced.map(|(_, standing)| standing)))
    }

    /// A link ended. `true` where it was the one that stood.
    pub(crate) fn leave(&mut self, peer: &ReplicaId, id: u64, now: Instant, why: String) -> bool {
        if self
            .links
            .get(peer)
            .is_none_or(|(standing, _)| *standing != id)
        {
            return false;
        }
        self.links.remove(peer);
        if self.gone.len() < MAX_PEERS {
            self.gone.insert(peer.clone(), (now, why));
        }
        true
    }

    pub(crate) fn link(&self, peer: &ReplicaId) -> Option<&Standing> {
        self.links.get(peer).map(|(_, standing)| standing)
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = (&ReplicaId, &Standing)> {
        self.links
            .iter()
            .map(|(peer, (_, standing))| (peer, standing))
    }

    /// Takes over whom to dial. Gives what is new and what is no more.
    pub(crate) fn retarget(
        &mut self,
        wanted: BTreeMap<PeerUrl, Wanted>,
    ) -> (Vec<PeerUrl>, Vec<PeerUrl>) {
        let left: Vec<PeerUrl> = self
            .targets
            .iter()
            .filter(|(url, target)| wanted.get(*url) != Some(&target.wanted))
            .map(|(url, _)| url.clone())
            .collect();
        for url in &left {
            self.targets.remove(url);
        }
        let mut new = Vec::new();
        for (url, wanted) in wanted {
            if self.targets.contains_key(&url) {
                continue;
            }
            new.push(url.clone());
            let target = Target {
                replica: wanted.expected.clone(),
                wanted,
                state: LinkState::Connecting,
                failures: 0,
                last_error: None,
                links: 0,
            };
            self.targets.insert(url, target);
        }
        (new, left)
    }

    pub(crate) fn target(&self, url: &PeerUrl) -> Option<&Target> {
        self.targets.get(url)
    }

    pub(crate) fn target_mut(&mut self, url: &PeerUrl) -> Option<&mut Target> {
        self.targets.get_mut(url)
    }

    /// The link to whoever was at this address last.
    pub(crate) fn link_of(&self, url: &PeerUrl) -> Option<&Standing> {
        self.link(self.targets.get(url)?.replica.as_ref()?)
    }

    /// Puts off the renewal of a link by half of what is left, at least by a second.
    pub(crate) fn postpone(&mut self, url: &PeerUrl, now: i64) {
        let links = self.links.values_mut().map(|(_, link)| link);
        for link in links.filter(|link| link.address.as_ref() == Some(url)) {
            if let Some(not_after) = link.not_after {
                link.renew_at = Some(now + (not_after.saturating_sub(now) / 2).max(1));
            }
        }
    }

    /// Forgets peers that have been gone for long.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.gone
            .retain(|_, (since, _)| now.saturating_duration_since(*since) < FORGET_AFTER);
    }

    /// All peers, each once, in the order of their names.
    pub(crate) fn view(&self) -> Vec<PeerView> {
        let mut views: BTreeMap<String, PeerView> = BTreeMap::new();
        for (peer, standing) in self.links() {
            views.insert(peer.to_string(), self.link_view(peer, standing));
        }
        for (url, target) in &self.targets {
            let view = target_view(url, target);
            let known = views.get(&view.peer);
            if known.is_none_or(|known| known.state < view.state) {
                views.insert(view.peer.clone(), view);
            }
        }
        for (peer, (_, why)) in &self.gone {
            views.entry(peer.to_string()).or_insert_with(|| PeerView {
                last_error: Some(why.clone()),
                ..blank(peer.to_string(), PeerSource::Arrived)
            });
        }
        views.into_values().collect()
    }

    fn link_view(&self, peer: &ReplicaId, standing: &Standing) -> PeerView {
        let dialled = standing.address.as_ref();
        let through = dialled.and_then(|url| self.targets.get(url));
        let target = through.or_else(|| {
            let mut targets = self.targets.values();
            targets.find(|target| target.replica.as_ref() == Some(peer))
        });
        PeerView {
            replica: Some(peer.clone()),
            address: dialled.map(ToString::to_string),
            state: LinkState::Established,
            dialled: Some(standing.contender.dialled),
            version: Some(standing.version),
            proven: Some(standing.proven),
            not_after: standing.not_after,
            last_error: target.and_then(|target| target.last_error.clone()),
            ..blank(
                peer.to_string(),
                target.map_or(PeerSource::Arrived, |target| target.wanted.source),
            )
        }
    }
}

fn target_view(url: &PeerUrl, target: &Target) -> PeerView {
    let peer = match &target.replica {
        Some(replica) => replica.to_string(),
        None => url.authority(),
    };
    PeerView {
        replica: target.replica.clone(),
        address: Some(url.to_string()),
        state: target.state,
        failures: target.failures,
        last_error: target.last_error.clone(),
        ..blank(peer, target.wanted.source)
    }
}

fn blank(peer: String, source: PeerSource) -> PeerView {
    PeerView {
        peer,
        replica: None,
        address: None,
        source,
        state: LinkState::Closed,
        dialled: None,
        version: None,
        proven: None,
        not_after: None,
        failures: 0,
        last_error: None,
    }
}
