//! The routes of policy bundles.
//!
//! The policies are asked whether an operator may bring a bundle before anything is made of it
//! but its manifest, of which they are told the revision and whether it is signed. What else is in
//! it is hashed, compiled and tested after that.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::header;
use http_body_util::{BodyExt as _, Limited};
use nowconnect_policy::{BundleArchive, Refusal};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::problem::{Problem, ProblemCode};
use super::routes::{AdminState, Answer, Caller};
use super::uploads::Uploads;
use super::view::{AdminAction, AdminCaller, BundlePush};
use crate::bundle::refused::{BundleRefused, codes};
use crate::bundle::view::{
    ActivateReport, ActivateRequest, BundleStatus, DeliverReport, ShadowStatus,
};

/// Time in which a bundle must have come whole: others wait for its place.
const BODY_TIME: Duration = Duration::from_secs(20);

/// Stands behind the revision of a bundle that is not signed as the hub asks.
pub(crate) const UNSIGNED: &str = " unsigned";

/// The media type of a bundle.
pub(super) const TAR: &str = "application/x-tar";

/// The bundle that was taken back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discarded {
    /// Its revision.
    pub revision: u64,
}

pub(super) fn routes() -> Router<AdminState> {
    Router::new()
        .route("/policy", get(status))
        .route("/policy/shadow", get(shadow))
        // The handler applies the bound that is configured.
        .route(
            "/policy/bundles",
            post(push).layer(DefaultBodyLimit::disable()),
        )
        .route("/policy/bundles/{revision}", get(bytes))
        .route("/policy/activate", post(activate))
        .route("/policy/discard", post(discard))
        .layer(Extension(Arc::new(Uploads::new())))
}

async fn status(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
) -> Answer<BundleStatus> {
    admin.may(&caller, AdminAction::Status, None).await?;
    Ok(Json(admin.hub.bundles()))
}

async fn shadow(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
) -> Answer<ShadowStatus> {
    admin.may(&caller, AdminAction::Explain, None).await?;
    Ok(Json(admin.hub.shadow()))
}

async fn push(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    Extension(uploads): Extension<Arc<Uploads>>,
    query: Result<Query<BundlePush>, QueryRejection>,
    request: Request,
) -> Answer<DeliverReport> {
    let Query(push) = query?;
    let action = if push.rollback {
        AdminAction::RollbackPolicy
    } else {
        AdminAction::StagePolicy
    };
    let is_likely = may_likely(&admin, &caller, action).await;
    let Some(_upload) = uploads.enter(&caller, is_likely).await else {
        let message = "too many bundles come at once; try again in a moment";
        return Err(Problem::of_bundle(&BundleRefused::new(
            codes::BUSY,
            message,
        )));
    };
    let body = match read(&admin, request.into_body()).await {
        Ok(body) => body,
        Err(problem) => {
            admin.may(&caller, action, None).await?;
            return Err(problem);
        }
    };
    let trusted = admin.hub.trusted_keys();
    let looked = tokio::task::spawn_blocking(move || {
        let archive = BundleArchive::from_tar(&body)?;
        let is_signed = archive.is_signed_by(&trusted);
        Ok::<_, Refusal>((archive, is_signed))
    });
    let looked = looked
        .await
        .map_err(|_| Problem::new(ProblemCode::Unavailable, "the hub failed at this"))?;
    let (archive, is_signed) = match looked {
        Ok(looked) => looked,
        Err(refusal) => {
            admin.may(&caller, action, None).await?;
            return Err(Problem::of_bundle(&BundleRefused::from(refusal)));
        }
    };
    let mut subject = archive.revision().to_string();
    if !is_signed {
        subject.push_str(UNSIGNED);
    }
    admin.may(&caller, action, Some(&subject)).await?;
    Ok(Json(admin.hub.push_bundle(archive, push).await?))
}

/// Whether the caller may bring the bundle that is the likeliest to come. It decides of the place
/// alone: what has come is asked about by its own revision and signatures.
async fn may_likely(admin: &AdminState, caller: &AdminCaller, action: AdminAction) -> bool {
    let seen = admin.hub.bundles().highest_revision.unwrap_or_default();
    let next = seen.saturating_add(1).to_string();
    let asked = admin.hub.authorize(caller, action, Some(&next)).await;
    asked.is_ok()
}

async fn read(admin: &AdminState, body: Body) -> Result<Bytes, Problem> {
    let limit = admin.hub.max_bundle_bytes();
    if limit == 0 {
        return Err(Problem::of_bundle(&crate::bundle::keeper::off()));
    }
    let bytes = usize::try_from(limit).unwrap_or(usize::MAX);
    let collected = timeout(BODY_TIME, Limited::new(body, bytes).collect()).await;
    let Ok(collected) = collected else {
        let detail = format!("the bundle did not arrive whole in {BODY_TIME:?}");
        return Err(Problem::new(ProblemCode::InvalidRequest, &detail));
    };
    match collected {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let detail = format!("a bundle may have {limit} bytes (`policy.bundle.max_bytes`)");
            Err(Problem::new(ProblemCode::TooLarge, &detail))
        }
        Err(error) => Err(Problem::new(
            ProblemCode::InvalidRequest,
            &format!("the bundle did not arrive whole: {error}"),
        )),
    }
}

async fn bytes(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    path: Result<Path<u64>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(revision) = path?;
    admin.may(&caller, AdminAction::Explain, None).await?;
    let bytes = admin.hub.bundle_bytes(revision).await?;
    Ok(([(header::CONTENT_TYPE, TAR)], bytes).into_response())
}

async fn activate(
    State(admin): State<AdminState>,
    Extension(caller): Caller,
    body: Result<Json<ActivateRequest>, JsonRejection>,
) -> Answer<ActivateReport> {
    let Json(mut request) = body?;
    // What is asked about is what is activated, though another be staged in between.
    let staged = admin.hub.bundles().staged.map(|entry| entry.revision);
    request.revision = request.revision.or(staged);
    let subject = request.revision.map(|revision| revision.to_string());
    if request.dry_run {
        admin.may(&caller, AdminAction::Explain, None).await?;
    } else {
        admin
            .may(&caller, AdminAction::ActivatePolicy, subject.as_deref())
            .await?;
    }
    Ok(Json(admin.hub.activate_bundle(&request).await?))
}

async fn discard(State(admin): State<AdminState>, Extension(caller): Caller) -> Answer<Discarded> {
    let staged = admin.hub.bundles().staged;
    let subject = staged.map(|entry| entry.revision.to_string());
    admin
        .may(&caller, AdminAction::StagePolicy, subject.as_deref())
        .await?;
    let revision = admin.hub.discard_bundle().await?;
    Ok(Json(Discarded { revision }))
}
