//! Calls by names that metrics can carry: a closed list, whatever a caller asks for. And how long
//! one may take.

use std::convert::Infallible;

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;

use super::ANSWER_TIMEOUT;
use crate::admin::problem::{Problem, ProblemCode};

/// The name of what a call reached; in the extensions of its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation(pub(super) &'static str);

/// What reached no route is called.
pub(super) const NONE: &str = "none";

/// Gives a route its name, and an end to its calls.
pub(super) fn named<S: Clone + Send + Sync + 'static>(
    name: &'static str,
    route: MethodRouter<S, Infallible>,
) -> MethodRouter<S, Infallible> {
    route.route_layer(middleware::from_fn(move |request, next| {
        answer(Operation(name), request, next)
    }))
}

async fn answer(operation: Operation, request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| {
        Problem::new(ProblemCode::Timeout, "the hub did not answer in time").into_response()
    });
    response.extensions_mut().insert(operation);
    response
}
