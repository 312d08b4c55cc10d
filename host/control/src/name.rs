//! Which names can be published: one label of a host name (RFC 1035 §2.3.1, RFC 5891 §4.2.3.1).

use std::collections::BTreeSet;

use crate::id;

/// Longest label of a host name, in bytes (RFC 1035 §2.3.4).
const MAX_BYTES: usize = 63;

/// Characters of a name that nobody wished for: 50 random bits, so that an address is as good
/// as unguessable.
const RANDOM_CHARACTERS: usize = 10;

/// The first characters of a random name, so that it never looks like a wished one.
const RANDOM_PREFIX: &str = "t-";

/// Why a name cannot be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameRefused {
    /// It is no label of a host name.
    #[error("`{name}` cannot be a name: {reason}")]
    Malformed {
        /// What was wished, cut to what an answer may hold.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The operator keeps it for himself.
    #[error("the name `{name}` is kept by the operator")]
    Kept {
        /// The name.
        name: String,
    },
}

/// What the operator says about names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameRules {
    /// Names that nobody gets.
    pub kept: BTreeSet<String>,
}

impl NameRules {
    /// A wished name in the form in which it is published: lower case.
    ///
    /// # Errors
    /// It is no label, or kept by the operator.
    pub fn check(&self, wished: &str) -> Result<String, NameRefused> {
        let malformed = |reason| NameRefused::Malformed {
            name: wished.chars().take(MAX_BYTES + 1).collect(),
            reason,
        };
        if wished.is_empty() {
            return Err(malformed("it is empty"));
        }
        if wished.len() > MAX_BYTES {
            return Err(malformed("a label has at most 63 characters"));
        }
        let name = wished.to_ascii_lowercase();
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !name.bytes().all(allowed) {
            return Err(malformed("use letters a to z, digits and `-`"));
        }
        if name.starts_with('-') || name.ends_with('-') {
            return Err(malformed("it must not begin or end with `-`"));
        }
        // `xn--` is what browsers show as other letters: a name that looks like another's.
        if name.as_bytes().get(2..4) == Some(b"--") {
            return Err(malformed("`--` at the third place is for encoded names"));
        }
        if name.starts_with(RANDOM_PREFIX) {
            return Err(malformed("`t-` begins names that the hub chooses"));
        }
        self.check_kept(&name)?;
        Ok(name)
    }

    /// Whether a name that was given out before may be given again.
    pub(crate) fn check_kept(&self, name: &str) -> Result<(), NameRefused> {
        if self.kept.contains(name) {
            let name = name.to_owned();
            return Err(NameRefused::Kept { name });
        }
        Ok(())
    }

    /// A name for whoever wished for none.
    pub(crate) fn random() -> Option<String> {
        id::random(RANDOM_CHARACTERS).map(|random| format!("{RANDOM_PREFIX}{random}"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_labels() {
        let rules = NameRules {
            kept: BTreeSet::from(["admin".to_owned()]),
        };
        for good in ["shop", "a", "0", "my-shop-2", &"x".repeat(63)] {
            assert_eq!(rules.check(good).unwrap(), good);
        }
        assert_eq!(rules.check("Shop").unwrap(), "shop");
        for bad in [
            "",
            "-a",
            "a-",
            "a.b",
            "a_b",
            "ä",
            "xn--80ak6aa92e",
            "a b",
            "a/b",
            "a\0",
            "t-mine",
            &"x".repeat(64),
        ] {
            let refused = rules.check(bad).unwrap_err();
            assert!(matches!(refused, NameRefused::Malformed { .. }), "{bad}");
        }
        for kept in ["admin", "ADMIN"] {
            let refused = rules.check(kept).unwrap_err();
            assert!(matches!(refused, NameRefused::Kept { .. }), "{kept}");
        }
    }

    #[test]
    fn random_names_are_labels_that_nobody_can_wish_for() {
        let name = NameRules::random().unwrap();
        assert!(name.len() <= MAX_BYTES && name.starts_with("t-"));
        assert!(NameRules::default().check(&name).is_err());
        assert_ne!(Some(name), NameRules::random());
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_the_same_when_checked_again(wished in "\\PC{0,70}") {
            let rules = NameRules::default();
            if let Ok(name) = rules.check(&wished) {
                prop_assert_eq!(rules.check(&name), Ok(name));
            }
        }
    }
}
