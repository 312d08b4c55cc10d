//! Templates such as `{client.ip}` or `site={agent.attr.site}`.

use std::net::IpAddr;

/// What a request looks like to templates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// Names this request in logs.
    pub request_id: &'a str,
    /// The tenant, where it is not the default one.
    pub tenant: Option<&'a str>,
    /// Address of the client.
    pub client_ip: &'a str,
    /// Port of the client.
    pub client_port: u16,
    /// Subject of the viewer.
    pub viewer_subject: Option<&'a str>,
    /// Issuer that vouches for the viewer.
    pub viewer_issuer: Option<&'a str>,
    /// Further facts about the viewer.
    pub viewer_attributes: &'a [(String, String)],
    /// Id of the agent.
    pub agent_id: &'a str,
    /// Further facts about the agent, such as `ip` or `target.host`.
    pub agent_attributes: &'a [(String, String)],
    /// The published name.
    pub endpoint: &'a str,
    /// The connector behind it.
    pub connector: &'a str,
    /// Method, scheme, authority and path of the request.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and port as the client named them.
    pub authority: &'a str,
    /// Path with query.
    pub path: &'a str,
}

/// How many leading bits of an address stay when it is masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskBits {
    /// Of 32.
    pub ipv4: u8,
    /// Of 128.
    pub ipv6: u8,
}

/// Fills in a template; `None` where one of the facts is not there, because half a value says
/// something wrong.
pub fn fill(template: &str, facts: &Facts<'_>, bits: MaskBits) -> Option<String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (expression, after) = after.split_once('}')?;
        filled.push_str(before);
        filled.push_str(&value(expression, facts, bits)?);
        rest = after;
    }
    filled.push_str(rest);
    // Line breaks would start a header of their own; the host refuses them too.
    (!filled.is_empty() && !filled.chars().any(char::is_control)).then_some(filled)
}

/// Checks that a template names only facts that exist.
pub fn check(template: &str) -> Result<(), String> {
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((expression, after)) = after.split_once('}') else {
            return Err(format!("template `{template}` has a `{{` without its `}}`"));
        };
        let name = expression.strip_suffix("|mask").unwrap_or(expression);
        let is_known = name
            .strip_prefix("agent.attr.")
            .or_else(|| name.strip_prefix("viewer.attr."))
            .map_or_else(|| NAMES.contains(&name), |attribute| !attribute.is_empty());
        if !is_known {
            return Err(format!(
                "template `{template}` names `{name}`; known are {}, agent.attr.<name> and \
                 viewer.attr.<name>",
                NAMES.join(", ")
            ));
        }
        rest = after;
    }
    Ok(())
}

const NAMES: [&str; 13] = [
    "request.id",
    "tenant",
    "client.ip",
    "client.port",
    "viewer.subject",
    "viewer.issuer",
    "agent.id",
    "endpoint",
    "connector",
    "method",
    "scheme",
    "host",
    "path",
];

fn value(expression: &str, facts: &Facts<'_>, bits: MaskBits) -> Option<String> {
    match expression.strip_suffix("|mask") {
        Some(name) => mask_ip(&fact(name, facts)?, bits),
        None => fact(expression, facts),
    }
}

fn fact(name: &str, facts: &Facts<'_>) -> Option<String> {
    if let Some(name) = name.strip_prefix("agent.attr.") {
        return attribute(facts.agent_attributes, name);
    }
    if let Some(name) = name.strip_prefix("viewer.attr.") {
        return attribute(facts.viewer_attributes, name);
    }
    let value = match name {
        "request.id" => facts.request_id,
        "tenant" => facts.tenant.unwrap_or("default"),
        "client.ip" => facts.client_ip,
        "client.port" => return Some(facts.client_port.to_string()),
        "viewer.subject" => facts.viewer_subject?,
        "viewer.issuer" => facts.viewer_issuer?,
        "agent.id" => facts.agent_id,
        "endpoint" => facts.endpoint,
        "connector" => facts.connector,
        "method" => facts.method,
        "scheme" => facts.scheme,
        "host" => facts.authority,
        "path" => facts.path,
        _ => return None,
    };
    Some(value.to_owned())
}

fn attribute(attributes: &[(String, String)], name: &str) -> Option<String> {
    attributes
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.clone())
}

/// Zeroes all but the leading bits; `None` where the text is no address.
pub fn mask_ip(text: &str, bits: MaskBits) -> Option<String> {
    Some(match text.parse().ok()? {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.ipv4.min(32)));
            IpAddr::from((u32::from(ip) & mask.unwrap_or(0)).to_be_bytes()).to_string()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.ipv6.min(128)));
            IpAddr::from((u128::from(ip) & mask.unwrap_or(0)).to_be_bytes()).to_string()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{Facts, MaskBits, check, fill, mask_ip};

    const BITS: MaskBits = MaskBits { ipv4: 24, ipv6: 48 };

    #[test]
    fn facts_are_filled_in() {
        let attributes = [("site".to_owned(), "oslo".to_owned())];
        let facts = Facts {
            client_ip: "192.0.2.77",
            agent_id: "a1",
            agent_attributes: &attributes,
            ..Facts::default()
        };
        let filled = |template| fill(template, &facts, BITS);
        assert_eq!(filled("{client.ip}").as_deref(), Some("192.0.2.77"));
        assert_eq!(filled("{client.ip|mask}").as_deref(), Some("192.0.2.0"));
        assert_eq!(
            filled("{agent.id}@{agent.attr.site}!").as_deref(),
            Some("a1@oslo!")
        );
        assert_eq!(filled("{tenant}").as_deref(), Some("default"));
    }

    #[test]
    fn a_missing_fact_makes_no_half_value() {
        let facts = Facts::default();
        assert_eq!(fill("user={viewer.subject}", &facts, BITS), None);
        assert_eq!(fill("{agent.attr.site}", &facts, BITS), None);
    }

    #[test]
    fn a_value_cannot_start_a_header_of_its_own() {
        let facts = Facts {
            viewer_subject: Some("a\r\nx-admin: 1"),
            ..Facts::default()
        };
        assert_eq!(fill("{viewer.subject}", &facts, BITS), None);
    }

    #[test]
    fn addresses_are_masked_by_bits() {
        assert_eq!(
            mask_ip("2001:db8:1:2::3", BITS).as_deref(),
            Some("2001:db8:1::")
        );
        let all = MaskBits { ipv4: 0, ipv6: 0 };
        assert_eq!(mask_ip("192.0.2.1", all).as_deref(), Some("0.0.0.0"));
        let none = MaskBits {
            ipv4: 32,
            ipv6: 128,
        };
        assert_eq!(mask_ip("192.0.2.1", none).as_deref(), Some("192.0.2.1"));
        assert_eq!(mask_ip("host.example", BITS), None);
    }

    #[test]
    fn templates_are_checked_when_loaded() {
        assert!(check("{agent.id}-{viewer.attr.mail|mask}").is_ok());
        assert!(check("plain").is_ok());
        assert!(check("{agent.di}").is_err());
        assert!(check("{agent.attr.}").is_err());
        assert!(check("{agent.id").is_err());
    }
}
