//! What a reload has built and not yet published.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use tracing::warn;

use super::{Fault, Part};
use crate::admin::view::ReloadReport;
use crate::admin::{Access, AdminProof};
use crate::cluster::NextMembership;
use crate::config::{Changes, CloudConfig, ListenerConfig};
use crate::connector;
use crate::control::NextControl;
use crate::gateway::mount_pages;
use crate::generation::Generation;
use crate::hub::{Hub, tunnel_settings};
use crate::identity::Authenticator;
use crate::ingress::NextIngress;
use crate::listener::{self, Port, Rules};
use crate::mesh::NextLinks;
use crate::pdp::Pdp;
use crate::revocation::RevocationList;
use crate::telemetry::events;
use crate::telemetry::metrics::Certificate;
use crate::tls::ServerTls;
use crate::tunnel_endpoint::Admissions;
use crate::watch::Watched;

/// Everything new, checked. Dropping it changes nothing.
#[derive(Debug)]
pub(super) struct Candidate {
    generation: Option<Generation>,
    authenticator: Option<Authenticator>,
    revocations: Option<RevocationList>,
    tls: Option<ServerTls>,
    admin: Option<Access>,
    /// `None` where it is not touched.
    pdp: Option<Option<Pdp>>,
    /// `None` where no listener is touched.
    ports: Option<Vec<NextPort>>,
    ingress: Option<NextIngress>,
    control: Option<NextControl>,
    /// `None` where the registry stays as it is.
    membership: Option<NextMembership>,
    /// `None` where the links stay as they are.
    links: Option<NextLinks>,
}

/// A listener of the new configuration.
#[derive(Debug)]
enum NextPort {
    /// Its port is bound already; only its rules change.
    Kept(Arc<Port>, Box<Rules>),
    /// Its port was bound for this.
    Added(Arc<Port>),
}

impl Candidate {
    /// Builds what `what` asks for; adds every fault rather than the first. `None` with any fault,
    /// also with those that were there already.
    pub(super) async fn build(
        hub: &Arc<Hub>,
        config: &Arc<CloudConfig>,
        what: &BTreeSet<Watched>,
        faults: &mut Vec<Fault>,
    ) -> Option<Self> {
        let before = hub.config();
        let all = what.contains(&Watched::Signal);
        let certificates = all || what.contains(&Watched::Certificates);
        let wants_generation = all
            || what.contains(&Watched::Policies) && config.policy.bundle.is_none()
            || what.contains(&Watched::Plugins)
            || config.policy.dir != before.policy.dir
            || config.plugins != before.plugins;
        let generation = if wants_generation {
            let number = hub.generations.next_number();
            let brought = config
                .policy
                .bundle
                .is_some()
                .then(|| hub.generations.current().brought());
            let built = Generation::build(config, &hub.engine, number, brought).await;
            keep(built, Part::Generation, faults)
        } else {
            None
        };
        let authenticator =
            (all || what.contains(&Watched::Keys) || config.security != before.security)
                .then(|| hub.authenticator().rebuilt(&config.security));
        let authenticator = authenticator.and_then(|built| keep(built, Part::Keys, faults));
        let revocations = if config.security.revocation_file != before.security.revocation_file {
            keep(read_revocations(config), Part::Revocation, faults)
        } else {
            None
        };
        let tls = match &config.tunnel.tls {
            Some(files) if certificates || config.tunnel.tls != before.tunnel.tls => {
                keep(load_tls(files), Part::Certificates, faults)
            }
            Some(_) | None => None,
        };
        let admin = match &*hub.admin_access.load() {
            Some(access) if certificates || config.admin != before.admin => {
                let read = AdminProof::read(&config.admin).and_then(|proof| {
                    let checked = access.check(&proof);
                    checked.map_err(|error| error.to_string())
                });
                keep(read, Part::Certificates, faults)
            }
            Some(_) | None => None,
        };
        let pdp_files = config.pdp.token_file.is_some() || config.pdp.ca_bundle.is_some();
        let pdp = if all || certificates && pdp_files || config.pdp != before.pdp {
            keep(Pdp::new(&config.pdp, &hub.metrics), Part::Config, faults)
        } else {
            None
        };
        let ports = if config.listeners != before.listeners
            || config.connectors != before.connectors
            || config.limits != before.limits
            || config.security.allow_cidrs != before.security.allow_cidrs
        {
            Some(next_ports(hub, config, faults))
        } else {
            None
        };
        let has_files = config.ingress.listeners.iter().any(|one| one.tls.is_some())
            || !config.ingress.viewer_auth.is_empty();
        let ingress = if config.ingress != before.ingress
            || config.connectors != before.connectors
            || config.limits != before.limits
            || config.security.allow_cidrs != before.security.allow_cidrs
            || certificates && has_files
            || config.security != before.security && !config.ingress.viewer_auth.is_empty()
        {
            keep_all(NextIngress::build(hub, config), faults)
        } else {
            None
        };
        let control = match hub.control() {
            Some(plane)
                if certificates
                    || config.control != before.control
                    || config.security.audience != before.security.audience =>
            {
                keep(plane.next(config), Part::Certificates, faults)
            }
            Some(_) | None => None,
        };
        let membership = keep(hub.cluster().next(config).await, Part::Config, faults).flatten();
        let links = if certificates || config.ha != before.ha {
            keep(NextLinks::build(config), Part::Certificates, faults)
        } else {
            None
        };
        // Last, because from here on clients can connect to an added port.
        if let Some(ports) = &ports {
            if faults.is_empty() {
                listen(ports, faults);
            }
            unshare(hub, ports);
        }
        faults.is_empty().then_some(Self {
            generation,
            authenticator,
            revocations,
            tls,
            admin,
            pdp,
            ports,
            ingress,
            control,
            membership,
            links,
        })
    }

    /// What was read for it and found good.
    pub(super) fn parts(&self) -> BTreeSet<Part> {
        let built = [
            (Part::Generation, self.generation.is_some()),
            (Part::Keys, self.authenticator.is_some()),
            (Part::Revocation, self.revocations.is_some()),
            (
                Part::Certificates,
                self.tls.is_some() || self.admin.is_some(),
            ),
            (
                Part::Listeners,
                self.ports.is_some() || self.ingress.is_some(),
            ),
        ];
        built
            .into_iter()
            .filter_map(|(part, is_built)| is_built.then_some(part))
            .collect()
    }

    /// Puts everything in force. Nothing here can fail.
    pub(super) fn publish(
        self,
        hub: &Arc<Hub>,
        config: &Arc<CloudConfig>,
        changes: &Changes,
    ) -> ReloadReport {
        let before = hub.config();
        let mut report = ReloadReport {
            changed: changes.live.iter().map(ToString::to_string).collect(),
            needs_restart: changes.restart.iter().map(ToString::to_string).collect(),
            ..ReloadReport::default()
        };
        if let Some(authenticator) = self.authenticator {
            hub.metrics
                .hub
                .set_certificate(Certificate::JwksCaBundle, authenticator.roots_not_after());
            *hub.keys_kept_fresh.lock() = Some(authenticator.keep_fresh());
            hub.authenticator.store(Arc::new(authenticator));
        }
        if let Some(revocations) = self.revocations {
            hub.authorizer.set_revocations(revocations);
            report.changed.push("revocations".to_owned());
        }
        if let Some(tls) = self.tls {
            hub.metrics
                .hub
                .set_certificate(Certificate::Tunnel, tls.not_after());
            hub.tunnel_tls.store(Some(Arc::new(tls)));
            report.changed.push("certificates".to_owned());
        }
        if let (Some(access), Some(next)) = (&*hub.admin_access.load(), self.admin) {
            hub.metrics
                .hub
                .set_certificate(Certificate::Admin, next.not_after());
            access.renew(next);
            report
                .changed
                .push("who may call the admin port".to_owned());
        }
        if let Some(pdp) = self.pdp {
            hub.authorizer.set_pdp(pdp);
        }
        hub.authorizer
            .set_scopes_required(config.security.require_connector_scopes);
        if config.tunnel.handshake != before.tunnel.handshake
            || config.tunnel.trusted_ingress != before.tunnel.trusted_ingress
        {
            hub.admissions.store(Admissions::new(&config.tunnel));
        }
        hub.connections
            .set_limit(usize::try_from(config.limits.max_conn_total).unwrap_or(usize::MAX));
        hub.rate.set(config.limits.rate);
        hub.settings
            .store(Arc::new(tunnel_settings(config, &hub.window_pool)));
        hub.config.store(Arc::clone(config));
        mount_pages(hub, config);
        publish_facts(hub, config);
        if let Some(ports) = self.ports {
            publish_ports(hub, config, ports, &mut report);
        }
        if let Some(ingress) = self.ingress {
            let published = ingress.publish(hub, config, true);
            report.changed.extend(published.changed);
            report.errors.extend(published.stale);
        }
        if let (Some(plane), Some(next)) = (hub.control(), self.control) {
            plane.renew(next, config);
        }
        hub.connectors.apply(config);
        for gone in hub.connectors.retain(config, &hub.published) {
            hub.metrics.traffic.forget_connector(&gone.to_string());
            hub.metrics.health.forget(&gone.to_string());
        }
        if let Some(built) = self.generation {
            let current = hub.generations.current();
            // Another bundle may have come into force while it was built.
            let generation = if current.number() > built.number() {
                built.with_policies(hub.generations.next_number(), current.brought())
            } else {
                built
            };
            let number = generation.number();
            tell_downgrades(&generation, &current, &mut report);
            generation.activated(&hub.metrics);
            hub.generations.publish(generation);
            report.changed.push(format!("generation {number}"));
        }
        hub.cluster().publish(hub, self.membership);
        if let Some(links) = self.links {
            hub.links().publish(hub, links);
        }
        // Last: what was decided before rests on something else than what is in force now.
        hub.generations.touch();
        report
    }
}

/// It may be meant, so it is taken; whoever can write old files must not go unnoticed.
fn tell_downgrades(next: &Generation, before: &Generation, report: &mut ReloadReport) {
    for downgrade in next.plugins().downgrades_from(before.plugins()) {
        warn!(
            target: events::SECURITY,
            event = events::PLUGIN_DOWNGRADED,
            plugin = downgrade.plugin,
            before = downgrade.before,
            now = downgrade.now,
            "a plugin is signed as an earlier version than before; `plugins.list[].version` says \
             which versions may come"
        );
        report.changed.push(format!(
            "plugin {} went back from {} to {}",
            downgrade.plugin, downgrade.before, downgrade.now
        ));
    }
}

fn keep<T, E: ToString>(result: Result<T, E>, part: Part, faults: &mut Vec<Fault>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            faults.push(Fault {
                part,
                message: error.to_string(),
            });
            None
        }
    }
}

fn keep_all<T, E: ToString>(result: Result<T, Vec<E>>, faults: &mut Vec<Fault>) -> Option<T> {
    let errors = match result {
        Ok(value) => return Some(value),
        Err(errors) => errors,
    };
    faults.extend(errors.iter().map(|error| Fault {
        part: Part::Listeners,
        message: error.to_string(),
    }));
    None
}

/// The list that the configuration names.
pub(crate) fn read_revocations(
    config: &CloudConfig,
) -> Result<RevocationList, crate::revocation::RevocationError> {
    match &config.security.revocation_file {
        Some(path) => RevocationList::open(path, config.security.revocation_max_entries),
        None => Ok(RevocationList::empty()),
    }
}

/// The tunnel port's certificate.
pub(crate) fn load_tls(files: &crate::config::TlsFiles) -> Result<ServerTls, crate::tls::TlsError> {
    ServerTls::load(files, &["http/1.1"])
}

fn next_ports(hub: &Arc<Hub>, config: &CloudConfig, faults: &mut Vec<Fault>) -> Vec<NextPort> {
    let mut bound = hub.ports.lock().clone();
    bound.retain(|port| !port.rules().of_tunnel);
    let keeps = |port: &Port, listener: &ListenerConfig| {
        let rules = port.rules();
        // Port 0 is a wish for some port: the listener's name says which one it got.
        rules.config.bind == listener.bind
            && (listener.bind.port() != 0 || rules.config.name == listener.name)
    };
    let leaving: Vec<&Arc<Port>> = bound
        .iter()
        .filter(|port| {
            !config
                .listeners
                .iter()
                .any(|listener| keeps(port, listener))
        })
        .collect();
    let mut next = Vec::with_capacity(config.listeners.len());
    for listener in &config.listeners {
        if let Some(port) = bound.iter().find(|port| keeps(port, listener)) {
            let rules = Rules::new(hub, config, listener, Some(&port.rules()));
            next.push(NextPort::Kept(Arc::clone(port), Box::new(rules)));
            continue;
        }
        let mut beside = leaving
            .iter()
            .filter(|port| port.address.port() == listener.bind.port())
            .peekable();
        let moves = beside.peek().is_some();
        let bound = beside
            .try_for_each(|port| port.share(true))
            .and_then(|()| Port::reserve(Rules::new(hub, config, listener, None), moves));
        match bound {
            Ok(port) => next.push(NextPort::Added(port)),
            Err(error) => faults.push(cannot_bind(listener, &error)),
        }
    }
    next
}

/// Lets clients connect to added ports.
fn listen(ports: &[NextPort], faults: &mut Vec<Fault>) {
    for port in ports {
        if let NextPort::Added(port) = port
            && let Err(error) = port.listen()
        {
            faults.push(cannot_bind(&port.rules().config, &error));
        }
    }
}

/// Nobody can bind over a port of ours any more.
fn unshare(hub: &Hub, added: &[NextPort]) {
    let bound = hub.ports.lock().clone();
    let added = added.iter().filter_map(|port| match port {
        NextPort::Added(port) => Some(port),
        NextPort::Kept(..) => None,
    });
    for port in bound.iter().chain(added) {
        if let Err(error) = port.share(false) {
            warn!(listener = %port.rules().text, %error, "a port stays open to be bound over");
        }
    }
}

fn cannot_bind(listener: &ListenerConfig, error: &io::Error) -> Fault {
    Fault {
        part: Part::Listeners,
        message: format!(
            "listener `{}` cannot be bound to `{}`: {error}",
            listener.name, listener.bind
        ),
    }
}

fn publish_facts(hub: &Hub, config: &CloudConfig) {
    let facts = hub.authorizer.facts();
    for key in connector::configured(config) {
        connector::put_facts(facts, config, &key);
    }
}

fn publish_ports(
    hub: &Arc<Hub>,
    config: &CloudConfig,
    next: Vec<NextPort>,
    report: &mut ReloadReport,
) {
    let facts = hub.authorizer.facts();
    let mut ports = Vec::with_capacity(next.len());
    for port in next {
        match port {
            NextPort::Kept(port, rules) => {
                facts.put_listener(&rules.facts(port.address.port()));
                port.set_rules(*rules);
                ports.push(port);
            }
            NextPort::Added(port) => {
                facts.put_listener(&port.rules().facts(port.address.port()));
                port.serve(hub);
                report
                    .changed
                    .push(format!("listener {} added", port.rules().text));
                ports.push(port);
            }
        }
    }
    let mut bound = hub.ports.lock();
    let (of_tunnels, before): (Vec<_>, Vec<_>) =
        bound.drain(..).partition(|port| port.rules().of_tunnel);
    bound.extend(ports.iter().chain(&of_tunnels).cloned());
    drop(bound);
    for port in of_tunnels {
        let rules = port.rules();
        port.set_rules(Rules::new(hub, config, &rules.config, Some(&rules)));
    }
    for port in before {
        if !ports.iter().any(|kept| Arc::ptr_eq(kept, &port)) {
            port.stop();
            let rules = port.rules();
            hub.retired.lock().push(Arc::clone(&rules));
            report
                .changed
                .push(format!("listener {} removed", rules.text));
        }
    }
    listener::forget_retired(hub);
}
