//! The ports and routes of a configuration: built beside those in force, then put in their place.
//!
//! What is wrong in a file that somebody else than the operator of the hub may write every day, such
//! as one with users, concerns what it is for and nothing else: that set or port keeps its last good
//! form, and the rest comes into force. So nobody can hold up a renewed certificate or the removal of
//! a user elsewhere. What the configuration itself says anew is in force as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nowconnect_policy::{ListenerFacts, Name};
use nowconnect_protocol::TenantName;
use tracing::warn;

use super::Ingress;
use super::door::{Door, DoorRules};
use super::route::Route;
use super::routes::RouteTable;
use crate::authorize::policy_name;
use crate::config::{CloudConfig, HttpListenerConfig, ListenerName};
use crate::hub::Hub;
use crate::telemetry::events;
use crate::telemetry::metrics::Certificate;
use crate::viewer::{IdentityNames, ViewerAuth, ViewerAuthError};

/// Everything new, checked. Dropping it changes nothing.
#[derive(Debug)]
pub(crate) struct NextIngress {
    doors: Vec<NextDoor>,
    viewer_auth: BTreeMap<ListenerName, Arc<ViewerAuth>>,
    /// What keeps its last good form, or has none.
    stale: Vec<IngressError>,
}

/// What a publication has come to.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// What changed about ports, a line each.
    pub(crate) changed: Vec<String>,
    /// What could not be taken over, a line each.
    pub(crate) stale: Vec<String>,
}

#[derive(Debug)]
enum NextDoor {
    /// Its port is bound already; only its rules change.
    Kept(Arc<Door>, Box<DoorRules>),
    /// Its port was bound for this.
    Added(Arc<Door>),
}

/// A part of the configuration that cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngressError {
    /// A port cannot be had.
    #[error("HTTP listener `{name}` cannot be bound to `{bind}`: {error}")]
    Bind {
        name: String,
        bind: std::net::SocketAddr,
        error: std::io::Error,
    },
    /// A certificate cannot be read.
    #[error("HTTP listener `{name}`: {error}")]
    Tls {
        name: String,
        error: crate::tls::TlsError,
    },
    /// A set of `viewer_auth` cannot be had.
    #[error("`ingress.viewer_auth` `{name}`: {error}")]
    ViewerAuth {
        name: String,
        error: ViewerAuthError,
    },
}

impl NextIngress {
    /// Binds added ports and reads every file.
    ///
    /// # Errors
    /// Everything of what the configuration says anew that cannot be had.
    pub(crate) fn build(hub: &Hub, config: &CloudConfig) -> Result<Self, Vec<IngressError>> {
        let bound = hub.ingress.doors.lock().clone();
        let mut doors = Vec::with_capacity(config.ingress.listeners.len());
        let (mut errors, mut stale) = (Vec::new(), Vec::new());
        for listener in &config.ingress.listeners {
            match NextDoor::build(&hub.ingress, &bound, config, listener) {
                Ok((door, error)) => {
                    doors.push(door);
                    stale.extend(error);
                }
                Err(error) => errors.push(error),
            }
        }
        let in_force = hub.config();
        let before = hub.ingress.viewer_auth.load();
        let mut viewer_auth = BTreeMap::new();
        for set in &config.ingress.viewer_auth {
            let kept = before.get(&set.name);
            let built = ViewerAuth::build(set, &config.security, kept.map(AsRef::as_ref));
            let error = match built {
                Ok(built) => {
                    viewer_auth.insert(set.name.clone(), Arc::new(built));
                    continue;
                }
                Err(error) => IngressError::ViewerAuth {
                    name: set.name.to_string(),
                    error,
                },
            };
            if !in_force.ingress.viewer_auth.contains(set) {
                errors.push(error);
                continue;
            }
            // Whom `security` trusts no longer must not be let in by what was read before. Without a
            // last good form, as at a start, the routes of the set let nobody in.
            let is_outlived = set.has("bearer") && in_force.security != config.security;
            if let Some(kept) = kept.filter(|_| !is_outlived) {
                viewer_auth.insert(set.name.clone(), Arc::clone(kept));
            }
            stale.push(error);
        }
        if errors.is_empty() {
            Ok(Self {
                doors,
                viewer_auth,
                stale,
            })
        } else {
            errors.extend(stale);
            Err(errors)
        }
    }

    /// Puts it in force, with the routes of `config`. Ports that were added are to be
    /// [served](super::Ingress::serve) by the caller where the hub does not serve yet.
    pub(crate) fn publish(self, hub: &Arc<Hub>, config: &CloudConfig, serves: bool) -> Published {
        let ingress = &hub.ingress;
        let stale = tell_stale(hub, &self.stale);
        ingress.set_limits(&config.ingress.limits);
        let names = IdentityNames::of(&config.ingress.viewer_auth);
        ingress.identity_names.store(Arc::new(names));
        for auth in self.viewer_auth.values() {
            auth.keep_fresh();
        }
        ingress.viewer_auth.store(Arc::new(self.viewer_auth));
        let mut changed = Vec::new();
        let mut doors = Vec::with_capacity(self.doors.len());
        for door in self.doors {
            match door {
                NextDoor::Kept(door, rules) => {
                    door.set_rules(*rules);
                    doors.push(door);
                }
                NextDoor::Added(door) => {
                    changed.push(format!("HTTP listener {} added", door.rules().text));
                    doors.push(door);
                }
            }
        }
        put_rows(hub, config, &doors);
        ingress.published.forget_all();
        let before = std::mem::replace(&mut *ingress.doors.lock(), doors.clone());
        let is_in =
            |all: &[Arc<Door>], one: &Arc<Door>| all.iter().any(|door| Arc::ptr_eq(door, one));
        for door in before.iter().filter(|door| !is_in(&doors, door)) {
            door.stop();
            changed.push(format!("HTTP listener {} removed", door.rules().text));
        }
        if serves {
            for door in doors.iter().filter(|door| !is_in(&before, door)) {
                door.serve(hub);
            }
        }
        let ends = doors
            .iter()
            .filter_map(|door| door.rules().tls.as_ref()?.files().not_after());
        hub.metrics
            .hub
            .set_certificate(Certificate::Ingress, ends.min());
        ingress.changed.notify_one();
        Published { changed, stale }
    }
}

/// Tells the operator what could not be taken over, as long as that lasts.
fn tell_stale(hub: &Hub, errors: &[IngressError]) -> Vec<String> {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    for error in &lines {
        warn!(
            event = events::RELOAD_REFUSED,
            part = "Ingress",
            %error,
            "a file is refused; what was read before stays in force, and where nothing was, nobody \
             is let in"
        );
    }
    hub.metrics.http.stale(lines.len());
    hub.ingress.stale.store(Arc::new(lines.clone()));
    lines
}

impl NextDoor {
    /// The port, and why its certificates could not be taken over where it keeps those it has.
    fn build(
        ingress: &Ingress,
        bound: &[Arc<Door>],
        config: &CloudConfig,
        listener: &HttpListenerConfig,
    ) -> Result<(Self, Option<IngressError>), IngressError> {
        let kept = bound.iter().find(|door| {
            let before = &door.rules().config;
            // Port 0 is a wish for some port: the listener's name says which one it got.
            before.bind == listener.bind
                && (listener.bind.port() != 0 || before.name == listener.name)
        });
        let tls = DoorRules::read_tls(listener, &ingress.issued);
        let tls = tls.map_err(|error| IngressError::Tls {
            name: listener.name.to_string(),
            error,
        });
        let (tls, stale) = match (tls, kept) {
            (Ok(tls), _) => (tls, None),
            (Err(error), Some(door)) if door.rules().has_the_same_tls(listener) => {
                (door.rules().tls.clone(), Some(error))
            }
            (Err(error), _) => return Err(error),
        };
        let rules = DoorRules::new(config, listener, tls);
        if let Some(door) = kept {
            return Ok((Self::Kept(Arc::clone(door), Box::new(rules)), stale));
        }
        let door = Door::bind(rules).map_err(|error| IngressError::Bind {
            name: listener.name.to_string(),
            bind: listener.bind,
            error,
        })?;
        Ok((Self::Added(door), stale))
    }
}

/// The rows that policies read, before a request can ask about them; those of what is gone leave
/// once no request under way can be asked about again.
fn put_rows(hub: &Hub, config: &CloudConfig, doors: &[Arc<Door>]) {
    let facts = hub.authorizer().facts();
    let routes: Vec<Arc<Route>> = config
        .ingress
        .routes
        .iter()
        .map(|route| Arc::new(Route::new(hub, config, route)))
        .collect();
    let endpoints: Vec<Name> = routes.iter().map(|route| route.endpoint.clone()).collect();
    // A listener is one of each tenant that it serves: what its operator leads to a connector is
    // meant to be reached there.
    for route in &routes {
        facts.put_endpoint(&route.facts());
    }
    let mut rows = hub.ingress.rows.lock();
    let published = hub.published.all();
    let tenants: BTreeSet<&TenantName> = routes
        .iter()
        .map(|route| &route.config.tenant)
        .chain(published.iter().map(|published| &published.agent.tenant))
        .collect();
    let mut listeners: Vec<Name> = Vec::with_capacity(tenants.len() * doors.len());
    for tenant in tenants {
        listeners.extend(doors.iter().map(|door| put_listener(hub, tenant, door)));
    }
    hub.ingress.routes.store(Arc::new(RouteTable::new(routes)));
    let running = hub.ingress.in_flight.collect(|_| true);
    let gone = |row: &Name, used: &dyn Fn(&super::in_flight::InFlight) -> bool, kept: &[Name]| {
        !kept.contains(row) && !running.iter().any(|request| used(request))
    };
    let (mut left_endpoints, mut left_listeners) = (Vec::new(), Vec::new());
    for row in std::mem::take(&mut rows.endpoints) {
        if gone(&row, &|request| request.endpoint == row, &endpoints) {
            facts.remove_endpoint(&row);
            hub.metrics.http.forget_endpoint(row.as_str());
        } else if !endpoints.contains(&row) {
            left_endpoints.push(row);
        }
    }
    for row in std::mem::take(&mut rows.listeners) {
        if gone(&row, &|request| request.listener == row, &listeners) {
            facts.remove_listener(&row);
        } else if !listeners.contains(&row) {
            left_listeners.push(row);
        }
    }
    // A route may have had the row of a name that an agent publishes, which is the name's again.
    for published in hub.published.all() {
        if !endpoints.contains(&published.facts.endpoint) {
            facts.put_endpoint(&published.facts);
        }
    }
    left_endpoints.extend(endpoints);
    left_listeners.extend(listeners);
    rows.endpoints = left_endpoints;
    rows.listeners = left_listeners;
}

/// The rows of every port as one of this tenant, for a name that it publishes.
pub(super) fn put_listener_rows(hub: &Hub, tenant: &TenantName) {
    let doors = hub.ingress.doors.lock().clone();
    let mut rows = hub.ingress.rows.lock();
    for door in &doors {
        let listener = put_listener(hub, tenant, door);
        if !rows.listeners.contains(&listener) {
            rows.listeners.push(listener);
        }
    }
}

fn put_listener(hub: &Hub, tenant: &TenantName, door: &Door) -> Name {
    let listener = policy_name(tenant, &door.rules().text);
    hub.authorizer().facts().put_listener(&ListenerFacts {
        listener: listener.clone(),
        port: door.address.port(),
        protocol: "http".to_owned(),
    });
    listener
}
