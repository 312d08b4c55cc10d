//! A route as it runs: its configuration with what requests need at hand.

use std::sync::Arc;

use nowconnect_policy::{EndpointFacts, Name};
use nowconnect_protocol::ProxyProtocol;

use super::HostPattern;
use super::routes::Place;
use crate::authorize::policy_name;
use crate::config::{CloudConfig, FlowTimes, RouteConfig};
use crate::connector::Connector;
use crate::control::Published;
use crate::hub::Hub;
use crate::limit::Rate;
use crate::telemetry::metrics::EndpointMetrics;
use crate::viewer::ViewerAuth;

/// The owner of an endpoint that the operator configured: no agent can have this id.
const NO_AGENT: &str = "@operator";

/// See the module. Swapped with its table by a reload.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) config: RouteConfig,
    /// How viewers say who they are, where the configuration names it.
    pub(crate) auth: Option<Arc<ViewerAuth>>,
    /// Its endpoint as policies know it.
    pub(crate) endpoint: Name,
    pub(crate) connector: Arc<Connector>,
    pub(crate) times: FlowTimes,
    /// What agents write to the target before the first byte.
    pub(crate) proxy_protocol_out: Option<ProxyProtocol>,
    pub(crate) rate: Rate,
    pub(crate) metrics: Arc<EndpointMetrics>,
}

impl Route {
    pub(crate) fn new(hub: &Hub, config: &CloudConfig, route: &RouteConfig) -> Self {
        let endpoint = policy_name(&route.tenant, route.name.as_str());
        Self::with_endpoint(hub, config, route.clone(), endpoint)
    }

    /// The route of a name that an agent publishes; `None` for a name that no route can have.
    pub(crate) fn published(
        hub: &Hub,
        config: &CloudConfig,
        published: &Published,
    ) -> Option<Self> {
        let route = RouteConfig::published(&published.host, &published.connector)?;
        let endpoint = published.facts.endpoint.clone();
        Some(Self::with_endpoint(hub, config, route, endpoint))
    }

    fn with_endpoint(hub: &Hub, config: &CloudConfig, route: RouteConfig, endpoint: Name) -> Self {
        let settings = config.connector(&route.tenant, &route.connector);
        let defaults = config.limits.flow_times;
        let named = route.viewer_auth.as_ref();
        Self {
            auth: named.and_then(|name| hub.ingress.viewer_auth.load().get(name).cloned()),
            connector: hub.connectors.entry(&route.connector_key(), &hub.metrics),
            times: FlowTimes {
                idle_timeout: route
                    .idle_timeout
                    .or(settings.idle_timeout)
                    .unwrap_or(defaults.idle_timeout),
                stall_timeout: settings.stall_timeout.unwrap_or(defaults.stall_timeout),
                linger: settings.linger.unwrap_or(defaults.linger),
            },
            proxy_protocol_out: settings.proxy_protocol_out,
            rate: Rate::new(route.rate),
            metrics: hub.metrics.http.endpoint(endpoint.as_str()),
            endpoint,
            config: route,
        }
    }

    /// Whether connections to origins are of one viewer: because the route says so, or because each
    /// begins by saying who the client is.
    pub(crate) fn keeps_viewers_apart(&self) -> bool {
        self.config.connections_per_viewer || self.proxy_protocol_out.is_some()
    }

    /// The policies' row of its endpoint.
    pub(crate) fn facts(&self) -> EndpointFacts {
        EndpointFacts {
            endpoint: self.endpoint.clone(),
            owner: policy_name(&self.config.tenant, NO_AGENT),
            host: self.config.host.to_string(),
            reserved: true,
            public: self.config.public,
            tags: self.config.labels.clone().into_iter().collect(),
        }
    }
}

impl Place for Route {
    fn host(&self) -> &HostPattern {
        &self.config.host
    }

    fn path(&self) -> &str {
        &self.config.path
    }

    fn is_exact(&self) -> bool {
        self.config.exact
    }
}
