//! Bounds how long a flow lives, and keeps some out.

use nowconnect_plugin::prelude::*;
use nowconnect_plugin::{log, serde};

struct MyPlugin {
    settings: Settings,
}

/// What the operator configures.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, crate = "serde")]
struct Settings {
    /// Longest life of a flow.
    max_seconds: u32,
    /// Subjects that may open no flow.
    blocked: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_seconds: 3600,
            blocked: Vec::new(),
        }
    }
}

impl Plugin for MyPlugin {
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, Error> {
        if settings.max_seconds == 0 {
            return Err(bad_config("`max_seconds` is 0, it must be 1 or more"));
        }
        Ok(Self { settings })
    }
}

impl OpenHook for MyPlugin {
    fn on_open(&self, _: &Call, open: Open, _: Carry) -> Result<OpenVerdict, Error> {
        if let Some(subject) = open.viewer.subject
            && self.settings.blocked.contains(&subject)
        {
            log::write(
                log::Level::Info,
                "a blocked subject asked for a flow",
                &[("subject".into(), subject.clone())],
            );
            let private = format!("`{subject}` asked for `{}`", open.connector);
            return Ok(OpenVerdict::Deny(deny("blocked", "not allowed", private)));
        }
        Ok(OpenVerdict::Allow(Grant {
            max_seconds: Some(self.settings.max_seconds),
            ..unbounded()
        }))
    }
}

nowconnect_plugin::export!(MyPlugin: open);

#[cfg(test)]
mod tests {
    use super::{MyPlugin, Plugin, Settings};

    #[test]
    fn a_flow_without_time_is_a_mistake() {
        let settings = Settings {
            max_seconds: 0,
            ..Settings::default()
        };
        assert!(MyPlugin::new(settings).is_err());
        assert!(MyPlugin::new(Settings::default()).is_ok());
    }
}
