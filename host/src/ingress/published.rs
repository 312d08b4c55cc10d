//! Names that agents publish while the hub runs, as routes.
//!
//! The control plane keeps the names; each gets its [`Route`] here when it is asked for the first
//! time, with what a configured route has where the file says no more. A configured route for
//! exactly the same host goes before it, one for a wildcard comes after it. Requests are decided
//! about as for any route.

use std::sync::Arc;

use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use super::route::Route;
use crate::connector;
use crate::control::{Protocol, Published};
use crate::hub::Hub;

/// Routes of published names: at most as many as there are names, and a second's worth of those
/// that are gone.
#[derive(Debug, Default)]
pub(crate) struct PublishedRoutes {
    routes: RwLock<FxHashMap<Arc<str>, Kept>>,
}

/// What a name stood for when its route was made.
#[derive(Debug)]
struct Kept {
    published: Arc<Published>,
    route: Arc<Route>,
}

impl PublishedRoutes {
    /// The route of a normalised host, if an agent publishes HTTP under it.
    pub(crate) fn find(&self, hub: &Hub, host: &str) -> Option<Arc<Route>> {
        let published = hub.published.find(host)?;
        if published.protocol != Protocol::Http {
            return None;
        }
        let kept = self.routes.read().get(host).and_then(|kept| {
            Arc::ptr_eq(&kept.published, &published).then(|| Arc::clone(&kept.route))
        });
        kept.or_else(|| self.add(hub, published))
    }

    fn add(&self, hub: &Hub, published: Arc<Published>) -> Option<Arc<Route>> {
        super::reload::put_listener_rows(hub, &published.agent.tenant);
        // Held while the route is made, so that neither a reload nor the end of the name comes
        // between the configuration, the metrics and the table.
        let mut routes = self.routes.write();
        let route = Arc::new(Route::published(hub, &hub.config.load(), &published)?);
        let kept = Kept {
            published: Arc::clone(&published),
            route: Arc::clone(&route),
        };
        routes.insert(Arc::clone(&published.host), kept);
        Some(route)
    }

    /// Another configuration is in force: each name gets its route anew.
    pub(crate) fn forget_all(&self) {
        self.routes.write().clear();
    }

    /// Lets go of the names that nobody publishes any more, with their series and connectors.
    pub(crate) fn sweep(&self, hub: &Hub) {
        let mut routes = self.routes.write();
        let gone = routes.extract_if(|_, kept| !hub.published.is_current(&kept.published));
        for (host, kept) in gone {
            let now = hub.published.find(&host);
            let is_same = |published: &Arc<Published>| published.id == kept.published.id;
            if now.is_none() {
                hub.metrics
                    .http
                    .forget_endpoint(kept.route.endpoint.as_str());
            }
            let key = &kept.route.connector.key;
            if !now.as_ref().is_some_and(is_same)
                && !connector::is_configured(&hub.config.load(), key)
            {
                hub.connectors.forget(key);
                hub.metrics.traffic.forget_connector(&key.to_string());
            }
        }
    }
}
