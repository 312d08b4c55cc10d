//! What every call may answer instead of what it is for, as the document says it.

use std::collections::BTreeMap;

use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema as _};

use crate::admin::problem::{PROBLEM_JSON, Problem};

/// See the module; named in each `utoipa::path`.
pub(in crate::control) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        [("4XX", "Why not"), ("5XX", "Not now")]
            .into_iter()
            .map(|(status, description)| {
                let problem = Ref::from_schema_name(Problem::name());
                let content = ContentBuilder::new().schema(Some(problem)).build();
                let response = ResponseBuilder::new()
                    .description(description)
                    .content(PROBLEM_JSON, content)
                    .build();
                (status.to_owned(), response.into())
            })
            .collect()
    }
}
