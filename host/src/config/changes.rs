//! What a running hub can take over.

use super::CloudConfig;

/// The difference of two configurations, for a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Sections (dotted keys such as `listeners`, `tunnel.tls`) that a running hub takes over.
    pub live: Vec<&'static str>,
    /// Keys whose new value needs a restart; the hub goes on with the old value of these.
    pub restart: Vec<&'static str>,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.restart.is_empty()
    }

    /// Whether a section changed that can be taken over.
    #[must_use]
    pub fn touches(&self, section: &str) -> bool {
        self.live.contains(&section)
    }

    fn live(&mut self, section: &'static str, changed: bool) {
        if changed {
            self.live.push(section);
        }
    }

    fn restart(&mut self, key: &'static str, changed: bool) {
        if changed {
            self.restart.push(key);
        }
    }
}

impl CloudConfig {
    /// What changed from `old`, by section, and whether a running hub can take it over. A
    /// section is in `live` only for what differs beside its keys in `restart`.
    #[must_use]
    pub fn changes_from(&self, old: &Self) -> Changes {
        let mut changes = Changes::default();
        let next = self.keeping_fixed(old);
        changes.live("listeners", next.listeners != old.listeners);
        changes.live("ingress", next.ingress != old.ingress);
        changes.live("connectors", next.connectors != old.connectors);
        changes.live("tunnel.tls", next.tunnel.tls != old.tunnel.tls);
        let mut tunnel = next.tunnel.clone();
        tunnel.tls.clone_from(&old.tunnel.tls);
        changes.live("tunnel", tunnel != old.tunnel);
        changes.live("limits", next.limits != old.limits);
        changes.live("security", next.security != old.security);
        changes.live("policy", next.policy != old.policy);
        changes.live("plugins", next.plugins != old.plugins);
        changes.live(
            "observability.log_level",
            next.observability.log_level != old.observability.log_level,
        );
        let mut observability = next.observability.clone();
        observability
            .log_level
            .clone_from(&old.observability.log_level);
        changes.live("observability", observability != old.observability);
        changes.live("admin", next.admin != old.admin);
        changes.live("pdp", next.pdp != old.pdp);
        changes.live("control", next.control != old.control);
        changes.live("ha", next.ha != old.ha);
        self.fixed_changes(old, &mut changes);
        changes
    }

    /// This configuration with the old values of every key that needs a restart: what a running
    /// hub works with after a reload.
    #[must_use]
    pub fn keeping_fixed(&self, old: &Self) -> Self {
        let mut next = self.clone();
        next.replica_id = old.replica_id.clone();
        next.ha.mesh.listen = old.ha.mesh.listen;
        next.tunnel.host = old.tunnel.host;
        next.tunnel.port = old.tunnel.port;
        next.tunnel.workers = old.tunnel.workers;
        if next.tunnel.tls.is_none() {
            // Going on in clear is not a thing to do on the way: agents that ask for TLS would
            // be cut off, and tokens would pass in clear.
            next.tunnel.tls.clone_from(&old.tunnel.tls);
        }
        next.limits.window_pool_bytes = old.limits.window_pool_bytes;
        next.security.revocation_max_entries = old.security.revocation_max_entries;
        let (kept, new) = (&old.observability, &mut next.observability);
        new.metrics_host = kept.metrics_host;
        new.metrics_port = kept.metrics_port;
        new.log_format = kept.log_format;
        new.log_queue = kept.log_queue;
        new.otlp_endpoint.clone_from(&kept.otlp_endpoint);
        new.otlp_headers.clone_from(&kept.otlp_headers);
        new.otlp_timeout = kept.otlp_timeout;
        new.otlp_sample_ratio = kept.otlp_sample_ratio;
        new.service_name.clone_from(&kept.service_name);
        new.decision_log.clone_from(&kept.decision_log);
        new.redaction = kept.redaction;
        match (&mut next.ingress.acme, &old.ingress.acme) {
            (Some(new), Some(kept)) => new.state_file.clone_from(&kept.state_file),
            // The state file is opened at the start.
            (new @ Some(_), None) => *new = None,
            (None, _) => {}
        }
        next.admin.socket.clone_from(&old.admin.socket);
        next.admin.listen = old.admin.listen;
        // What was given out rests on these: names, keys and how long they have to prove.
        let (kept, new) = (&old.control, &mut next.control);
        new.listen = kept.listen;
        new.state_file.clone_from(&kept.state_file);
        new.public_url.clone_from(&kept.public_url);
        new.domain.clone_from(&kept.domain);
        new.tokens.clone_from(&kept.tokens);
        new.tcp_ports.clone_from(&kept.tcp_ports);
        new.anonymous_recreate = kept.anonymous_recreate;
        next.plugins.cache_dir.clone_from(&old.plugins.cache_dir);
        next.plugins.instances_max = old.plugins.instances_max;
        next.plugins.ca_bundle.clone_from(&old.plugins.ca_bundle);
        next.policy.decisions_kept = old.policy.decisions_kept;
        next.policy.requests_kept_bytes = old.policy.requests_kept_bytes;
        match (&mut next.policy.bundle, &old.policy.bundle) {
            (Some(new), Some(kept)) => new.state_dir.clone_from(&kept.state_dir),
            (None, None) => {}
            // Where the policies come from is decided once.
            (Some(_), None) | (None, Some(_)) => {
                next.policy.bundle.clone_from(&old.policy.bundle);
                next.policy.dir.clone_from(&old.policy.dir);
            }
        }
        next
    }

    fn fixed_changes(&self, old: &Self, changes: &mut Changes) {
        changes.restart("ha.replica_id", self.replica_id != old.replica_id);
        changes.restart("ha.mesh.listen", self.ha.mesh.listen != old.ha.mesh.listen);
        changes.restart("tunnel.host", self.tunnel.host != old.tunnel.host);
        changes.restart("tunnel.port", self.tunnel.port != old.tunnel.port);
        changes.restart("tunnel.workers", self.tunnel.workers != old.tunnel.workers);
        changes.restart(
            "tunnel.tls",
            self.tunnel.tls.is_none() && old.tunnel.tls.is_some(),
        );
        changes.restart(
            "limits.window_pool_bytes",
            self.limits.window_pool_bytes != old.limits.window_pool_bytes,
        );
        changes.restart(
            "security.revocation_max_entries",
            self.security.revocation_max_entries != old.security.revocation_max_entries,
        );
        let (new, kept) = (&self.observability, &old.observability);
        changes.restart(
            "observability.metrics_host",
            new.metrics_host != kept.metrics_host,
        );
        changes.restart(
            "observability.metrics_port",
            new.metrics_port != kept.metrics_port,
        );
        changes.restart(
            "observability.log_format",
            new.log_format != kept.log_format,
        );
        changes.restart("observability.log_queue", new.log_queue != kept.log_queue);
        changes.restart(
            "observability.otlp_endpoint",
            new.otlp_endpoint != kept.otlp_endpoint,
        );
        changes.restart(
            "observability.otlp_headers",
            new.otlp_headers != kept.otlp_headers,
        );
        changes.restart(
            "observability.otlp_timeout_ms",
            new.otlp_timeout != kept.otlp_timeout,
        );
        changes.restart(
            "observability.otlp_sample_ratio",
            new.otlp_sample_ratio.to_bits() != kept.otlp_sample_ratio.to_bits(),
        );
        changes.restart(
            "observability.service_name",
            new.service_name != kept.service_name,
        );
        changes.restart(
            "observability.decision_log",
            new.decision_log != kept.decision_log,
        );
        changes.restart("observability.redaction", new.redaction != kept.redaction);
        let state_file = |config: &Self| {
            let acme = config.ingress.acme.as_ref();
            acme.map(|acme| acme.state_file.clone())
        };
        changes.restart(
            "ingress.acme.state_file",
            self.ingress.acme.is_some() && state_file(self) != state_file(old),
        );
        changes.restart("admin.socket", self.admin.socket != old.admin.socket);
        changes.restart("admin.listen", self.admin.listen != old.admin.listen);
        let (control, kept) = (&self.control, &old.control);
        changes.restart("control.listen", control.listen != kept.listen);
        changes.restart("control.state_file", control.state_file != kept.state_file);
        changes.restart("control.public_url", control.public_url != kept.public_url);
        changes.restart("control.domain", control.domain != kept.domain);
        changes.restart("control.tokens", control.tokens != kept.tokens);
        changes.restart("control.tcp_ports", control.tcp_ports != kept.tcp_ports);
        changes.restart(
            "control.anonymous.recreate_sec",
            control.anonymous_recreate != kept.anonymous_recreate,
        );
        changes.restart(
            "policy.bundle.trusted_keys",
            self.policy.bundle.is_some() != old.policy.bundle.is_some(),
        );
        let dirs = (self.policy.bundle.as_ref(), old.policy.bundle.as_ref());
        changes.restart(
            "policy.bundle.state_dir",
            matches!(dirs, (Some(new), Some(kept)) if new.state_dir != kept.state_dir),
        );
        changes.restart(
            "plugins.instances_max",
            self.plugins.instances_max != old.plugins.instances_max,
        );
        changes.restart(
            "plugins.ca_bundle",
            self.plugins.ca_bundle != old.plugins.ca_bundle,
        );
        changes.restart(
            "plugins.cache_dir",
            self.plugins.cache_dir != old.plugins.cache_dir,
        );
        changes.restart(
            "policy.decisions_kept",
            self.policy.decisions_kept != old.policy.decisions_kept,
        );
        changes.restart(
            "policy.requests_kept_bytes",
            self.policy.requests_kept_bytes != old.policy.requests_kept_bytes,
        );
    }
}
