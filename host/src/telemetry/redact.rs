//! The redaction floor: what may never leave the process, whatever is configured.
//!
//! It needs no plugin and no configuration, runs in the caller's thread, and acts on log fields
//! and messages, span attributes, decision records and admin answers. It takes out
//!
//! - values behind a sensitive key (`Authorization:`, `token=`, `"password": …`, cookies),
//! - credentials behind a scheme word (`Bearer …`, `Basic …`) and in the `nb_token` subprotocol,
//! - whatever looks like a JWT or a JWE,
//! - the userinfo of URLs,
//! - private keys in PEM.
//!
//! It errs towards taking out too much. It cannot know a secret that stands alone without any
//! such mark; fields that hold one must have a sensitive name, which [`is_sensitive_key`] knows.

mod scan;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// What stands where something was taken out.
pub const ERASED: &str = "***";

/// `text` with every secret that the floor knows replaced by [`ERASED`].
///
/// Text without one comes back borrowed.
pub fn floor(text: &str) -> Cow<'_, str> {
    let ranges = scan::secrets(text);
    if ranges.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut copied = 0;
    for range in ranges {
        if range.start > copied {
            clean.push_str(&text[copied..range.start]);
        }
        if range.end > copied {
            if !clean.ends_with(ERASED) {
                clean.push_str(ERASED);
            }
            copied = range.end;
        }
    }
    clean.push_str(&text[copied..]);
    Cow::Owned(clean)
}

/// Applies [`floor`] to a text in place.
pub fn in_place(text: &mut String) {
    if let Cow::Owned(clean) = floor(text) {
        *text = clean;
    }
}

/// Whether the value of a field or parameter of this name is a secret by its name alone.
pub fn is_sensitive_key(key: &str) -> bool {
    /// No key of ours is longer; a longer one is judged by its end.
    const MAX_KEY_BYTES: usize = 64;
    let tail = key.len().saturating_sub(MAX_KEY_BYTES);
    let bytes = &key.as_bytes()[tail..];
    let mut buffer = [0_u8; MAX_KEY_BYTES];
    let mut len = 0;
    for byte in bytes {
        if matches!(byte, b'-' | b'_' | b'.' | b' ') {
            continue;
        }
        buffer[len] = byte.to_ascii_lowercase();
        len += 1;
    }
    let squeezed = &buffer[..len];
    SENSITIVE_ENDINGS
        .iter()
        .any(|ending| squeezed.ends_with(ending.as_bytes()))
        || SENSITIVE_KEYS
            .iter()
            .any(|word| squeezed == word.as_bytes())
}

/// Endings of keys whose value is a secret, lower case without separators.
const SENSITIVE_ENDINGS: &[&str] = &[
    "authorization",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "signingkey",
    "cookie",
    "credential",
    "credentials",
    "assertion",
    "sessionid",
];

/// Whole keys whose value is a secret, or a payload, which is never written either.
const SENSITIVE_KEYS: &[&str] = &[
    "pwd",
    "jwt",
    "dpop",
    "payload",
    "body",
    "b64",
    "bearer",
    "sig",
    "signature",
    "pin",
    "otp",
];

/// Appends `text` with every character that a terminal could take for a command, or that could
/// end a line, written as `\u{…}` in JSON's form.
///
/// Covers the C0 and C1 controls, DEL, line and paragraph separators, and the characters that
/// turn the direction of text.
pub fn push_escaped(out: &mut String, text: &str) {
    for character in text.chars() {
        if is_dangerous(character) {
            match character {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                other => {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{:04x}", u32::from(other));
                }
            }
        } else {
            out.push(character);
        }
    }
}

/// Whether [`push_escaped`] would change this character.
pub const fn is_dangerous(character: char) -> bool {
    matches!(
        character,
        '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
    )
}

/// `text` cut to at most `max_bytes`, at a character's border.
pub fn truncated(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// What the floor covers beyond secrets, where the operator wants it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Covers {
    /// E-mail addresses keep their domain.
    pub emails: bool,
    /// Addresses of clients lose their last octet, or their last 80 bits.
    pub client_ips: bool,
    /// Addresses of agents, likewise.
    pub agent_ips: bool,
}

/// Names of fields that hold a client's address. A `peer` is whoever connected, client or agent.
const CLIENT_FIELDS: &[&str] = &[
    "client",
    "client_address",
    "client_ip",
    "peer",
    "source",
    "source_ip",
];

/// Names of fields that hold an agent's address.
const AGENT_FIELDS: &[&str] = &["agent_address", "agent_ip", "peer"];

impl Covers {
    /// What the configuration wants.
    pub const fn of(config: &crate::config::RedactionConfig) -> Self {
        Self {
            emails: config.emails,
            client_ips: config.client_ips,
            agent_ips: config.agent_ips,
        }
    }

    /// The same for what is told of an agent: whose address is in a client's place is an agent.
    #[must_use]
    pub const fn for_agents(self) -> Self {
        Self {
            client_ips: self.agent_ips,
            ..self
        }
    }

    /// Covers the value of a field of this name.
    pub fn cover(self, name: &str, text: &mut String) {
        let is_address = (self.client_ips && CLIENT_FIELDS.contains(&name))
            || (self.agent_ips && AGENT_FIELDS.contains(&name));
        if is_address && let Some(covered) = covered_address(text) {
            *text = covered;
        }
        if self.emails && text.contains('@') {
            cover_emails(text);
        }
    }
}

/// An address, with or without a port, whose last part is zero.
fn covered_address(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        let covered = SocketAddr::new(covered_ip(address.ip()), address.port());
        return Some(covered.to_string());
    }
    Some(covered_ip(text.parse().ok()?).to_string())
}

fn covered_ip(ip: IpAddr) -> IpAddr {
    network_of(ip).network()
}

/// What is told of an address that is not told itself: its /24, or its /48 of IPv6.
pub fn network_of(ip: IpAddr) -> IpNet {
    let ip = ip.to_canonical();
    let bits = if ip.is_ipv4() { 24 } else { 48 };
    IpNet::new_assert(ip, bits).trunc()
}

/// Covers what stands before the `@` of what looks like an e-mail address.
fn cover_emails(text: &mut String) {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('@') {
        let (before, after) = rest.split_at(at);
        let local = before
            .rfind(|c: char| !(c.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-".contains(c)))
            .map_or(0, |space| {
                space + before[space..].chars().next().map_or(1, char::len_utf8)
            });
        let host = after[1..]
            .find(|c: char| !(c.is_alphanumeric() || c == '-' || c == '.'))
            .unwrap_or(after.len() - 1);
        if local < before.len() && after[1..=host].contains('.') {
            clean.push_str(&before[..local]);
            clean.push_str(ERASED);
        } else {
            clean.push_str(before);
        }
        clean.push('@');
        rest = &after[1..];
    }
    clean.push_str(rest);
    *text = clean;
}
