//! What the links tell the rest of the hub.

use std::fmt;
use std::sync::{Arc, Weak};

use nowconnect_mesh::{LinkState as State, PeerSource};
use nowconnect_registry::HaMode;

use crate::cluster::{MeshLinkStatus, MeshState};
use crate::hub::Hub;

/// The links of one hub, as the cluster asks about them.
pub(crate) struct LinkState(Weak<Hub>);

impl LinkState {
    /// Of this hub.
    pub(crate) fn of(hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self(Arc::downgrade(hub)))
    }
}

impl fmt::Debug for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkState")
    }
}

impl MeshState for LinkState {
    fn links(&self) -> Vec<MeshLinkStatus> {
        let Some(mesh) = self.0.upgrade().and_then(|hub| hub.links().mesh()) else {
            return Vec::new();
        };
        let views = mesh.peers().into_iter();
        views
            .map(|view| MeshLinkStatus {
                peer: view.peer,
                state: view.state.as_str().to_owned(),
                flows: 0,
                rtt_us: None,
            })
            .collect()
    }

    /// A hub that is present and not linked is missing. One that is configured and not present is
    /// down, and no fault of the mesh: it would take every other hub out of service with it.
    /// Where the registry names nobody, a configured peer has to be there for there to be a mesh.
    fn missing(&self) -> Option<String> {
        let hub = self.0.upgrade()?;
        let mesh = hub.links().mesh()?;
        let seen = hub.cluster().seen().borrow().clone();
        let unlinked: Vec<String> = seen
            .others
            .iter()
            .filter(|other| other.mode != HaMode::Off && !mesh.is_linked(&other.replica))
            .map(|other| other.replica.to_string())
            .collect();
        if !unlinked.is_empty() {
            return Some(format!("no link to {}", unlinked.join(", ")));
        }
        let views = mesh.peers();
        let mut configured = views
            .iter()
            .filter(|view| view.source == PeerSource::Configured && view.state != State::Closed);
        let has_link = views.iter().any(|view| view.state == State::Established);
        let waits = seen.others.is_empty() && !has_link && configured.next().is_some();
        waits.then(|| "no link to any configured peer".to_owned())
    }
}
