//! Which versions of the contract in `wit/` this hub serves.
//!
//! Names of imports and exports carry a version, such as `nowconnect:plugin/open-hook@0.2.0`.
//! Two versions with the same minor number speak the same language, whichever is newer; others
//! do not, and each served one has shapes of its own in [`crate::wire`].

use std::fmt;

/// Versions of the contract in `wit/` that this hub serves.
pub const CONTRACT_VERSIONS: &str = "nowconnect:plugin 0.1.0 and 0.2.0";

/// Package of every interface of the contract.
pub(crate) const PACKAGE: &str = "nowconnect:plugin/";

/// A version of the contract that this hub serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContractVersion {
    /// `wit/0.1`.
    V0_1,
    /// `wit/0.2`.
    V0_2,
}

impl ContractVersion {
    /// Every served version, oldest first.
    pub const ALL: [Self; 2] = [Self::V0_1, Self::V0_2];

    /// The version under which the host links its interfaces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1 => "0.1.0",
            Self::V0_2 => "0.2.0",
        }
    }

    /// What the versions that it can stand for begin with.
    const fn line(self) -> &'static str {
        match self {
            Self::V0_1 => "0.1.",
            Self::V0_2 => "0.2.",
        }
    }
}

impl fmt::Display for ContractVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the name of an import or export says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named<'a> {
    /// An interface of the contract in a version that is served.
    Served(&'a str, ContractVersion),
    /// An interface of the contract in another version.
    Unserved(&'a str),
    /// Something else.
    Other,
}

impl<'a> Named<'a> {
    pub(crate) fn parse(name: &'a str) -> Self {
        let Some(rest) = name.strip_prefix(PACKAGE) else {
            return Self::Other;
        };
        let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
        ContractVersion::ALL
            .into_iter()
            .find(|served| version.starts_with(served.line()))
            .map_or(Self::Unserved(interface), |served| {
                Self::Served(interface, served)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::{CONTRACT_VERSIONS, ContractVersion, Named};

    #[test]
    fn names_carry_their_version() {
        let name = |version| format!("nowconnect:plugin/log@{version}");
        for (version, named) in [
            ("0.1.0", Named::Served("log", ContractVersion::V0_1)),
            ("0.1.7", Named::Served("log", ContractVersion::V0_1)),
            ("0.2.0", Named::Served("log", ContractVersion::V0_2)),
            ("0.20.0", Named::Unserved("log")),
            ("0.3.0", Named::Unserved("log")),
            ("1.1.0", Named::Unserved("log")),
        ] {
            assert_eq!(Named::parse(&name(version)), named, "{version}");
        }
        assert_eq!(
            Named::parse("nowconnect:plugin/log"),
            Named::Unserved("log")
        );
        assert_eq!(Named::parse("wasi:cli/stdout@0.2.0"), Named::Other);
    }

    #[test]
    fn the_sentence_names_every_version() {
        for version in ContractVersion::ALL {
            assert!(CONTRACT_VERSIONS.contains(version.as_str()), "{version}");
        }
    }
}
