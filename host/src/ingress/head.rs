//! A request's head in its one form, and what has to be so before an agent is looked for.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::UPGRADE;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use nowconnect_protocol::AgentId;

use super::account::Account;
use super::cookies;
use super::door::Viewer;
use super::failure::{Failure, Wants};
use super::forwarded::Origination;
use super::headers;
use super::host::{Authority, HostPattern};
use super::path::normal_path;
use super::route::Route;
use super::routes::NoRoute;
use super::sign_in::strip_identity;
use crate::authorize::Refused;
use crate::codes::DenialCode;
use crate::registry::AgentKey;
use crate::telemetry::decisions::Why;

/// See the module.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) authority: Authority,
    pub(crate) path: String,
    encoded_slash: bool,
    path_parameters: bool,
    pub(crate) target: PathAndQuery,
    /// As they were sent, without those of one hop and those that only the hub may write. `Upgrade`
    /// stays where it is asked for, so that policies and plugins see it.
    pub(crate) headers: HeaderMap,
    pub(crate) header_names: Vec<String>,
    pub(crate) from: Origination,
    pub(crate) client: SocketAddr,
    pub(crate) websocket: bool,
    pub(crate) takes_trailers: bool,
    /// The hub's own cookies, by name without prefix, and their values. Services do not see them.
    pub(crate) own_cookies: Vec<(String, String)>,
    /// In which form the viewer wants to be told what goes wrong.
    pub(crate) wants: Wants,
}

impl Head {
    /// Refuses what can be read in more than one way.
    pub(crate) fn read(
        viewer: &Viewer,
        parts: Parts,
        account: &mut Account,
    ) -> Result<Self, Failure> {
        let Parts {
            method,
            uri,
            version,
            mut headers,
            ..
        } = parts;
        let rules = viewer.door.rules();
        let config = viewer.hub.config.load();
        let limits = &config.ingress.limits;
        let target_bytes = uri.path().len() + uri.query().map_or(0, str::len);
        let bytes = u64::try_from(headers::wire_bytes(&headers) + target_bytes);
        if bytes.map_or(true, |bytes| bytes > u64::from(limits.max_header_bytes)) {
            return Err(Failure::head_too_large());
        }
        if matches!(method, Method::CONNECT | Method::TRACE) {
            return Err(Failure::method_not_served());
        }
        headers::check_framing(&headers)
            .map_err(|error| Failure::bad_framing().with_detail(error))?;
        let written = headers::written_host(&uri, &headers)
            .map_err(|error| Failure::bad_host().with_detail(error))?;
        let authority =
            Authority::parse(written).map_err(|error| Failure::bad_host().with_detail(error))?;
        let path =
            normal_path(uri.path()).map_err(|error| Failure::bad_path().with_detail(error))?;
        account.host.clone_from(&authority.host);
        account.path.clone_from(&path.text);
        let target = match uri.query() {
            Some(query) => PathAndQuery::try_from(format!("{}?{query}", path.text)),
            None => PathAndQuery::try_from(path.text.as_str()),
        };
        let target = target.map_err(|error| Failure::bad_path().with_detail(error))?;
        let peer = viewer.peer.ip();
        let trusted = &rules.config.trusted_proxies;
        let from = Origination::of(peer, viewer.tls.is_some(), trusted, &headers)
            .map_err(|error| Failure::bad_forwarded().with_detail(error))?;
        let client = if from.address == peer.to_canonical() {
            viewer.peer
        } else {
            // Behind a proxy the viewer's port is not known.
            SocketAddr::new(from.address, 0)
        };
        account.client = client;
        let wants = Wants::of(&headers);
        let websocket = headers::wants_websocket(&method, version, &headers);
        let takes_trailers = headers::takes_trailers(&headers);
        headers::strip_hop(&mut headers);
        let own_cookies = cookies::own_of(&headers, from.scheme() == "https");
        headers::strip_own(&mut headers);
        strip_identity(viewer, &mut headers);
        if websocket {
            headers.insert(UPGRADE, HeaderValue::from_static(headers::WEBSOCKET));
        }
        Ok(Self {
            method,
            authority,
            path: path.text,
            encoded_slash: path.encoded_slash,
            path_parameters: path.parameters,
            target,
            header_names: headers::names(&headers),
            headers,
            from,
            client,
            websocket,
            takes_trailers,
            own_cookies,
            wants,
        })
    }

    pub(crate) fn route(&self, viewer: &Viewer) -> Result<Arc<Route>, Failure> {
        let found = viewer
            .hub
            .ingress
            .route(&viewer.hub, &self.authority.host, &self.path);
        let route = found.map_err(|missing| {
            viewer.hub.metrics.http.unrouted();
            match missing {
                NoRoute::Host => Failure::unknown_host(),
                NoRoute::Path => Failure::unknown_path(),
            }
        })?;
        if self.encoded_slash && !route.config.encoded_slash {
            return Err(
                Failure::bad_path().with_detail("`%2F`, and the route has no `encoded_slash`")
            );
        }
        if self.path_parameters && !route.config.path_parameters {
            return Err(Failure::bad_path()
                .with_detail("`;` or `%3B`, and the route has no `path_parameters`"));
        }
        Ok(route)
    }

    /// The agent that the host names, on a route below whose name agents answer under their ids.
    pub(crate) fn agent_named(&self, route: &Route) -> Option<AgentKey> {
        let HostPattern::Below(parent) = &route.config.host else {
            return None;
        };
        // One label, so that an id with a dot stands for no other name.
        let (label, rest) = self.authority.host.split_once('.')?;
        let agent = AgentId::parse(label).ok()?;
        (*rest == **parent).then(|| AgentKey {
            tenant: route.config.tenant.clone(),
            agent,
        })
    }

    /// Limits and address rules, the cheapest first.
    pub(crate) fn admit(&self, viewer: &Viewer, route: &Route) -> Result<(), Failure> {
        let rules = viewer.door.rules();
        let source = self.client.ip();
        let allowed =
            |nets: &[ipnet::IpNet]| nets.is_empty() || nets.iter().any(|net| net.contains(&source));
        if !allowed(&rules.allow_cidrs) || !allowed(&rules.config.allow_cidrs) {
            let refused = Refused::by_hub(
                Why::Address,
                DenialCode::CidrBlocked,
                "the client's address is not in allow_cidrs",
            );
            return Err(self.refused(viewer, route, refused));
        }
        let now = viewer.hub.uptime();
        // What one source is refused must not cost the others anything.
        if !rules.rate_per_source.allows(source, now) || !route.rate.allows(now) {
            return Err(Failure::rate_limited());
        }
        Ok(())
    }

    /// A denial of the hub itself, with its record.
    pub(crate) fn refused(&self, viewer: &Viewer, route: &Route, refused: Refused) -> Failure {
        let rules = viewer.door.rules();
        let names = (&route.endpoint, &route.connector.name);
        let authorizer = viewer.hub.authorizer();
        let denial = authorizer.refuse_request(self.client, &rules.text, names, refused);
        Failure::by_denial(&denial)
    }
}
