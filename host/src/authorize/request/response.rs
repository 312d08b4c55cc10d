//! What plugins make of an origin's response.

use std::time::{Duration, Instant};

use http::HeaderMap;
use nowconnect_plugins as plugins;
use nowconnect_plugins::{CallInfo, Edit, Hook, HttpResponseOutcome};
use nowconnect_protocol::TenantName;

use super::super::{Authorizer, plugin_tenant};
use super::{HttpPermit, PluginReply, fields};

/// What plugins make of an origin's response.
#[derive(Debug)]
pub(crate) enum ResponseAnswer {
    /// Send it after these edits.
    Forward(Vec<Edit>),
    /// Send this in its place.
    Reply(PluginReply),
    /// A plugin that must answer did not.
    Failed(plugins::Denial),
}

impl Authorizer {
    /// Asks plugins about the head of an origin's response.
    pub(crate) async fn http_response(
        &self,
        permit: &HttpPermit,
        tenant: &TenantName,
        (status, headers): (u16, &HeaderMap),
        pipeline_timeout: Duration,
    ) -> ResponseAnswer {
        let set = permit.generation.plugins();
        if !set.has(Hook::HttpResponse) {
            return ResponseAnswer::Forward(Vec::new());
        }
        let call = CallInfo {
            request_id: &permit.request_id,
            tenant: plugin_tenant(tenant),
            deadline: Some(Instant::now() + pipeline_timeout),
            generation: permit.generation(),
            ..CallInfo::default()
        };
        let headers = fields(headers);
        let response = plugins::HttpResponse {
            status,
            headers: &headers,
        };
        match set.http_response(&call, &response, &permit.carry).await {
            HttpResponseOutcome::Forward(edits) => ResponseAnswer::Forward(edits),
            HttpResponseOutcome::Reply {
                plugin,
                status,
                headers,
                body,
            } => ResponseAnswer::Reply(PluginReply {
                plugin,
                status,
                headers,
                body,
            }),
            HttpResponseOutcome::Failed(denial) => ResponseAnswer::Failed(denial),
        }
    }
}
