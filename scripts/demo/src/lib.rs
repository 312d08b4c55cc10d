//! What `make demo` needs besides the product: an issuer of tokens, two services, and a stage
//! with a hub and an agent that are embedded in this process and run from their files.
//!
//! The issuer is also what tests use where the issuer is not what they are about.

pub mod address;
pub mod embedded;
pub mod flow;
pub mod issuer;
pub mod services;
pub mod stage;
pub mod terminal;

/// What the demo could not do, as a sentence for the person who watches it.
#[derive(Debug)]
pub struct Failed(pub String);

impl Failed {
    /// Puts what was being done before what went wrong.
    pub fn doing<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{what}: {error}"))
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}
