//! What [`crate::export!`] writes calls to.

pub use std::string::String;
pub use std::vec::Vec;

use crate::types::Error;
use crate::{Plugin, ReadSettings, bad_config, config};

/// Begins a call: the settings, and the plugin that takes them over.
pub fn start<P: Plugin>() -> Result<P, Error> {
    watch_panics();
    let settings = P::Settings::read(config::json).map_err(bad_config)?;
    P::new(settings)
}

/// `check-config`.
pub fn check<P: Plugin>(json: String) -> Result<(), Error> {
    watch_panics();
    let settings = P::Settings::check(json).map_err(bad_config)?;
    P::new(settings).map(drop)
}

/// A panic traps, which tells the operator nothing; so its text goes to the log first.
#[cfg(all(feature = "panic-log", target_family = "wasm"))]
pub fn watch_panics() {
    use crate::log;

    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without a text");
        let place = panic
            .location()
            .map_or_else(String::new, ToString::to_string);
        log::write(log::Level::Error, text, &[("panicked_at".into(), place)]);
    }));
}

/// Elsewhere a panic is seen by whoever runs the test.
#[cfg(not(all(feature = "panic-log", target_family = "wasm")))]
pub const fn watch_panics() {}
