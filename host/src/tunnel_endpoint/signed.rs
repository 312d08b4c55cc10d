//! Signed upgrades: checked once the token is proven, and used up.

use std::sync::Arc;
use std::time::Duration;

use nowconnect_control::SignedError;
use nowconnect_store::{Once, Used};
use tracing::warn;

use crate::codes::UpgradeCode;
use crate::hub::{Hub, now_ms};
use crate::identity::{AgentIdentity, Authenticator, Nonce, PresentedToken, SignatureRefused};
use crate::registry::{self, OnceKind};
use crate::telemetry::{events, rfc3339_ms};

/// Nonces that are remembered: of 65,536 agents one each in the longest window, with some of them
/// dialling again.
const MAX_NONCES: u64 = 100_000;

/// Checks the signature, and that the request was not seen before.
///
/// # Errors
/// It is missing where it has to be, wrong, too old, or used; or nobody can say now.
pub(super) async fn check(
    hub: &Hub,
    authenticator: &Authenticator,
    identity: &AgentIdentity,
    presented: &PresentedToken,
) -> Result<(), (UpgradeCode, String)> {
    let refused = |error: SignatureRefused| (code(error), sentence(error));
    let nonce = authenticator
        .check_signature(identity, presented.signed.as_deref())
        .map_err(refused)?;
    match nonce {
        Some(nonce) => use_up(hub, nonce)
            .await
            .map_err(|error| refused(error.into())),
        None => Ok(()),
    }
}

/// Whatever cannot be remembered as used is not taken.
async fn use_up(hub: &Hub, nonce: Nonce) -> Result<(), SignedError> {
    let store = Arc::clone(&hub.nonces);
    let (id, until_ms) = (nonce.id.clone(), nonce.until_ms);
    let used = hub
        .runtime
        .spawn_blocking(move || store.use_once(Once::Nonce, &id, now_ms(), until_ms, MAX_NONCES));
    match used.await {
        Ok(Ok(Used::First)) => use_up_elsewhere(hub, &nonce).await,
        Ok(Ok(Used::Again)) => Err(SignedError::Replayed),
        Ok(Ok(Used::Full) | Err(_)) | Err(_) => Err(SignedError::Overloaded),
    }
}

/// Whoever signed with the right secret may know the hub's time, to tell which clock is wrong.
fn sentence(error: SignatureRefused) -> String {
    let SignatureRefused::Signed(SignedError::Stale { sent_at, now }) = error else {
        return error.to_string();
    };
    let at = |seconds: u64| rfc3339_ms(seconds.saturating_mul(1000));
    format!(
        "the request is of {} and the hub's clock says {}, {} s apart",
        at(sent_at),
        at(now),
        now.abs_diff(sent_at)
    )
}

/// The same over all hubs of the cluster. While the registry is away a nonce counts once at each
/// hub: agents get in where they come, and whoever plays one again needs the token beside it, and a
/// hub that has not seen it, within the time for which it is good.
async fn use_up_elsewhere(hub: &Hub, nonce: &Nonce) -> Result<(), SignedError> {
    let Some(shared) = hub.cluster().shared() else {
        return Ok(());
    };
    let left = Duration::from_millis(nonce.until_ms.saturating_sub(now_ms()).max(1));
    let used = shared.use_once(OnceKind::Nonce, &nonce.id, left).await;
    match used {
        Ok(registry::Used::First) => Ok(()),
        Ok(registry::Used::Again) => Err(SignedError::Replayed),
        Err(error) => {
            warn!(
                target: events::SECURITY,
                event = events::REPLAY_UNCHECKED,
                %error,
                "a signed upgrade was compared with those of this hub alone"
            );
            Ok(())
        }
    }
}

fn code(error: SignatureRefused) -> UpgradeCode {
    match error {
        SignatureRefused::Missing => UpgradeCode::SignatureMissing,
        SignatureRefused::Signed(SignedError::Malformed(_)) => UpgradeCode::TokenMalformed,
        SignatureRefused::Signed(SignedError::BadSignature) => UpgradeCode::SignatureWrong,
        SignatureRefused::Signed(SignedError::Stale { .. }) => UpgradeCode::SignatureStale,
        SignatureRefused::Signed(SignedError::Replayed) => UpgradeCode::SignatureReplayed,
        SignatureRefused::Signed(SignedError::Overloaded) => UpgradeCode::Overloaded,
    }
}
