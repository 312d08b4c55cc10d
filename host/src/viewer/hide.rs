//! What a viewer has shown goes no further.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;

use super::{ViewerAuth, signed_url};

impl ViewerAuth {
    /// Takes out of a request what one of the ways could mean, also where another one decided.
    pub(crate) fn hide(&self, headers: &mut HeaderMap, target: &mut PathAndQuery) {
        if self.config.pass_on_credentials {
            return;
        }
        let is_ours = headers.get(AUTHORIZATION).is_some_and(|value| {
            let value = value.as_bytes().trim_ascii();
            let scheme = value.split(|byte| *byte == b' ').next().unwrap_or_default();
            ["bearer", "basic"]
                .iter()
                .any(|way| self.config.has(way) && scheme.eq_ignore_ascii_case(way.as_bytes()))
        });
        if is_ours {
            headers.remove(AUTHORIZATION);
        }
        if !self.config.has("signed_url") {
            return;
        }
        let Some(query) = target
            .query()
            .filter(|query| signed_url::has_parameters(query))
        else {
            return;
        };
        let query = signed_url::without_parameters(query);
        let text = match query.as_str() {
            "" => target.path().to_owned(),
            query => format!("{}?{query}", target.path()),
        };
        // Parts of a target make one.
        if let Ok(next) = PathAndQuery::try_from(text) {
            *target = next;
        }
    }
}
