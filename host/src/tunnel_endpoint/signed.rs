//! Signed upgrades: checked once the token is proven, and used up.

use std::sync::Arc;
use std::time::Duration;

use nowconnect_control::SignedError;
use nowconnect_registry::{self as registry, OnceKind};
use nowconnect_store::{Once, Used};

use crate::codes::UpgradeCode;
use crate::hub::{Hub, now_ms};
use crate::identity::{AgentIdentity, Authenticator, Nonce, PresentedToken, SignatureRefused};
use crate::telemetry::rfc3339_ms;

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
    let here = nonce.clone();
    let used = hub.runtime.spawn_blocking(move || {
        store.use_once(Once::Nonce, &here.id, now_ms(), here.until_ms, MAX_NONCES)
    });
    match used.await {
        Ok(Ok(Used::First)) => use_up_at_all_hubs(hub, &nonce).await,
        Ok(Ok(Used::Again)) => Err(SignedError::Replayed),
        Ok(Ok(Used::Full) | Err(_)) | Err(_) => Err(SignedError::Overloaded),
    }
}

/// In a cluster a request could be sent to another hub the second time.
async fn use_up_at_all_hubs(hub: &Hub, nonce: &Nonce) -> Result<(), SignedError> {
    let cluster = hub.cluster();
    let Some(shared) = cluster.shared().filter(|_| cluster.is_active()) else {
        return Ok(());
    };
    let lives = Duration::from_millis(nonce.until_ms.saturating_sub(now_ms()).max(1));
    match shared.use_once(OnceKind::Nonce, &nonce.id, lives).await {
        Ok(registry::Used::First) => Ok(()),
        Ok(registry::Used::Again) => Err(SignedError::Replayed),
        Err(_) => Err(SignedError::Overloaded),
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
