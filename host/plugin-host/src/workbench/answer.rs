//! Answers as JSON: what the hub would act on, after it judged what the plugin said.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::inputs::Question;
use crate::answer::{
    Carry, Denial, Edit, HelloOutcome, HttpRequestOutcome, HttpResponseOutcome, OpenOutcome,
};
use crate::facts::{
    Attribute, Bye, CallInfo, Closed, Enrich, Field, Head, Hello, HttpLine, HttpRequest,
    HttpResponse, Open,
};
use crate::hook::CallOutcome;
use crate::set::PluginSet;

/// Asks the set and renders its answer.
pub(super) async fn ask(
    set: &PluginSet,
    info: &CallInfo<'_>,
    question: &Question,
    carry: &Carry,
) -> Value {
    match question {
        Question::Hello(input) => {
            let announced: Vec<&str> = input.announced.iter().map(String::as_str).collect();
            let hello = Hello {
                agent: &input.agent,
                peer: &input.peer,
                announced: &announced,
                why: &input.why,
            };
            hello_answer(set.hello(info, &hello).await)
        }
        Question::Bye(input) => {
            let bye = Bye {
                agent_id: &input.agent_id,
                reason: &input.reason,
                lasted_ms: input.lasted_ms,
                flows: input.flows,
            };
            set.bye(info, &bye, carry).await;
            json!({"verdict": "done"})
        }
        Question::Enrich(input) => {
            let names: Vec<&str> = input
                .http
                .iter()
                .flat_map(|http| http.header_names.iter().map(String::as_str))
                .collect();
            let http = input.http.as_ref().map(|http| HttpLine {
                method: &http.method,
                authority: &http.authority,
                path: &http.path,
                header_names: &names,
            });
            let enrich = Enrich {
                connector: &input.connector,
                listener: &input.listener,
                peer: &input.peer,
                viewer: &input.viewer,
                http: http.as_ref(),
            };
            let signals = set.enrich(info, &enrich).await;
            json!({
                "verdict": "signals",
                "signals": signals.signals,
                "carry": carried(&signals.carry),
            })
        }
        Question::Open(input) => {
            let open = Open {
                connector: &input.connector,
                listener: &input.listener,
                peer: &input.peer,
                viewer: &input.viewer,
                agent: &input.agent,
                via_mesh: input.via_mesh,
            };
            open_answer(set.open(info, &open).await)
        }
        Question::Close(input) => {
            let closed = Closed {
                connector: &input.connector,
                listener: &input.listener,
                peer: &input.peer,
                viewer: &input.viewer,
                agent_id: &input.agent_id,
                cause: &input.cause,
                bytes_c2a: input.bytes_c2a,
                bytes_a2c: input.bytes_a2c,
                lasted_ms: input.lasted_ms,
            };
            set.close(info, &closed, carry).await;
            json!({"verdict": "done"})
        }
        Question::HttpRequest(input) => {
            let request = HttpRequest {
                head: Head {
                    method: &input.method,
                    scheme: &input.scheme,
                    authority: &input.authority,
                    path_with_query: &input.path_with_query,
                    headers: &input.headers,
                },
                peer: &input.peer,
                viewer: &input.viewer,
                agent: &input.agent,
                endpoint: &input.endpoint,
                connector: &input.connector,
            };
            request_answer(set.http_request(info, &request).await, &input.headers)
        }
        Question::HttpResponse(input) => {
            let response = HttpResponse {
                status: input.status,
                headers: &input.headers,
            };
            match set.http_response(info, &response, carry).await {
                HttpResponseOutcome::Forward(edits) => json!({
                    "verdict": "next",
                    "edits": edits.iter().map(edit).collect::<Vec<_>>(),
                    "headers": after(&input.headers, &edits),
                }),
                HttpResponseOutcome::Reply {
                    status,
                    headers,
                    body,
                    ..
                } => reply(status, &headers, &body),
                HttpResponseOutcome::Failed(denial) => denied(&denial),
            }
        }
        Question::Mask(input) => {
            let mut batch = input.entries.clone();
            let masked = set.mask(&mut batch).await;
            let entries: Vec<Value> = batch
                .into_iter()
                .map(|entry| json!({"message": entry.message, "fields": pairs(&entry.fields)}))
                .collect();
            json!({"verdict": "masked", "covered": masked.covered, "entries": entries})
        }
    }
}

/// What stands in the place of an answer where there is none.
pub(super) fn failed(outcome: Option<CallOutcome>, detail: Option<&str>) -> Value {
    match outcome {
        Some(outcome) => json!({
            "verdict": "failed",
            "outcome": outcome.as_str(),
            "detail": detail.unwrap_or_default(),
        }),
        None => json!({"verdict": "not_called"}),
    }
}

fn hello_answer(outcome: HelloOutcome) -> Value {
    match outcome {
        HelloOutcome::Accept(welcome) => json!({
            "verdict": "accept",
            "accepted": welcome.accepted,
            "refused": welcome.refused.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "attributes": pairs(&welcome.attributes),
            "carry": carried(&welcome.carry),
        }),
        HelloOutcome::Deny(denial) => denied(&denial),
    }
}

fn open_answer(outcome: OpenOutcome) -> Value {
    match outcome {
        OpenOutcome::Allow(terms) => json!({
            "verdict": "allow",
            "max_bytes": terms.max_bytes,
            "max_seconds": terms.max_seconds,
            "idle_seconds": terms.idle_seconds,
            "attributes": pairs(&terms.attributes),
            "carry": carried(&terms.carry),
        }),
        OpenOutcome::Deny(denial) => denied(&denial),
    }
}

fn request_answer(outcome: HttpRequestOutcome, before: &[Field]) -> Value {
    match outcome {
        HttpRequestOutcome::Forward { edits, carry } => json!({
            "verdict": "next",
            "edits": edits.iter().map(edit).collect::<Vec<_>>(),
            "headers": after(before, &edits),
            "carry": carried(&carry),
        }),
        HttpRequestOutcome::Reply {
            status,
            headers,
            body,
            ..
        } => reply(status, &headers, &body),
        HttpRequestOutcome::Deny(denial) | HttpRequestOutcome::Failed(denial) => denied(&denial),
    }
}

fn reply(status: u16, headers: &[Field], body: &[u8]) -> Value {
    json!({
        "verdict": "reply",
        "status": status,
        "headers": fields(headers),
        "body": bytes(body),
    })
}

fn denied(denial: &Denial) -> Value {
    json!({
        "verdict": "deny",
        "code": denial.code,
        "public": denial.public,
        "private": denial.private,
    })
}

fn edit(edit: &Edit) -> Value {
    match edit {
        Edit::Set((name, value)) => json!({"set": [name, bytes(value)]}),
        Edit::Append((name, value)) => json!({"append": [name, bytes(value)]}),
        Edit::Remove(name) => json!({"remove": name}),
    }
}

/// The fields that go on after the edits.
fn after(before: &[Field], edits: &[Edit]) -> Value {
    let mut headers = before.to_vec();
    edits.iter().for_each(|edit| edit.apply(&mut headers));
    fields(&headers)
}

/// An object; a list of values where a name comes more than once.
fn fields(headers: &[Field]) -> Value {
    let mut object = Map::new();
    for (name, value) in headers {
        let value = bytes(value);
        match object.get_mut(name) {
            None => {
                object.insert(name.clone(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    Value::Object(object)
}

fn pairs(attributes: &[Attribute]) -> Value {
    let object = attributes
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    Value::Object(object.collect())
}

fn carried(carry: &Carry) -> Value {
    let all: Vec<Attribute> = carry
        .parts
        .iter()
        .flat_map(|(_, attributes)| attributes.iter().cloned())
        .collect();
    pairs(&all)
}

/// Text where it is text.
pub(super) fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}
