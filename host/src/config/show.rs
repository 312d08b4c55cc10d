//! The configuration as it may be shown.

use serde_json::Value as Json;

use super::file::FileConfig;
use super::problem::{hide_user_info, sounds_secret};
use super::secret::HIDDEN;

/// The file form as YAML. Secrets hide themselves; what a plugin is told, and user information
/// in URLs, is hidden here.
pub(crate) fn yaml(file: &FileConfig) -> String {
    let mut json = serde_json::to_value(file).expect("the file form always has a JSON form");
    hide_plugin_configs(&mut json);
    hide(&mut json);
    serde_saphyr::to_string(&json).expect("a JSON value always has a YAML form")
}

fn hide_plugin_configs(json: &mut Json) {
    let list = json
        .pointer_mut("/plugins/list")
        .and_then(Json::as_array_mut);
    for plugin in list.into_iter().flatten() {
        if let Some(config) = plugin.get_mut("config")
            && config.as_object().is_none_or(|config| !config.is_empty())
        {
            *config = Json::from(HIDDEN);
        }
    }
}

fn hide(json: &mut Json) {
    match json {
        Json::String(text) => {
            if text.contains("://") {
                *text = hide_user_info(text);
            }
        }
        Json::Array(items) => items.iter_mut().for_each(hide),
        Json::Object(entries) => {
            for (key, value) in entries.iter_mut() {
                if value.is_string() && sounds_secret(&key.to_ascii_lowercase()) {
                    *value = Json::from(HIDDEN);
                } else {
                    hide(value);
                }
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}
