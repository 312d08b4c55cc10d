//! Metrics of the links to other hubs.

use std::collections::BTreeSet;
use std::time::Duration;

use nowconnect_mesh::{LinkState, PeerView};
use parking_lot::Mutex;
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::label::{LabelCap, MAX_CODES, MAX_HUBS};
use super::registrar::Registrar;

/// Bounds of the round trip, in seconds: hubs stand in one region, and 20 ms is the objective.
const RTT_BUCKETS: [f64; 12] = [
    0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0,
];

/// Families of links.
#[derive(Debug)]
pub struct MeshMetrics {
    links: IntGaugeVec,
    reconnects: IntCounterVec,
    errors: IntCounterVec,
    refused: IntCounterVec,
    frames: IntCounterVec,
    round_trips: HistogramVec,
    drops: IntCounterVec,
    queue: IntGaugeVec,
    inflight: IntGaugeVec,
    peers: LabelCap,
    codes: LabelCap,
    reasons: LabelCap,
    /// Peers whose state was set last.
    shown: Mutex<BTreeSet<String>>,
}

/// Which way a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeshDirection {
    /// From a peer.
    In,
    /// To a peer.
    Out,
}

impl MeshMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        Self {
            links: families.gauges(
                "nowconnect_mesh_links",
                &["peer", "state"],
                "1 for the state of the link to another hub: connecting, established, backoff or closed.",
            ),
            reconnects: families.counters(
                "nowconnect_mesh_link_reconnects_total",
                &["peer"],
                "Links to another hub that were made again after one had stood.",
            ),
            errors: families.counters(
                "nowconnect_mesh_link_errors_total",
                &["peer"],
                "Dials of another hub that failed, and links to it that broke.",
            ),
            refused: families.counters(
                "nowconnect_mesh_refused_total",
                &["code"],
                "Connections to the port of the mesh that became no link, by code.",
            ),
            frames: families.counters(
                "nowconnect_mesh_frames_total",
                &["dir", "type"],
                "Frames on links, by direction (in, out) and type.",
            ),
            round_trips: families.histograms(
                "nowconnect_mesh_rtt_seconds",
                &["peer"],
                &RTT_BUCKETS,
                "Round trips to another hub.",
            ),
            drops: families.counters(
                "nowconnect_mesh_backpressure_drops_total",
                &["peer", "reason"],
                "What was not sent to another hub because a bound was met, by reason.",
            ),
            queue: families.gauges(
                "nowconnect_mesh_queue_frames",
                &["peer"],
                "Frames that wait to be written to a link.",
            ),
            inflight: families.gauges(
                "nowconnect_mesh_inflight_bytes",
                &["peer"],
                "Bytes written to a link and not yet received by the other hub.",
            ),
            peers: LabelCap::new(MAX_HUBS),
            codes: LabelCap::new(MAX_CODES),
            reasons: LabelCap::new(MAX_CODES),
            shown: Mutex::default(),
        }
    }

    /// Sets the state of every peer. Those that are not among them leave, with their gauges.
    pub fn set(&self, peers: &[PeerView]) {
        let mut shown = self.shown.lock();
        let mut now = BTreeSet::new();
        for view in peers {
            let peer = self.peers.admit(&view.peer);
            for state in LinkState::ALL {
                let here = i64::from(state == view.state);
                let link = self.links.with_label_values(&[peer, state.as_str()]);
                // Peers beyond the cap share a series, which counts them.
                match now.contains(peer) {
                    true => link.add(here),
                    false => link.set(here),
                }
            }
            now.insert(peer.to_owned());
        }
        for gone in shown.difference(&now) {
            for state in LinkState::ALL {
                // It is there: it was set.
                drop(self.links.remove_label_values(&[gone, state.as_str()]));
            }
            // These two only where the link carried something.
            drop(self.queue.remove_label_values(&[gone]));
            drop(self.inflight.remove_label_values(&[gone]));
        }
        *shown = now;
    }

    /// A link stands again.
    pub fn reconnected(&self, peer: &str) {
        let peer = self.peers.admit(peer);
        self.reconnects.with_label_values(&[peer]).inc();
    }

    /// A dial failed, or a link broke.
    pub fn failed(&self, peer: &str) {
        let peer = self.peers.admit(peer);
        self.errors.with_label_values(&[peer]).inc();
    }

    /// A connection became no link.
    pub fn refused(&self, code: &str) {
        let code = self.codes.admit(code);
        self.refused.with_label_values(&[code]).inc();
    }

    /// So many frames of a type went one way. `kind` is a constant of the protocol.
    pub fn frames(&self, direction: MeshDirection, kind: &'static str, count: u64) {
        let direction = match direction {
            MeshDirection::In => "in",
            MeshDirection::Out => "out",
        };
        self.frames
            .with_label_values(&[direction, kind])
            .inc_by(count);
    }

    /// A round trip was measured.
    pub fn round_trip(&self, peer: &str, took: Duration) {
        let peer = self.peers.admit(peer);
        self.round_trips
            .with_label_values(&[peer])
            .observe(took.as_secs_f64());
    }

    /// Something was not sent.
    pub fn dropped(&self, peer: &str, reason: &str, count: u64) {
        let labels = [self.peers.admit(peer), self.reasons.admit(reason)];
        self.drops.with_label_values(&labels).inc_by(count);
    }

    /// What waits on a link: frames in its queue, and bytes on their way.
    pub fn load(&self, peer: &str, queue_frames: usize, inflight_bytes: u64) {
        let peer = self.peers.admit(peer);
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.queue
            .with_label_values(&[peer])
            .set(whole(queue_frames as u64));
        self.inflight
            .with_label_values(&[peer])
            .set(whole(inflight_bytes));
    }
}

#[cfg(test)]
mod tests {
    use nowconnect_mesh::PeerSource;

    use super::super::Metrics;
    use super::*;

    fn view(peer: &str, state: LinkState) -> PeerView {
        PeerView {
            peer: peer.to_owned(),
            replica: None,
            address: None,
            source: PeerSource::Configured,
            state,
            dialled: None,
            version: None,
            proven: None,
            not_after: None,
            failures: 0,
            last_error: None,
        }
    }

    #[test]
    fn a_peer_is_in_one_state_and_leaves_with_all_of_its_gauges() {
        let metrics = Metrics::new();
        let mesh = &metrics.mesh;
        mesh.set(&[view("b", LinkState::Established)]);
        mesh.load("b", 3, 70_000);
        let page = metrics.render();
        for line in [
            "nowconnect_mesh_links{peer=\"b\",state=\"established\"} 1",
            "nowconnect_mesh_links{peer=\"b\",state=\"backoff\"} 0",
            "nowconnect_mesh_queue_frames{peer=\"b\"} 3",
            "nowconnect_mesh_inflight_bytes{peer=\"b\"} 70000",
        ] {
            assert!(page.contains(line), "{line}: {page}");
        }
        mesh.set(&[view("c", LinkState::Backoff)]);
        let page = metrics.render();
        assert!(!page.contains("peer=\"b\""), "{page}");
        assert!(page.contains("{peer=\"c\",state=\"backoff\"} 1"), "{page}");
    }

    #[test]
    fn peers_beyond_the_cap_share_a_series_that_counts_them() {
        let metrics = Metrics::new();
        let many: Vec<_> = (0..MAX_HUBS + 3)
            .map(|number| view(&format!("hub-{number:05}"), LinkState::Connecting))
            .collect();
        metrics.mesh.set(&many);
        let page = metrics.render();
        assert!(
            page.contains("nowconnect_mesh_links{peer=\"other\",state=\"connecting\"} 3"),
            "{page}"
        );
    }
}
