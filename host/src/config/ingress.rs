//! HTTP by host name.

mod check;
mod limits;
mod listener;
mod route;

use std::collections::{BTreeMap, BTreeSet};

use super::build::Surroundings;
use super::file::{IngressFile, SecurityFile};
use super::problem::Problems;
use super::tree::Path;
use super::{AcmeConfig, ConnectorKey, ViewerAuthConfig};
use check::{check_files, check_issuing, check_viewer_auth};
pub use limits::{IngressLimits, MinRate};
pub use listener::{HttpListenerConfig, HttpTls};
pub(super) use route::host_header;
pub use route::{OriginHttp, RouteConfig, Sticky};

/// `ingress`: public HTTP ports and what they lead to.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressConfig {
    /// The ports. Names are unique among all listeners, ports among all ports.
    pub listeners: Vec<HttpListenerConfig>,
    /// The routes. No two are alike in host, path and the way it is compared; names are unique
    /// within a tenant.
    pub routes: Vec<RouteConfig>,
    /// How viewers say who they are. Names are unique, and every name in a route is one of these.
    pub viewer_auth: Vec<ViewerAuthConfig>,
    /// Whether the hub sets `X-Forwarded-*` and `Forwarded`.
    pub forwarded_headers: bool,
    /// Who issues certificates for names that no file fits.
    pub acme: Option<AcmeConfig>,
    /// Bounds on viewers and origins.
    pub limits: IngressLimits,
}

impl IngressConfig {
    pub(super) fn build(
        file: &IngressFile,
        path: &Path,
        security: &SecurityFile,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        let at = path.key("listeners");
        let mut listeners = Vec::with_capacity(file.listeners.len());
        for (index, listener) in file.listeners.iter().enumerate() {
            let at = at.index(index);
            listeners.extend(HttpListenerConfig::build(listener, &at, around, problems));
        }
        let at = path.key("routes");
        let mut routes: Vec<RouteConfig> = Vec::with_capacity(file.routes.len());
        let mut taken = BTreeMap::new();
        let mut names = BTreeSet::new();
        for (index, route) in file.routes.iter().enumerate() {
            let at = at.index(index);
            let Some(route) = RouteConfig::build(route, &at, problems) else {
                continue;
            };
            route.check_agent_label(file.agent_label, &at, problems);
            if !names.insert((route.tenant.clone(), route.name.clone())) {
                problems.add_with_help(
                    &at.key("name"),
                    format!("the route name `{}` is used twice", route.name),
                    "give each route of a tenant a name of its own: it is its endpoint's name",
                );
            }
            let place = (route.host.clone(), route.path.clone(), route.exact);
            if let Some(first) = taken.insert(place, index) {
                problems.add_with_help(
                    &at.key("path"),
                    format!("`{at}` answers to the same host and path as `{path}.routes[{first}]`"),
                    "give one of them another `host`, `path` or `path_match`",
                );
            }
            routes.push(route);
        }
        let viewer_auth = Self::viewer_auth(file, path, security, around, problems);
        check_viewer_auth(&routes, &viewer_auth, &listeners, path, problems);
        let at = path.key("acme");
        let acme = file.acme.as_ref();
        let acme = acme.and_then(|acme| AcmeConfig::build(acme, &at, around, problems));
        match &file.acme {
            Some(_) => check_issuing(acme.as_ref(), &listeners, &at, problems),
            None => check_files(&file.listeners, &path.key("listeners"), problems),
        }
        Self {
            listeners,
            routes,
            viewer_auth,
            forwarded_headers: file.forwarded_headers,
            acme,
            limits: IngressLimits::build(&file.limits),
        }
    }

    fn viewer_auth(
        file: &IngressFile,
        path: &Path,
        security: &SecurityFile,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Vec<ViewerAuthConfig> {
        let at = path.key("viewer_auth");
        let of_agents = (security, &Path::dotted("security"));
        let mut sets: Vec<ViewerAuthConfig> = Vec::with_capacity(file.viewer_auth.len());
        for (index, set) in file.viewer_auth.iter().enumerate() {
            let at = at.index(index);
            let Some(set) = ViewerAuthConfig::build(set, &at, of_agents, around, problems) else {
                continue;
            };
            if sets.iter().any(|other| other.name == set.name) {
                problems.add_with_help(
                    &at.key("name"),
                    format!("the name `{}` is used twice", set.name),
                    "routes name one of `viewer_auth`: give each a name of its own",
                );
            }
            sets.push(set);
        }
        sets
    }

    /// The connectors that routes lead to.
    pub(crate) fn connectors(&self) -> impl Iterator<Item = ConnectorKey> {
        self.routes.iter().map(RouteConfig::connector_key)
    }
}
