//! The versions of the core schema that this hub serves.
//!
//! The schema belongs to the hub. A set of policies says which version it was written for and
//! is checked, asked and explained in that version's shapes, so that an upgrade of the hub never
//! makes a set in force invalid.

/// A version of the core schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CoreVersion {
    /// Version 1.
    #[default]
    V1,
}

impl CoreVersion {
    /// All that are served, oldest first.
    pub const SERVED: &'static [Self] = &[Self::V1];

    /// The newest.
    pub const CURRENT: Self = Self::V1;

    /// The version of this number, if it is served.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::SERVED
            .iter()
            .copied()
            .find(|version| version.number() == number)
    }

    /// As manifests have it.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
        }
    }
}
