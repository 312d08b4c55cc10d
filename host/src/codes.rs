//! The registry of error and reason codes: what each means, who sees it, why it is said, what to
//! do, and which metric and log line show it.
//!
//! A code is stable: it never changes its meaning, and one that is not said any more stays
//! listed. The same word may stand in several places (`revoked` ends a flow, ends a tunnel and
//! refuses an upgrade); it has one [`Entry`] in each and one page for all of them.
//!
//! Most codes are variants of an enum, of this crate or of the one that says them, and an
//! exhaustive match gives each its text: a code without one does not compile. Those that are
//! only strings elsewhere are held against their sources by this module's tests.
//! `docs/error-codes.md` and `docs/errors/` are [`page`]s of this registry, written by
//! `nowconnect explain-code --write docs`.

/// An enum of codes that this crate says itself, with their names.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $code:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $(#[doc = concat!("`", $code, "`; the registry says what it means.")] $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As it stands in logs, metrics and answers.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

mod bundle;
mod certificate;
mod denial;
mod hub;
pub mod page;
mod plugin;
mod request;
#[cfg(test)]
mod tests;
mod tunnel;
mod upgrade;

pub use certificate::CertificateCode;
pub use denial::DenialCode;
pub use request::RequestCode;
pub use upgrade::UpgradeCode;

/// The release that had the first of them; the codes of today are all from it.
const FIRST_RELEASE: &str = "0.1.0";

/// A place where codes are said.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// Its heading in the index.
    pub heading: &'static str,
    /// Its heading on the page of a code that stands in several places.
    pub place: &'static str,
    /// What there is to know about all of its codes; Markdown, seen from `docs/`.
    pub intro: &'static str,
    /// Who sees them.
    pub seen_by: &'static str,
    /// What the property of each code is called, where they have one.
    pub property: Option<&'static str>,
    /// The series that count them; `CODE` stands for the code.
    pub metrics: &'static [&'static str],
    /// The log lines that show them.
    pub lines: &'static [Line],
}

/// A log line: its `event`, and the field that has the code; no field where the line tells of it
/// in other words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line(pub &'static str, pub &'static str);

/// What is said about a code in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// What happened.
    pub meaning: &'static str,
    /// How it comes to that.
    pub cause: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
    /// Series beside those of the group.
    pub metrics: &'static [&'static str],
    /// Log lines beside those of the group.
    pub lines: &'static [Line],
}

const fn text(meaning: &'static str, cause: &'static str, remedy: &'static str) -> Text {
    Text {
        meaning,
        cause,
        remedy,
        metrics: &[],
        lines: &[],
    }
}

impl Text {
    const fn counted(self, metrics: &'static [&'static str]) -> Self {
        Self { metrics, ..self }
    }

    const fn logged(self, lines: &'static [Line]) -> Self {
        Self { lines, ..self }
    }
}

/// A code in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As it stands in logs, metrics and answers.
    pub code: &'static str,
    /// Where it is said.
    pub group: &'static Group,
    /// What the group's [`property`](Group::property) is for this code.
    pub property: Option<String>,
    /// What is said about it.
    pub text: Text,
    /// The first release that says it.
    pub since: &'static str,
}

impl Entry {
    fn new(group: &'static Group, code: &'static str, text: Text) -> Self {
        Self {
            code,
            group,
            property: None,
            text,
            since: FIRST_RELEASE,
        }
    }

    fn with(self, property: impl Into<String>) -> Self {
        Self {
            property: Some(property.into()),
            ..self
        }
    }
}

/// Every code in every place, in the order of the index.
#[must_use]
pub fn all() -> Vec<Entry> {
    [
        tunnel::entries(),
        upgrade::entries(),
        denial::entries(),
        request::entries(),
        bundle::entries(),
        plugin::entries(),
        certificate::entries(),
        hub::entries(),
    ]
    .concat()
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
