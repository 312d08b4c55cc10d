//! What a viewer has shown goes no further.

use http::header::{AUTHORIZATION, REFERER};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};

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

/// Takes the parameters of a signed URL out of `Referer`: a page that was fetched by such a URL has
/// the browser show it to whatever the page names on the same host, where it is good for as long as
/// for the page.
pub(crate) fn from_referer(headers: &mut HeaderMap) {
    let is_told = |value: &HeaderValue| {
        // A query may hold a `?` of its own.
        let query = value.as_bytes().splitn(2, |byte| *byte == b'?').nth(1);
        query.is_some_and(|query| signed_url::has_parameters(&String::from_utf8_lossy(query)))
    };
    if !headers.get_all(REFERER).iter().any(is_told) {
        return;
    }
    let kept = headers.get_all(REFERER).iter().find_map(|value| {
        let (page, query) = value.to_str().ok()?.split_once('?')?;
        let page = match signed_url::without_parameters(query).as_str() {
            "" => page.to_owned(),
            query => format!("{page}?{query}"),
        };
        HeaderValue::try_from(page).ok()
    });
    match kept {
        Some(kept) => drop(headers.insert(REFERER, kept)),
        None => drop(headers.remove(REFERER)),
    }
}
