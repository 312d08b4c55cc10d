//! One certificate: from the order to the chain.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use nowconnect_store::{IssuedCertificate, Store};
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::account::in_store;
use super::challenge::{Challenges, Offer};
use super::client::heeding_waits;
use super::trouble::Trouble;
use crate::codes::CertificateCode;
use crate::config::ChallengeKind;
use crate::hub::now_ms;
use crate::tls;

/// How long an authority may take to look at a name, or to issue.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(60));

/// How long an order may take in all.
const ORDER_TIMEOUT: Duration = Duration::from_secs(180);

/// A certificate that handshakes can use.
#[derive(Clone)]
pub(super) struct Fresh {
    pub(super) key: Arc<CertifiedKey>,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    /// Seconds since 1970.
    pub(super) not_after: i64,
}

/// What is asked for.
pub(super) struct Wanted {
    pub(super) name: Arc<str>,
    /// Tried first; where the authority does not offer it, another that it does.
    pub(super) challenges: Vec<ChallengeKind>,
    /// The certificate that it takes the place of, where the authority wants to know.
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
    /// Certificates that are kept at most.
    pub(super) max_kept: usize,
}

/// Orders a certificate. It is in the store when this returns it; if the store fails, what it
/// says comes beside it.
///
/// # Errors
/// The authority refuses, sees something else behind the name, or cannot be reached.
pub(super) async fn order(
    account: &Account,
    wanted: &Wanted,
    directory: &str,
    answers: &Arc<Challenges>,
    store: &Arc<Store>,
) -> Result<(Fresh, Option<Trouble>), Trouble> {
    let ordered = heeding_waits(order_now(account, wanted, answers));
    let (chain, key) = match tokio::time::timeout(ORDER_TIMEOUT, ordered).await {
        Ok(ordered) => ordered?,
        Err(_) => {
            return Err(Trouble::new(
                CertificateCode::AcmeTimeout,
                format!("the order took longer than {} s", ORDER_TIMEOUT.as_secs()),
            ));
        }
    };
    let fresh = usable(&wanted.name, &chain, &key, SystemTime::now())?;
    let issued = IssuedCertificate {
        name: wanted.name.to_string(),
        directory: directory.to_owned(),
        chain,
        key,
        not_after: fresh.not_after,
        issued_ms: now_ms(),
    };
    let max_kept = wanted.max_kept;
    let kept = in_store(store, move |store| store.put_certificate(&issued, max_kept)).await;
    Ok((fresh, kept.err()))
}

/// Chain and key as PEM.
async fn order_now(
    account: &Account,
    wanted: &Wanted,
    answers: &Arc<Challenges>,
) -> Result<(String, String), Trouble> {
    let identifiers = [Identifier::Dns(wanted.name.to_string())];
    let mut asked = NewOrder::new(&identifiers);
    if let Some(replaces) = &wanted.replaces {
        asked = asked.replaces(replaces.clone());
    }
    let mut order = account.new_order(&asked).await.map_err(Trouble::of)?;
    let offers = offer(&mut order, wanted, answers).await?;
    let seen = order.poll_ready(&POLL).await;
    drop(offers);
    match seen {
        Ok(OrderStatus::Ready) => {}
        Ok(_) | Err(Error::Api(_)) => return Err(not_validated(&mut order, seen.err()).await),
        Err(error) => return Err(Trouble::of(error)),
    }
    let key = order.finalize().await.map_err(Trouble::of)?;
    let chain = order.poll_certificate(&POLL).await.map_err(Trouble::of)?;
    Ok((chain, key))
}

/// Makes the answers and tells the authority to look.
async fn offer(
    order: &mut Order,
    wanted: &Wanted,
    answers: &Arc<Challenges>,
) -> Result<Vec<Offer>, Trouble> {
    let mut offers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(Trouble::of)?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let offered = |kind: &ChallengeKind| {
            let wanted = of_library(*kind);
            authorization
                .challenges
                .iter()
                .any(|challenge| challenge.r#type == wanted)
        };
        let kind = wanted.challenges.iter().copied().find(offered);
        let challenge = kind.and_then(|kind| authorization.challenge(of_library(kind)));
        let (Some(kind), Some(mut challenge)) = (kind, challenge) else {
            return Err(Trouble::new(
                CertificateCode::AcmeRefused,
                "the authority offers none of the challenges in `ingress.acme.challenges`",
            ));
        };
        let answer = challenge.key_authorization();
        offers.push(match kind {
            ChallengeKind::Http01 => answers.offer_http(&challenge.token, answer.as_str()),
            ChallengeKind::TlsAlpn01 => {
                answers
                    .offer_tls(&wanted.name, answer.digest().as_ref())
                    .map_err(|error| Trouble::new(CertificateCode::AcmeRefused, error))?
            }
        });
        challenge.set_ready().await.map_err(Trouble::of)?;
    }
    Ok(offers)
}

fn of_library(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        ChallengeKind::Http01 => ChallengeType::Http01,
    }
}

/// What the authority saw. The challenge says it; the order often says only that it failed.
async fn not_validated(order: &mut Order, error: Option<Error>) -> Trouble {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let told = state
            .challenges
            .iter()
            .find_map(|challenge| challenge.error.as_ref());
        if told.is_some() {
            return Trouble::not_validated(told);
        }
    }
    match error {
        Some(Error::Api(problem)) => Trouble::not_validated(Some(&problem)),
        Some(error) => Trouble::of(error),
        None => Trouble::not_validated(None),
    }
}

/// The certificate of PEM texts, if it is one for this name and good now.
///
/// # Errors
/// It cannot be used; the text says why.
pub(super) fn usable(
    name: &str,
    chain: &str,
    key: &str,
    now: SystemTime,
) -> Result<Fresh, Trouble> {
    let bad = |why: &dyn std::fmt::Display| {
        Trouble::new(
            CertificateCode::AcmeBadCertificate,
            format!("`{name}`: {why}"),
        )
    };
    let pair = tls::pair_of_pem(chain.as_bytes(), key.as_bytes()).map_err(|error| bad(&error))?;
    let (not_before, not_after) =
        tls::validity(&pair.cert).ok_or_else(|| bad(&"its dates cannot be read"))?;
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    if not_after <= i64::try_from(now.as_secs()).unwrap_or(i64::MAX) {
        return Err(bad(&"it has ended"));
    }
    if !tls::fits(&pair, name) {
        return Err(bad(&"it is for other names"));
    }
    Ok(Fresh {
        key: Arc::new(pair),
        not_before,
        not_after,
    })
}

/// How authorities call a certificate when they are asked about its renewal (RFC 9773, 4.1).
pub(super) fn identifier(leaf: &CertificateDer<'_>) -> Option<CertificateIdentifier<'static>> {
    let identifier = CertificateIdentifier::try_from(leaf).ok()?;
    Some(identifier.into_owned())
}

/// Reads what was issued earlier; what cannot be used is left out.
///
/// # Errors
/// The store fails.
pub(super) async fn kept(store: &Arc<Store>) -> Result<Vec<(Arc<str>, Fresh)>, Trouble> {
    in_store(store, |store| {
        let now = SystemTime::now();
        let all = store.certificates()?.into_iter();
        Ok(all
            .filter_map(|issued| {
                let fresh = usable(&issued.name, &issued.chain, &issued.key, now).ok()?;
                Some((Arc::from(issued.name), fresh))
            })
            .collect())
    })
    .await
}
