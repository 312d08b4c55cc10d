//! Tells the origin who asks: headers from the viewer's verified claims.
//!
//! A header that is configured here is the hub's word: where there is no value for it, the
//! client's own is removed. [`headers`] decides and knows nothing of WebAssembly.

#![allow(missing_docs, reason = "a plugin's interface is the contract")]

pub mod headers;

use nowconnect_plugin::prelude::*;

use crate::headers::{Facts, Settings};

pub struct JwtClaimsHeader {
    settings: Settings,
}

impl Plugin for JwtClaimsHeader {
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, Error> {
        settings.check().map_err(bad_config)?;
        Ok(Self { settings })
    }
}

impl HttpRequestHook for JwtClaimsHeader {
    fn on_request(&self, _: &Call, request: Request, _: Carry) -> Result<RequestVerdict, Error> {
        let viewer = &request.viewer;
        if self.settings.require_subject && viewer.subject.is_none() {
            let private = format!("no subject for `{}`", request.endpoint);
            return Ok(RequestVerdict::Deny(deny(
                "no_subject",
                "sign in first",
                private,
            )));
        }
        let facts = Facts {
            subject: viewer.subject.as_deref(),
            issuer: viewer.issuer.as_deref(),
            groups: &viewer.groups,
            claims: &viewer.attributes,
        };
        let sent: Vec<&str> = request
            .head
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        let edits =
            self.settings
                .headers(&facts)
                .into_iter()
                .filter_map(|(name, value)| match value {
                    Some(value) => Some(Edit::Set((name, value.into_bytes()))),
                    None if sent.contains(&name.as_str()) => Some(Edit::Remove(name)),
                    None => None,
                });
        Ok(next(edits.collect()))
    }
}

nowconnect_plugin::export!(JwtClaimsHeader: http_request);
