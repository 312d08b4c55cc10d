//! Rules that every answer of a plugin must keep, whatever the types allow.
//!
//! What breaks a rule is a fault with the outcome `bad_output`, never repaired: a plugin that
//! sets a field it was not granted is not one to go on with in part. Narrowing is the exception,
//! because there the host can take the smaller of two and nothing is lost.

use crate::answer::Edit;
use crate::call::Failure;
use crate::facts::Attribute;
use crate::grant::{EditKind, is_field_name_byte};
use crate::host_functions::one_line;
use crate::plugin::Plugin;
use crate::wire;

/// Bytes of the names and values in one plugin's carry.
const CARRY_BYTES_MAX: usize = 4 * 1024;
/// Facts in one answer, and bytes of one name and one value.
const ATTRIBUTES_MAX: usize = 32;
const ATTRIBUTE_NAME_BYTES_MAX: usize = 64;
const ATTRIBUTE_VALUE_BYTES_MAX: usize = 1024;
/// Facts that all plugins of a chain attach together: OPEN carries no more pairs.
pub const MAX_CHAIN_ATTRIBUTES: usize = 64;
/// Bytes of all these facts with [`ATTRIBUTE_OVERHEAD_BYTES`] each. They go to the agent in one
/// OPEN, whose body may have 16 KiB with names, addresses and trace.
pub const MAX_CHAIN_ATTRIBUTE_BYTES: usize = 12 * 1024;
/// What a fact costs beside its name and value, rounded up.
pub const ATTRIBUTE_OVERHEAD_BYTES: usize = 16;
/// Bytes of a denial's code and texts.
const CODE_BYTES_MAX: usize = 64;
const DENIAL_TEXT_BYTES_MAX: usize = 512;
/// Signals of one answer, and bytes of one.
const SIGNALS_MAX: usize = 64;
const SIGNAL_BYTES_MAX: usize = 64;

/// Code of a denial that stands for a plugin's failure.
pub const PLUGIN_FAILED: &str = "plugin_failed";

/// Checks a denial and puts the plugin's name on it. Its texts may quote what a peer sent, so
/// they are cut and escaped rather than held against the plugin.
pub(crate) fn denial(
    plugin: &Plugin,
    denial: wire::Denial,
) -> Result<crate::answer::Denial, Failure> {
    let code_is_good = (1..=CODE_BYTES_MAX).contains(&denial.code.len())
        && denial
            .code
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if !code_is_good {
        return Err(Failure::bad_output(
            "the code of a denial must be 1 to 64 of `a-z`, `0-9` and `_`",
        ));
    }
    Ok(crate::answer::Denial {
        plugin: plugin.name.clone(),
        code: denial.code,
        public: one_line(&denial.public, DENIAL_TEXT_BYTES_MAX),
        private: one_line(&denial.private, DENIAL_TEXT_BYTES_MAX),
    })
}

/// The denial that stands for a failure.
pub(crate) fn failed(plugin: &Plugin, failure: &Failure) -> crate::answer::Denial {
    crate::answer::Denial {
        plugin: plugin.name.clone(),
        code: PLUGIN_FAILED.to_owned(),
        public: "a plugin that must agree did not answer".to_owned(),
        private: format!("{}: {}", failure.outcome, failure.detail),
    }
}

/// Checks facts and puts the plugin's name in front of each.
pub(crate) fn attributes(
    plugin: &Plugin,
    attributes: Vec<Attribute>,
) -> Result<Vec<Attribute>, Failure> {
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(Failure::bad_output(format!(
            "it gave {} attributes, at most {ATTRIBUTES_MAX} are taken",
            attributes.len()
        )));
    }
    attributes
        .into_iter()
        .map(|(name, value)| {
            let name_is_good = (1..=ATTRIBUTE_NAME_BYTES_MAX).contains(&name.len())
                && name.bytes().all(is_field_name_byte);
            let value_is_good =
                value.len() <= ATTRIBUTE_VALUE_BYTES_MAX && !value.chars().any(char::is_control);
            if name_is_good && value_is_good {
                Ok((format!("{}/{name}", plugin.name), value))
            } else {
                Err(Failure::bad_output(format!(
                    "attribute `{}` has a bad name or value",
                    name.escape_debug()
                )))
            }
        })
        .collect()
}

/// Checks that a plugin's facts fit beside those of the plugins before it.
pub(crate) fn fits(before: &[Attribute], more: &[Attribute]) -> Result<(), Failure> {
    let number = before.len() + more.len();
    let bytes: usize = before
        .iter()
        .chain(more)
        .map(|(name, value)| name.len() + value.len() + ATTRIBUTE_OVERHEAD_BYTES)
        .sum();
    if number <= MAX_CHAIN_ATTRIBUTES && bytes <= MAX_CHAIN_ATTRIBUTE_BYTES {
        return Ok(());
    }
    Err(Failure::bad_output(format!(
        "with its attributes the plugins of the chain gave {number} of {bytes} bytes together, \
         at most {MAX_CHAIN_ATTRIBUTES} of {MAX_CHAIN_ATTRIBUTE_BYTES} bytes are taken"
    )))
}

/// Checks what a plugin wants back later.
pub(crate) fn carry(carry: &[Attribute]) -> Result<(), Failure> {
    let bytes: usize = carry
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > CARRY_BYTES_MAX {
        return Err(Failure::bad_output(format!(
            "its carry has {bytes} bytes, at most {CARRY_BYTES_MAX} are kept"
        )));
    }
    Ok(())
}

/// Checks signals and splits them into granted ones, with the plugin's name in front, and the
/// number of others.
pub(crate) fn signals(
    plugin: &Plugin,
    signals: Vec<String>,
) -> Result<(Vec<String>, u64), Failure> {
    if signals.len() > SIGNALS_MAX {
        return Err(Failure::bad_output(format!(
            "it gave {} signals, at most {SIGNALS_MAX} are taken",
            signals.len()
        )));
    }
    let mut granted = Vec::with_capacity(signals.len());
    let mut dropped = 0;
    for signal in signals {
        let is_good = (1..=SIGNAL_BYTES_MAX).contains(&signal.len())
            && signal.bytes().all(|byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':')
            });
        if !is_good {
            return Err(Failure::bad_output(format!(
                "signal `{}` must be 1 to 64 letters, digits and `-_.:`",
                signal.escape_debug()
            )));
        }
        if plugin.grants.allows_signal(&signal) {
            granted.push(format!("{}/{signal}", plugin.name));
        } else {
            dropped += 1;
        }
    }
    Ok((granted, dropped))
}

/// Checks each edit against the grant.
pub(crate) fn edits(plugin: &Plugin, edits: Vec<wire::Edit>) -> Result<Vec<Edit>, Failure> {
    edits
        .into_iter()
        .map(|edit| {
            let (kind, name, value): (_, &str, &[u8]) = match &edit {
                wire::Edit::Set((name, value)) => (EditKind::Set, name, value),
                wire::Edit::Append((name, value)) => (EditKind::Append, name, value),
                wire::Edit::Remove(name) => (EditKind::Remove, name, &[]),
            };
            check_field(name, value)?;
            if !plugin.grants.allows_edit(kind, name) {
                return Err(Failure::bad_output(format!(
                    "it edits the field `{name}` without a grant; to allow it, write: grants: \
                     [\"{}:{name}\"] (fields of one hop are never granted)",
                    kind.grant()
                )));
            }
            Ok(match edit {
                wire::Edit::Set(field) => Edit::Set(field),
                wire::Edit::Append(field) => Edit::Append(field),
                wire::Edit::Remove(name) => Edit::Remove(name),
            })
        })
        .collect()
}

/// Checks an answer given in place of the origin's.
pub(crate) fn reply(reply: &wire::Reply) -> Result<(), Failure> {
    if !(200..=599).contains(&reply.status) {
        return Err(Failure::bad_output(format!(
            "it replies with status {}, possible are 200 to 599",
            reply.status
        )));
    }
    for (name, value) in &reply.headers {
        check_field(name, value)?;
        if crate::grant::is_never_edited(name) {
            return Err(Failure::bad_output(format!(
                "its reply has the field `{name}`, which the host sets"
            )));
        }
    }
    Ok(())
}

/// A line break in a value would let a plugin write fields, or a message, of its own.
fn check_field(name: &str, value: &[u8]) -> Result<(), Failure> {
    let name_is_good =
        !name.is_empty() && name.len() <= 256 && name.bytes().all(is_field_name_byte);
    let value_is_good = !value
        .iter()
        .any(|byte| matches!(byte, 0..=8 | 10..=31 | 127));
    if name_is_good && value_is_good {
        return Ok(());
    }
    Err(Failure::bad_output(format!(
        "the field `{}` has a bad name (lower case is needed) or a control character in its value",
        name.escape_debug()
    )))
}

#[cfg(test)]
mod tests {
    use super::check_field;

    #[test]
    fn a_field_cannot_smuggle_a_line() {
        assert!(check_field("x-a", b"v\tw \xff").is_ok());
        for value in [&b"a\r\nx: y"[..], b"a\n", b"\0", b"\x7f"] {
            assert!(check_field("x-a", value).is_err());
        }
        for name in ["", "X-A", "x a", "x:a", "x\r\n"] {
            assert!(check_field(name, b"v").is_err(), "{name:?}");
        }
    }
}
