//! Tokens of the control plane at the tunnel port: each counts once.

use std::sync::Arc;

use nowconnect_control::ControlError;

use crate::codes::UpgradeCode;
use crate::hub::Hub;
use crate::identity::AgentIdentity;

/// Uses a proven token up, if it is the control plane's; others may be shown again.
///
/// # Errors
/// It was used before, is not the last one of its tunnel, or nobody can say now.
pub(crate) async fn once(hub: &Hub, identity: &AgentIdentity) -> Result<(), (UpgradeCode, String)> {
    let Some(plane) = hub.control().filter(|plane| plane.issued(identity)) else {
        return Ok(());
    };
    let (plane, identity) = (Arc::clone(plane), identity.clone());
    let used = hub
        .runtime
        .spawn_blocking(move || plane.admit(&identity))
        .await;
    match used {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err((code(&error), error.to_string())),
        Err(_) => Err((
            UpgradeCode::Overloaded,
            "the hub failed at looking at the token".to_owned(),
        )),
    }
}

fn code(error: &ControlError) -> UpgradeCode {
    match error {
        ControlError::Token(_) => UpgradeCode::TokenUsed,
        ControlError::Name(_)
        | ControlError::Claim(_)
        | ControlError::NotAnonymous
        | ControlError::NoPort { .. }
        | ControlError::BadClient
        | ControlError::Delete(_)
        | ControlError::Key(_)
        | ControlError::Store(_) => UpgradeCode::Overloaded,
    }
}
