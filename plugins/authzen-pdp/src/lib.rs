//! Asks an AuthZEN 1.0 decision point about each flow and each HTTP request, by the capability
//! `fetch`. Whatever is not a plain yes denies: no answer, another status, an answer that cannot
//! be read, a yes with obligations, which this plugin cannot keep.
//!
//! [`question`] makes the question and reads the answer, and knows nothing of WebAssembly.

#![allow(missing_docs, reason = "a plugin's interface is the contract")]

pub mod question;

use nowconnect_plugin::fetch;
use nowconnect_plugin::prelude::*;

use crate::question::{Answer, Asked, Settings};

/// Bytes of a question. A hub takes 64 KiB of one host call by default, fields included; more of
/// them would be a fault of the plugin's.
const QUESTION_BYTES_MAX: usize = 48 * 1024;

pub struct AuthzenPdp {
    settings: Settings,
}

impl Plugin for AuthzenPdp {
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, Error> {
        settings.check().map_err(bad_config)?;
        Ok(Self { settings })
    }
}

impl OpenHook for AuthzenPdp {
    fn on_open(&self, call: &Call, open: Open, _: Carry) -> Result<OpenVerdict, Error> {
        let asked = Asked {
            viewer: open.viewer.subject.as_deref(),
            groups: &open.viewer.groups,
            action: "open",
            resource_type: "connector",
            resource: &open.connector,
            takes_attributes: true,
            facts: &[
                ("ip", &open.peer.ip),
                ("listener", &open.listener),
                ("agent", &open.agent.id),
                ("tenant", call.tenant.as_deref().unwrap_or_default()),
            ],
            viewer_attributes: &open.viewer.attributes,
            attributes: &[
                ("peer", &open.peer.attributes),
                ("agent", &open.agent.attributes),
                ("flow", &open.attributes),
                ("call", &call.attributes),
            ],
        };
        Ok(match self.ask(call, &asked)? {
            Answer::Yes(attributes) => OpenVerdict::Allow(Grant {
                attributes,
                ..unbounded()
            }),
            Answer::No(denial) => OpenVerdict::Deny(denied(denial)),
        })
    }
}

impl HttpRequestHook for AuthzenPdp {
    fn on_request(&self, call: &Call, request: Request, _: Carry) -> Result<RequestVerdict, Error> {
        let path = request
            .head
            .path_with_query
            .split('?')
            .next()
            .unwrap_or_default();
        let asked = Asked {
            viewer: request.viewer.subject.as_deref(),
            groups: &request.viewer.groups,
            action: &request.head.method,
            resource_type: "endpoint",
            resource: &request.endpoint,
            // The contract gives a request none.
            takes_attributes: false,
            facts: &[
                ("ip", &request.peer.ip),
                ("path", path),
                ("connector", &request.connector),
                ("tenant", call.tenant.as_deref().unwrap_or_default()),
            ],
            viewer_attributes: &request.viewer.attributes,
            attributes: &[
                ("peer", &request.peer.attributes),
                ("agent", &request.agent.attributes),
                ("request", &request.attributes),
                ("call", &call.attributes),
            ],
        };
        Ok(match self.ask(call, &asked)? {
            Answer::Yes(_) => next(Vec::new()),
            Answer::No(denial) => RequestVerdict::Deny(denied(denial)),
        })
    }
}

impl AuthzenPdp {
    fn ask(&self, call: &Call, asked: &Asked<'_>) -> Result<Answer, Error> {
        let settings = &self.settings;
        let question = settings.question(asked);
        if question.len() > QUESTION_BYTES_MAX {
            return Err(unavailable(format!(
                "the question has {} bytes, at most {QUESTION_BYTES_MAX} are sent",
                question.len()
            )));
        }
        let field = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let mut headers = vec![
            field("content-type", "application/json"),
            field("accept", "application/json"),
            field("x-request-id", &call.request_id),
        ];
        if let Some(token) = &settings.token {
            headers.push(field("authorization", &format!("Bearer {token}")));
        }
        let answer = fetch::send(&fetch::Request {
            method: "POST".to_owned(),
            url: settings.url.clone(),
            headers,
            body: question.into_bytes(),
            timeout_ms: Some(settings.timeout_ms),
        });
        let answer = answer.map_err(|failure| {
            unavailable(format!(
                "the decision point: {}: {}",
                failure.code, failure.detail
            ))
        })?;
        settings
            .answer(asked, answer.status, &answer.body)
            .map_err(unavailable)
    }
}

fn denied(denial: question::Denied) -> Denial {
    deny(denial.code, denial.public, denial.private)
}

nowconnect_plugin::export!(AuthzenPdp: open, http_request);
