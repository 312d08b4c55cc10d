//! Names as they stand in Cedar uids.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The tenant that is never written in front of a name.
pub const DEFAULT_TENANT: &str = "default";

/// The name of an agent, a connector, an endpoint or a listener within its tenant.
///
/// Its text is `tenant/name`, and the bare name for the default tenant. That text is the id
/// of the Cedar entity. A `/` or `%` inside either part is written `%2F` or `%25`, so two
/// different pairs never share a text. Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    text: Arc<str>,
    /// Bytes of the tenant in `text`; 0 for the default tenant.
    tenant_bytes: usize,
}

impl Name {
    /// The name `name` of the tenant `tenant`.
    #[must_use]
    pub fn new(tenant: &str, name: &str) -> Self {
        if tenant == DEFAULT_TENANT {
            return Self::bare(name);
        }
        let tenant = escape(tenant);
        Self {
            text: Arc::from(format!("{tenant}/{}", escape(name))),
            tenant_bytes: tenant.len(),
        }
    }

    /// The name `name` of the default tenant.
    #[must_use]
    pub fn bare(name: &str) -> Self {
        Self {
            text: Arc::from(escape(name).as_ref()),
            tenant_bytes: 0,
        }
    }

    /// Reads the text form back: all before the first `/` is the tenant.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let tenant_bytes = text.find('/').unwrap_or(0);
        if text.get(..tenant_bytes) == Some(DEFAULT_TENANT) {
            let bare = text.get(tenant_bytes + 1..).unwrap_or_default();
            return Self {
                text: Arc::from(bare),
                tenant_bytes: 0,
            };
        }
        Self {
            text: Arc::from(text),
            tenant_bytes,
        }
    }

    /// The text form, which is the id of the Cedar entity.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The tenant, `default` where none is written.
    #[must_use]
    pub fn tenant(&self) -> &str {
        match self.tenant_bytes {
            0 => DEFAULT_TENANT,
            bytes => self.text.get(..bytes).unwrap_or(DEFAULT_TENANT),
        }
    }

    /// The name without its tenant.
    #[must_use]
    pub fn name(&self) -> &str {
        match self.tenant_bytes {
            0 => &self.text,
            bytes => self.text.get(bytes + 1..).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self::from_text(&text))
    }
}

fn escape(part: &str) -> std::borrow::Cow<'_, str> {
    if part.contains(['/', '%']) {
        part.replace('%', "%25").replace('/', "%2F").into()
    } else {
        part.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_tenant_is_bare() {
        let name = Name::new("default", "ldap");
        assert_eq!(name.as_str(), "ldap");
        assert_eq!((name.tenant(), name.name()), ("default", "ldap"));
        assert_eq!(Name::from_text("default/ldap"), name);
    }

    #[test]
    fn a_tenant_stands_in_front() {
        let name = Name::new("acme", "ldap");
        assert_eq!(name.as_str(), "acme/ldap");
        assert_eq!((name.tenant(), name.name()), ("acme", "ldap"));
        assert_eq!(Name::from_text("acme/ldap"), name);
    }

    #[test]
    fn a_slash_in_a_name_cannot_take_another_tenants_uid() {
        assert_ne!(Name::bare("acme/ldap"), Name::new("acme", "ldap"));
        assert_ne!(Name::bare("a%2Fb"), Name::bare("a/b"));
    }
}
