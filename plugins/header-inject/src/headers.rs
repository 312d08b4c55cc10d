//! Which headers are set to what.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::template::{self, Facts, MaskBits, fill};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The plugin's settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// What to do with `x-forwarded-for`.
    pub forwarded_for: ForwardedFor,
    /// Set `x-netbore-client-ip`.
    pub client_ip: bool,
    /// Set `x-netbore-agent-ip`, from the agent's attribute `ip`.
    pub agent_ip: AgentIp,
    /// Set `datum-node-id`, and from the agent's attributes `target.host`, `target.port` and
    /// `target.proto` the headers `datum-target-host`, `-port` and `-proto`.
    pub datum: bool,
    /// Further headers, by name, from templates.
    pub set: BTreeMap<String, String>,
    /// Headers that never reach the origin.
    pub remove: Vec<String>,
    /// Leading bits that a masked IPv4 address keeps.
    pub mask_ipv4_bits: u8,
    /// Leading bits that a masked IPv6 address keeps.
    pub mask_ipv6_bits: u8,
}

impl Default for Headers {
    fn default() -> Self {
        Self {
            forwarded_for: ForwardedFor::Replace,
            client_ip: true,
            agent_ip: AgentIp::Masked,
            datum: false,
            set: BTreeMap::new(),
            remove: Vec::new(),
            mask_ipv4_bits: 24,
            mask_ipv6_bits: 48,
        }
    }
}

/// What to do with `x-forwarded-for`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardedFor {
    /// Only the address that the hub saw; what the client wrote is gone.
    Replace,
    /// Behind what was there; right only where a trusted proxy is in front of the hub.
    Append,
    /// Leave it alone.
    Off,
}

/// How the agent's address is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentIp {
    /// With its last bits zeroed.
    Masked,
    /// In full.
    Full,
    /// Not at all; a client's own header of that name is removed.
    Off,
}

/// One change to the headers of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Edit {
    /// Replace all of that name by this.
    Set(String, String),
    /// Remove all of that name.
    Remove(String),
}

impl Headers {
    /// Reads and checks settings.
    pub fn parse(json: &str) -> Result<Self, String> {
        let headers: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        for (name, template) in &headers.set {
            check_name(name)?;
            template::check(template)?;
        }
        headers
            .remove
            .iter()
            .try_for_each(|name| check_name(name))?;
        if headers.mask_ipv4_bits > 32 || headers.mask_ipv6_bits > 128 {
            return Err("`mask_ipv4_bits` is at most 32, `mask_ipv6_bits` at most 128".to_owned());
        }
        Ok(headers)
    }

    /// The edits for one request. `present` are the headers that it has, in lower case.
    pub fn edits(&self, facts: &Facts<'_>, present: &[(&str, &[u8])]) -> Vec<Edit> {
        let mut edits = Edits {
            facts,
            present,
            bits: MaskBits {
                ipv4: self.mask_ipv4_bits,
                ipv6: self.mask_ipv6_bits,
            },
            edits: Vec::new(),
        };
        match self.forwarded_for {
            ForwardedFor::Replace => edits.set(FORWARDED_FOR, "{client.ip}"),
            ForwardedFor::Append => edits.append_forwarded_for(),
            ForwardedFor::Off => {}
        }
        if self.client_ip {
            edits.set("x-netbore-client-ip", "{client.ip}");
        }
        match self.agent_ip {
            AgentIp::Masked => edits.set("x-netbore-agent-ip", "{agent.attr.ip|mask}"),
            AgentIp::Full => edits.set("x-netbore-agent-ip", "{agent.attr.ip}"),
            AgentIp::Off => edits.remove("x-netbore-agent-ip"),
        }
        if self.datum {
            edits.set("datum-node-id", "{agent.id}");
            edits.set("datum-target-host", "{agent.attr.target.host}");
            edits.set("datum-target-port", "{agent.attr.target.port}");
            edits.set("datum-target-proto", "{agent.attr.target.proto}");
        }
        for (name, template) in &self.set {
            edits.set(name, template);
        }
        for name in &self.remove {
            edits.remove(name);
        }
        edits.edits
    }
}

struct Edits<'a> {
    facts: &'a Facts<'a>,
    present: &'a [(&'a str, &'a [u8])],
    bits: MaskBits,
    edits: Vec<Edit>,
}

impl Edits<'_> {
    fn set(&mut self, name: &str, template: &str) {
        match fill(template, self.facts, self.bits) {
            Some(value) => self.edits.push(Edit::Set(name.to_owned(), value)),
            None => self.remove(name),
        }
    }

    fn remove(&mut self, name: &str) {
        if self.present.iter().any(|(present, _)| *present == name) {
            self.edits.push(Edit::Remove(name.to_owned()));
        }
    }

    fn append_forwarded_for(&mut self) {
        let mut hops: Vec<&str> = self
            .present
            .iter()
            .filter(|(name, _)| *name == FORWARDED_FOR)
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
            .collect();
        hops.push(self.facts.client_ip);
        let value = hops.join(", ");
        self.edits.push(Edit::Set(FORWARDED_FOR.to_owned(), value));
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_good = !name.is_empty()
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
    if is_good {
        Ok(())
    } else {
        Err(format!(
            "header name `{name}` must be lower-case letters, digits and `-`"
        ))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::{Edit, Headers};
    use crate::template::Facts;

    #[test]
    fn by_default_the_origin_learns_the_client_and_a_masked_agent() {
        let attributes = [("ip".to_owned(), "198.51.100.23".to_owned())];
        let edits = Headers::default().edits(&facts(&attributes), &[]);
        assert_eq!(
            edits,
            [
                set("x-forwarded-for", "192.0.2.1"),
                set("x-netbore-client-ip", "192.0.2.1"),
                set("x-netbore-agent-ip", "198.51.100.0"),
            ]
        );
    }

    #[test]
    fn a_clients_own_copy_never_survives() {
        let present: [(&str, &[u8]); 2] = [
            ("x-netbore-agent-ip", b"10.0.0.1"),
            ("x-forwarded-for", b"10.0.0.1"),
        ];
        let edits = Headers::default().edits(&facts(&[]), &present);
        assert!(edits.contains(&Edit::Remove("x-netbore-agent-ip".to_owned())));
        assert!(edits.contains(&set("x-forwarded-for", "192.0.2.1")));
    }

    #[test]
    fn behind_a_trusted_proxy_the_address_is_appended() {
        let headers = Headers::parse(r#"{"forwarded_for": "append"}"#).unwrap();
        let present: [(&str, &[u8]); 1] = [("x-forwarded-for", b"203.0.113.9")];
        let edits = headers.edits(&facts(&[]), &present);
        assert!(edits.contains(&set("x-forwarded-for", "203.0.113.9, 192.0.2.1")));
    }

    #[test]
    fn datum_headers_say_where_the_connector_leads() {
        let headers = Headers::parse(r#"{"datum": true}"#).unwrap();
        let attributes = [
            ("target.host".to_owned(), "db.internal".to_owned()),
            ("target.port".to_owned(), "5432".to_owned()),
        ];
        let present: [(&str, &[u8]); 1] = [("datum-target-proto", b"http")];
        let edits = headers.edits(&facts(&attributes), &present);
        assert!(edits.contains(&set("datum-node-id", "site-1")));
        assert!(edits.contains(&set("datum-target-host", "db.internal")));
        assert!(edits.contains(&set("datum-target-port", "5432")));
        assert!(edits.contains(&Edit::Remove("datum-target-proto".to_owned())));
    }

    #[test]
    fn further_headers_come_from_templates() {
        let headers =
            Headers::parse(r#"{"set": {"x-tenant-id": "{tenant}"}, "remove": ["x-debug"]}"#)
                .unwrap();
        let present: [(&str, &[u8]); 1] = [("x-debug", b"1")];
        let edits = headers.edits(&facts(&[]), &present);
        assert!(edits.contains(&set("x-tenant-id", "default")));
        assert!(edits.contains(&Edit::Remove("x-debug".to_owned())));
    }

    #[test]
    fn settings_that_are_not_understood_are_refused() {
        for bad in [
            r#"{"forwarded": "append"}"#,
            r#"{"set": {"X-Tenant": "a"}}"#,
            r#"{"set": {"x-tenant": "{tennant}"}}"#,
            r#"{"remove": [""]}"#,
            r#"{"mask_ipv4_bits": 33}"#,
        ] {
            assert!(Headers::parse(bad).is_err(), "{bad}");
        }
    }

    fn facts(agent_attributes: &[(String, String)]) -> Facts<'_> {
        Facts {
            client_ip: "192.0.2.1",
            agent_id: "site-1",
            agent_attributes,
            ..Facts::default()
        }
    }

    fn set(name: &str, value: &str) -> Edit {
        Edit::Set(name.to_owned(), value.to_owned())
    }
}
