//! What a script answers: an array of texts, the first of which says what came of it.

use redis::Value;

use crate::error::RegistryError;

/// The elements of an answer after its first.
#[derive(Debug)]
pub(super) struct Reply {
    what: &'static str,
    outcome: String,
    rest: std::vec::IntoIter<Value>,
}

impl Reply {
    pub(super) fn read(what: &'static str, value: Value) -> Result<Self, RegistryError> {
        let Value::Array(elements) = value else {
            return Err(unexpected(what));
        };
        let mut rest = elements.into_iter();
        let outcome = rest.next().and_then(text).ok_or_else(|| unexpected(what))?;
        Ok(Self {
            what,
            outcome,
            rest,
        })
    }

    pub(super) fn outcome(&self) -> &str {
        &self.outcome
    }

    /// The next element, if there is one.
    pub(super) fn next_text(&mut self) -> Option<String> {
        self.rest.next().and_then(text)
    }

    pub(super) fn next_bytes(&mut self) -> Option<Vec<u8>> {
        self.rest.next().and_then(bytes)
    }

    pub(super) fn text(&mut self) -> Result<String, RegistryError> {
        self.next_text().ok_or_else(|| self.unexpected())
    }

    /// The next element, as what can be read from a text.
    pub(super) fn parsed<T: std::str::FromStr>(&mut self) -> Result<T, RegistryError> {
        self.text()?.parse().map_err(|_| self.unexpected())
    }

    /// What the store holds is not what these scripts write.
    pub(super) fn unexpected(&self) -> RegistryError {
        unexpected(self.what)
    }
}

fn unexpected(what: &'static str) -> RegistryError {
    RegistryError::Refused {
        what,
        reason: "its answer is not one of this release: is the key prefix another program's?"
            .into(),
    }
}

pub(super) fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?).ok()
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    redis::from_redis_value(value).ok()
}
