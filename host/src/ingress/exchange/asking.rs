//! What policies and plugins say of a request.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Response;
use nowconnect_policy::Http;
use tracing::Instrument as _;

use super::Exchange;
use crate::authorize::{HttpAnswer, HttpAsk, HttpPermit, policy_name};
use crate::ingress::account::Account;
use crate::ingress::body::ReplyBody;
use crate::ingress::failure::Failure;
use crate::ingress::in_flight::{InFlight, InFlightPlace};
use crate::ingress::{reply, sign_in};
use crate::session::LiveTunnel;
use crate::telemetry::decisions::DecisionId;
use crate::telemetry::traces;

/// What the decision makes of a request.
pub(super) enum Asked {
    Pass(Box<HttpPermit>),
    /// A plugin has answered.
    Reply(Box<Response<ReplyBody>>, DecisionId),
}

impl Exchange<'_> {
    pub(super) async fn ask(
        &self,
        tunnel: &LiveTunnel,
        account: &Account,
    ) -> Result<Asked, Failure> {
        let (viewer, route, head) = (self.viewer, self.route, &self.head);
        let hub = &viewer.hub;
        let rules = viewer.door.rules();
        let standing = tunnel.standing();
        let listener = policy_name(&route.config.tenant, &rules.text);
        let authority = head.authority.to_string();
        let http = Http {
            method: head.method.as_str().to_owned(),
            host: head.authority.host.clone(),
            path: head.path.clone(),
            header_names: head.header_names.clone(),
        };
        let ask = HttpAsk {
            listener: &listener,
            listener_text: &rules.text,
            endpoint: &route.endpoint,
            endpoint_text: route.config.name.as_str(),
            connector: &route.connector.name,
            connector_text: route.connector.key.name.as_str(),
            tenant: &route.config.tenant,
            client: head.client,
            tls: viewer.tls.as_ref(),
            viewer: &self.signed_in.viewer,
            plugin_viewer: &self.signed_in.plugin,
            identity: &standing.identity,
            agent: &tunnel.name,
            plugin_agent: &standing.agent,
            http: &http,
            scheme: head.from.scheme(),
            authority: &authority,
            path_with_query: head.target.as_str(),
            headers: &head.headers,
            open_flows: u32::try_from(route.connector.flows.taken()).unwrap_or(u32::MAX),
            pipeline_timeout: hub.config.load().plugins.pipeline_timeout,
        };
        let decision = traces::decision_span(&account.span);
        let answer = hub
            .authorizer()
            .http_request(&ask)
            .instrument(decision)
            .await;
        match answer {
            HttpAnswer::Pass(permit) => Ok(Asked::Pass(Box::new(permit))),
            HttpAnswer::Reply(reply, decision) => {
                let response = reply::plugins_own(reply, account);
                response.map(|response| Asked::Reply(Box::new(response), decision))
            }
            HttpAnswer::Denied(denial) => {
                hub.denied.fetch_add(1, Ordering::Relaxed);
                Err(sign_in::denied(&denial, route, &self.signed_in))
            }
            HttpAnswer::Failed(denial) => {
                let nobody = sign_in::of_nobody(route, &self.signed_in);
                let failure = nobody.unwrap_or_else(Failure::plugin_failed);
                Err(failure
                    .with_detail(&denial)
                    .with_decision(Some(denial.decision)))
            }
        }
    }

    /// Puts the request into the table of those under way. Policies that came into force since it
    /// was asked about did not see it there, so it is asked about again.
    pub(super) async fn enter(
        &self,
        tunnel: &LiveTunnel,
        permit: &HttpPermit,
        account: &Account,
    ) -> Result<InFlightPlace, Failure> {
        let hub = &self.viewer.hub;
        let listener = policy_name(&self.route.config.tenant, &self.viewer.door.rules().text);
        let request = InFlight::new(
            account.id,
            (self.route.endpoint.clone(), listener),
            tunnel.key.clone(),
            (self.head.client, Arc::clone(&self.viewer.door.rules().text)),
            (permit.questions(), permit.generation(), hub.rounds.newest()),
            self.signed_in.until,
        );
        let place = hub.ingress.in_flight.insert(request);
        if hub.generations().stamp() != permit.stamp() {
            let identity = Arc::clone(&tunnel.standing().identity);
            let from = (self.head.client, &self.viewer.door.rules().text);
            hub.authorizer()
                .recheck_request(&permit.questions(), &identity, from)
                .await
                .map_err(|denial| Failure::by_denial(&denial))?;
        }
        Ok(place)
    }
}
