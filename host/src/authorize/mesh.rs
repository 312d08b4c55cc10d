//! Whether another hub may link to this one.

use std::net::SocketAddr;
use std::sync::Arc;

use nowconnect_policy::{MeshJoin, Name, Question};
use nowconnect_protocol::ReplicaId;

use super::record::Draft;
use super::{Asking, Authorizer, Denial, Refused, net};
use crate::telemetry::decisions::DecisionAction;

/// What links come in by, in policies.
pub(crate) const MESH_LISTENER: &str = "mesh";

impl Authorizer {
    /// Asks the policies whether a hub may link, whichever of the two dialled.
    ///
    /// # Errors
    /// The policies do not allow it.
    pub(crate) fn mesh_join(&self, peer: &ReplicaId, from: SocketAddr) -> Result<(), Denial> {
        let mut asking = Asking::begin(self);
        let question = Arc::new(Question::MeshJoin(MeshJoin {
            net: net(from, Name::bare(MESH_LISTENER)),
            meta: self.meta(asking.now, &asking.request_id),
            peer: Arc::from(peer.as_str()),
        }));
        let decision = asking.generation.policies().decide(&self.facts, &question);
        asking.policy_time = decision.took;
        self.shadow.saw(
            DecisionAction::MeshJoin,
            asking.id,
            &asking.generation,
            &question,
            &decision,
        );
        let draft = Draft::new(self, &asking, DecisionAction::MeshJoin)
            .principal("Node", peer.as_str())
            .resource("Node", &self.hub)
            .client(from)
            .question(&question)
            .policies(&decision);
        if decision.allow {
            draft.allow();
            return Ok(());
        }
        let refused = Refused::by_policy(&decision);
        draft.deny(&refused);
        Err(refused.into_denial(asking.id))
    }
}
