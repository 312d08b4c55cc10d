//! The headers as a plugin: hook `http-request`, capability `config`.

#![allow(unsafe_code, missing_docs, reason = "the bindings are generated")]

use bump as _;

use crate::headers::{self, Headers};
use crate::template::Facts;

wit_bindgen::generate!({
    inline: r#"
        package nowconnect:header-inject;

        world plugin {
            import nowconnect:plugin/config@0.1.0;
            export nowconnect:plugin/lifecycle@0.1.0;
            export nowconnect:plugin/http-request-hook@0.1.0;
        }
    "#,
    path: "../../wit/0.1",
    generate_all,
});

use exports::nowconnect::plugin::http_request_hook::{self, Next, Verdict};
use exports::nowconnect::plugin::lifecycle::{self, About};
use nowconnect::plugin::config;
use nowconnect::plugin::http_types::{Edit, Request};
use nowconnect::plugin::types::{Call, Error};

struct HeaderInject;
export!(HeaderInject);

impl lifecycle::Guest for HeaderInject {
    fn describe() -> About {
        About {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: env!("CARGO_PKG_DESCRIPTION").to_owned(),
        }
    }

    fn check_config(json: String) -> Result<(), Error> {
        Headers::parse(&json).map(drop).map_err(Error::BadConfig)
    }
}

impl http_request_hook::Guest for HeaderInject {
    fn on_request(call: Call, request: Request) -> Result<Verdict, Error> {
        let headers = Headers::parse(&config::json()).map_err(Error::BadConfig)?;
        let present: Vec<(&str, &[u8])> = request
            .head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        let edits = headers.edits(&facts(&call, &request), &present);
        Ok(Verdict::Next(Next {
            edits: edits.into_iter().map(edit).collect(),
            carry: Vec::new(),
        }))
    }
}

fn facts<'a>(call: &'a Call, request: &'a Request) -> Facts<'a> {
    Facts {
        request_id: &call.request_id,
        tenant: call.tenant.as_deref(),
        client_ip: &request.peer.ip,
        client_port: request.peer.port,
        viewer_subject: request.viewer.subject.as_deref(),
        viewer_issuer: request.viewer.issuer.as_deref(),
        viewer_attributes: &request.viewer.attributes,
        agent_id: &request.agent.id,
        agent_attributes: &request.agent.attributes,
        endpoint: &request.endpoint,
        connector: &request.connector,
        method: &request.head.method,
        scheme: &request.head.scheme,
        authority: &request.head.authority,
        path: &request.head.path_with_query,
    }
}

fn edit(edit: headers::Edit) -> Edit {
    match edit {
        headers::Edit::Set(name, value) => Edit::Set((name, value.into_bytes())),
        headers::Edit::Remove(name) => Edit::Remove(name),
    }
}
