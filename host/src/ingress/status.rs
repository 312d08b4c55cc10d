//! Ports, routes and published names as operators see them.

use rustc_hash::FxHashMap;

use super::published_status::published;
use crate::admin::view::{HttpListenerStatus, HttpStatus, RouteStatus};
use crate::authorize::policy_name;
use crate::config::RouteConfig;
use crate::hub::Hub;

/// All of them, now.
pub(crate) fn status(hub: &Hub) -> HttpStatus {
    let doors = hub.ingress.doors.lock().clone();
    let listeners = doors
        .iter()
        .map(|door| {
            let rules = door.rules();
            HttpListenerStatus {
                name: rules.text.to_string(),
                address: door.address,
                tls: rules.tls.is_some(),
            }
        })
        .collect();
    let mut requests: FxHashMap<String, u64> = FxHashMap::default();
    for request in hub.ingress.in_flight.collect(|_| true) {
        *requests
            .entry(request.endpoint.as_str().to_owned())
            .or_default() += 1;
    }
    let config = hub.config();
    let routes = config.ingress.routes.iter();
    let routes = routes.map(|route| of_route(hub, route, &requests));
    let (published, published_more) = published(hub, &requests);
    HttpStatus {
        listeners,
        routes: routes.collect(),
        published,
        published_more,
    }
}

fn of_route(hub: &Hub, route: &RouteConfig, requests: &FxHashMap<String, u64>) -> RouteStatus {
    let endpoint = policy_name(&route.tenant, route.name.as_str());
    let connector = route.connector_key();
    let agents = hub.router().pool(&connector).map_or(0, |pool| pool.len());
    let down = hub.connectors.find(&connector);
    let down = down.map_or(0, |connector| connector.down().len());
    RouteStatus {
        host: route.host.to_string(),
        path: if route.exact {
            route.path.clone()
        } else {
            format!("{}/*", route.path)
        },
        connector: connector.to_string(),
        agents: number(agents),
        down: number(down),
        requests: requests.get(endpoint.as_str()).copied().unwrap_or(0),
        endpoint: endpoint.as_str().to_owned(),
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
