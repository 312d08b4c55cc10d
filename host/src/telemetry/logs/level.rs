//! The log level, changed while the hub runs.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::{Registry, reload};

/// The text is neither a level nor a list of directives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "log level `{given}` is neither off, error, warn, info, debug, trace nor directives such as \
     `info,nowconnect::router=debug`: {problem}"
)]
pub struct LevelError {
    /// What was given.
    pub given: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Changes the level of the log; cheap to clone.
#[derive(Debug, Clone)]
pub struct LevelControl {
    handle: reload::Handle<EnvFilter, Registry>,
    current: Arc<Mutex<String>>,
}

/// Longest level that is taken, bytes: a dozen directives.
const MAX_LEVEL_BYTES: usize = 1024;

impl LevelControl {
    pub(in super::super) fn new(
        level: &str,
    ) -> Result<(Self, reload::Layer<EnvFilter, Registry>), LevelError> {
        let (layer, handle) = reload::Layer::new(parse(level)?);
        let control = Self {
            handle,
            current: Arc::new(Mutex::new(level.to_owned())),
        };
        Ok((control, layer))
    }

    /// The level in force, as it was given.
    pub fn current(&self) -> String {
        self.current.lock().clone()
    }

    /// Puts another level in force.
    ///
    /// A level alone holds for the hub's own modules, those of libraries stay at `warn` or
    /// above; directives are taken as they are.
    ///
    /// # Errors
    /// [`LevelError`] where the text is not understood; the level in force stays.
    pub fn set(&self, level: &str) -> Result<(), LevelError> {
        let filter = parse(level)?;
        let mut current = self.current.lock();
        self.handle.reload(filter).map_err(|error| LevelError {
            given: level.to_owned(),
            problem: error.to_string(),
        })?;
        *current = level.to_owned();
        Ok(())
    }
}

/// Checks a level without putting it in force.
///
/// # Errors
/// As [`LevelControl::set`].
pub(super) fn parse(level: &str) -> Result<EnvFilter, LevelError> {
    let refused = |problem: &str| LevelError {
        given: level.chars().take(64).collect(),
        problem: problem.to_owned(),
    };
    if level.len() > MAX_LEVEL_BYTES {
        return Err(refused("too long"));
    }
    let word = level.trim().to_ascii_lowercase();
    let directives = match word.as_str() {
        "off" | "error" | "warn" => word,
        "warning" => String::from("warn"),
        "info" | "debug" | "trace" => format!("warn,nowconnect={word}"),
        "" => return Err(refused("empty")),
        _ if word.contains(['=', ',']) => level.trim().to_owned(),
        _ => return Err(refused("no such level")),
    };
    EnvFilter::builder()
        .parse(directives)
        .map_err(|error| refused(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_understood() {
        for level in [
            "off",
            "INFO",
            "warning",
            " debug ",
            "info,nowconnect::router=trace",
        ] {
            assert!(parse(level).is_ok(), "{level}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_way_out() {
        for level in ["", "loud", "nowconnect=loud", &"a=info,".repeat(1000)] {
            let refused = parse(level).map(drop).map_err(|error| error.to_string());
            assert!(
                refused.is_err_and(|text| text.contains("trace nor directives")),
                "{level}"
            );
        }
    }
}
