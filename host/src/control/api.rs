//! What the routes share: who calls, what a call may wait for, and how refusals are told.

pub(super) mod agents;
mod body;
pub(super) mod endpoints;
pub(super) mod flows;
pub(super) mod names;
pub(super) mod quotas;
mod refusals;
pub(super) mod routes;
pub(super) mod tokens;
pub(super) mod tunnels;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, header};
use nowconnect_control::{Control, ControlError, Management, NameRefused, TokenRefused};
use nowconnect_store::{
    ClaimRefused, DeleteRefused, Endpoint, QuotaRefused, ReserveRefused, StoreError,
};
use tracing::warn;

use self::refusals::Refusals;
use super::ground::{Deed, EndpointSubject, Forbidden, Ground, Subject};
use super::idempotency::Requests;
use super::names::Names;
use crate::admin::problem::{Problem as Refusal, ProblemCode as Code};
use crate::authorize::unix_ms;
use crate::config::Scope;
use crate::telemetry::events;
use crate::telemetry::metrics::Metrics;

/// Entries on one page where the caller names no number.
const PAGE: u32 = 100;
/// Most entries on one page.
const MAX_PAGE: u32 = 1000;

/// What the routes work with.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) control: Arc<Control>,
    pub(super) names: Arc<Names>,
    pub(super) requests: Arc<Requests>,
    pub(super) ground: Arc<dyn Ground>,
    pub(super) metrics: Arc<Metrics>,
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct From(pub(super) SocketAddr);

type Answer<T> = Result<T, Refusal>;

impl Api {
    /// Runs what waits for the disk away from the threads that serve.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let api = self.clone();
        match tokio::task::spawn_blocking(move || work(&api)).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal::new(Code::Unavailable, "the hub failed at this")),
        }
    }

    /// Who shows a management token; nobody where there is none. One in the body and one in the
    /// header are too many: they could be two clients'.
    async fn bearer(
        &self,
        headers: &HeaderMap,
        in_body: Option<&str>,
    ) -> Answer<Option<Management>> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let token = match (given.next(), given.next(), in_body) {
            (None, None, None) => return Ok(None),
            (None, None, Some(token)) => token.to_owned(),
            (Some(value), None, None) => value
                .to_str()
                .ok()
                .and_then(|value| value.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim().to_owned())
                .ok_or_else(unauthenticated)?,
            _ => {
                let detail = "show one management token, in `Authorization` or in the body";
                return Err(Refusal::new(Code::Unauthenticated, detail));
            }
        };
        let now = now_ms();
        // Checking an RSA signature takes long enough to keep off these threads, too.
        self.blocking(move |api| {
            let proven = api.control.prove_management(&token, now);
            let client = proven.map_err(ControlError::from)?;
            if api.ground.is_revoked(&client) {
                return Err(ControlError::from(TokenRefused::Withdrawn).into());
            }
            Ok(Some(client))
        })
        .await
    }

    /// The client that calls, with the scope that the call needs.
    async fn client(&self, headers: &HeaderMap, scope: Scope) -> Answer<Management> {
        let client = self
            .bearer(headers, None)
            .await?
            .ok_or_else(unauthenticated)?;
        with_scope(client, scope)
    }

    /// Whether policies let the client list what is its tenant's.
    fn may_list(&self, from: SocketAddr, client: &Management) -> Answer<()> {
        Ok(self.ground.may(from, client, Deed::List, Subject::All)?)
    }

    /// Whether policies let the client do this with an endpoint, or with a name as one. Blocks on
    /// the disk.
    fn may(
        &self,
        from: SocketAddr,
        client: &Management,
        deed: Deed,
        endpoint: &Endpoint,
    ) -> Answer<()> {
        let reserved = deed == Deed::Reserve || self.is_reserved(endpoint)?;
        let subject = Subject::Endpoint(EndpointSubject {
            endpoint,
            host: &self.control.host(&endpoint.name),
            reserved,
        });
        Ok(self.ground.may(from, client, deed, subject)?)
    }

    /// Whether its tenant has reserved the name of an endpoint.
    fn is_reserved(&self, endpoint: &Endpoint) -> Answer<bool> {
        let reserved = self.control.store().reservation(&endpoint.name)?;
        Ok(reserved.is_some_and(|reserved| reserved.tenant == endpoint.tenant))
    }
}

fn with_scope(client: Management, scope: Scope) -> Answer<Management> {
    if client.allows(scope.as_str()) {
        Ok(client)
    } else {
        let detail = format!("the token lacks the scope `{}`", scope.as_str());
        Err(Refusal::new(Code::Denied, &detail))
    }
}

fn unauthenticated() -> Refusal {
    Refusal::new(
        Code::Unauthenticated,
        "show a management token as `Authorization: Bearer …`; `POST /auth/token` gives one",
    )
}

fn limit(wanted: Option<u32>) -> Answer<usize> {
    let limit = wanted.unwrap_or(PAGE);
    if (1..=MAX_PAGE).contains(&limit) {
        Ok(usize::try_from(limit).unwrap_or(usize::MAX))
    } else {
        let detail = format!("`limit` is {limit}; it has to be from 1 to {MAX_PAGE}");
        Err(Refusal::new(Code::InvalidRequest, &detail))
    }
}

/// What `after` has to be for the next page, where this one is full.
fn next<T>(page: &[T], limit: usize, name: impl Fn(&T) -> &str) -> Option<String> {
    page.last()
        .filter(|_| page.len() == limit)
        .map(|last| name(last).to_owned())
}

pub(super) fn now_ms() -> u64 {
    unix_ms(SystemTime::now())
}

impl std::convert::From<Forbidden> for Refusal {
    fn from(forbidden: Forbidden) -> Self {
        Self::new(Code::Denied, &forbidden.why)
    }
}

impl std::convert::From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        let code = match &error {
            ControlError::Name(NameRefused::Malformed { .. }) => Code::InvalidRequest,
            ControlError::Name(NameRefused::Kept { .. }) => Code::NameTaken,
            ControlError::Claim(refused) => return claim(refused),
            ControlError::Token(_) | ControlError::BadClient | ControlError::NotAnonymous => {
                Code::Unauthenticated
            }
            ControlError::Delete(DeleteRefused::Full { .. }) => Code::QuotaExceeded,
            ControlError::NoPort { .. } => Code::Unavailable,
            ControlError::Delete(DeleteRefused::Store(_))
            | ControlError::Key(_)
            | ControlError::Store(_) => return failed(&error),
        };
        Self::new(code, &error.to_string())
    }
}

/// What failed is the operator's affair, who reads it in the log.
fn failed(error: &dyn std::fmt::Display) -> Refusal {
    warn!(event = events::CONTROL_STATE_FAILED, %error, "a call failed");
    Refusal::new(
        Code::Unavailable,
        "the hub cannot do this now; try again later",
    )
}

fn claim(refused: &ClaimRefused) -> Refusal {
    let code = match refused {
        ClaimRefused::Taken { .. } | ClaimRefused::Reserved { .. } => Code::NameTaken,
        ClaimRefused::Quota { .. } | ClaimRefused::ManyDeleted => Code::QuotaExceeded,
        ClaimRefused::Deleted => Code::Unauthenticated,
        ClaimRefused::Full { .. } | ClaimRefused::Overtaken => Code::Unavailable,
        ClaimRefused::Store(error) => return failed(error),
    };
    Refusal::new(code, &refused.to_string())
}

impl std::convert::From<ReserveRefused> for Refusal {
    fn from(refused: ReserveRefused) -> Self {
        let code = match &refused {
            ReserveRefused::Taken { .. } => Code::NameTaken,
            ReserveRefused::Quota { .. } => Code::QuotaExceeded,
            ReserveRefused::Full { .. } => Code::Unavailable,
            ReserveRefused::Store(error) => return failed(error),
        };
        Self::new(code, &refused.to_string())
    }
}

impl std::convert::From<QuotaRefused> for Refusal {
    fn from(refused: QuotaRefused) -> Self {
        match &refused {
            QuotaRefused::Full { .. } => Self::new(Code::Unavailable, &refused.to_string()),
            QuotaRefused::Store(error) => failed(error),
        }
    }
}

impl std::convert::From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        failed(&error)
    }
}
