//! From the operator's JSON to a type.

use serde::de::DeserializeOwned;

/// Settings that can be read; every type that serde can read is one.
pub trait ReadSettings: Sized {
    /// Reads the settings. `json` is asked only by settings that have something to read, so
    /// that a plugin without settings does not import `config`.
    ///
    /// # Errors
    /// A text for the operator.
    fn read(json: impl FnOnce() -> String) -> Result<Self, String>;

    /// Looks at settings that are there already, at load.
    ///
    /// # Errors
    /// A text for the operator.
    fn check(json: String) -> Result<Self, String> {
        Self::read(|| json)
    }
}

impl<T: DeserializeOwned> ReadSettings for T {
    fn read(json: impl FnOnce() -> String) -> Result<Self, String> {
        serde_json::from_str(&json()).map_err(|error| error.to_string())
    }
}

/// For a plugin that has nothing to configure: any setting is refused, because it is a mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoSettings;

impl ReadSettings for NoSettings {
    fn read(_: impl FnOnce() -> String) -> Result<Self, String> {
        Ok(Self)
    }

    fn check(json: String) -> Result<Self, String> {
        let settings: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&json).map_err(|error| error.to_string())?;
        match settings.keys().next() {
            None => Ok(Self),
            Some(key) => Err(format!("`{key}` is not known: this plugin has no settings")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{NoSettings, ReadSettings};

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        teams: Vec<String>,
    }

    #[test]
    fn settings_are_read_into_a_type() {
        let read = Settings::check(r#"{"teams": ["a"]}"#.to_owned());
        assert_eq!(
            read,
            Ok(Settings {
                teams: vec!["a".to_owned()]
            })
        );
        let error = Settings::check(r#"{"team": []}"#.to_owned());
        assert!(error.is_err_and(|text| text.contains("`team`")));
    }

    #[test]
    fn no_settings_means_none() {
        assert_eq!(NoSettings::check("{}".to_owned()), Ok(NoSettings));
        let error = NoSettings::check(r#"{"a": 1}"#.to_owned());
        assert!(error.is_err_and(|text| text.contains("`a`")));
        assert_eq!(
            NoSettings::read(|| unreachable!("there is nothing to read")),
            Ok(NoSettings)
        );
    }
}
