//! Write a NowConnect plugin.
//!
//! A plugin is a type that implements [`Plugin`] and the trait of each hook it wants;
//! [`export!`] makes a component of it:
//!
//! ```
//! use nowconnect_plugin::prelude::*;
//!
//! /// Flows of named teams end after a while.
//! struct Visiting {
//!     settings: Settings,
//! }
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Settings {
//!     max_seconds: u32,
//!     teams: Vec<String>,
//! }
//!
//! impl Plugin for Visiting {
//!     type Settings = Settings;
//!
//!     fn new(settings: Settings) -> Result<Self, Error> {
//!         if settings.max_seconds == 0 {
//!             return Err(bad_config("`max_seconds` must be 1 or more"));
//!         }
//!         Ok(Self { settings })
//!     }
//! }
//!
//! impl OpenHook for Visiting {
//!     fn on_open(&self, _: &Call, open: Open, _: Carry) -> Result<OpenVerdict, Error> {
//!         let is_guest = open.viewer.groups.iter().any(|group| self.settings.teams.contains(group));
//!         if !is_guest {
//!             return Ok(allow());
//!         }
//!         Ok(OpenVerdict::Allow(Grant {
//!             max_seconds: Some(self.settings.max_seconds),
//!             ..unbounded()
//!         }))
//!     }
//! }
//!
//! nowconnect_plugin::export!(Visiting: open);
//!
//! let visiting = Visiting::new(Settings { max_seconds: 60, teams: vec!["guests".into()] });
//! # assert!(visiting.is_ok());
//! ```
//!
//! The hub makes an instance for each call, reads the settings, calls [`Plugin::new`] and then
//! the hook; afterwards all of it is gone. What is to be known again belongs into the answer's
//! `carry` (the same session, flow or request) or into [`kv`].
//!
//! The component imports only those capabilities whose functions the plugin calls, and what it
//! imports the operator must grant. By default that is `log`, because a panic writes its text
//! there before it traps; without the feature `panic-log` it is nothing. Settings are read by
//! `config`, unless they are [`NoSettings`].
//!
//! On the machine itself the traits and their types are plain Rust, so `cargo test` tests the
//! logic; capabilities are only there in a hub and in `nowconnect plugin test`.

#[cfg(feature = "allocator")]
use bump as _;

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod glue;
mod settings;

pub use bindings::host::nowconnect::plugin::{clock, config, data, fetch, kv, log, metrics};
pub use serde;
pub use settings::{NoSettings, ReadSettings};
pub use wit_bindgen;

/// The shapes of questions and answers, as in the contract.
pub mod types {
    pub use crate::bindings::bye::exports::nowconnect::plugin::bye_hook::Bye;
    pub use crate::bindings::close::exports::nowconnect::plugin::close_hook::Closed;
    pub use crate::bindings::enrich::exports::nowconnect::plugin::enrich_hook::{
        Ask, Findings, HttpLine,
    };
    pub use crate::bindings::hello::exports::nowconnect::plugin::hello_hook::{
        Hello, Verdict as HelloVerdict, Welcome,
    };
    pub use crate::bindings::host::nowconnect::plugin::http_types::{
        Edit, Head, Reply, Request, Response,
    };
    pub use crate::bindings::host::nowconnect::plugin::types::{
        Agent, Attribute, Call, Carry, Denial, Error, Field, Peer, Viewer,
    };
    pub use crate::bindings::http_request::exports::nowconnect::plugin::http_request_hook::{
        Next, Verdict as RequestVerdict,
    };
    pub use crate::bindings::http_response::exports::nowconnect::plugin::http_response_hook::Verdict as ResponseVerdict;
    pub use crate::bindings::lifecycle::exports::nowconnect::plugin::lifecycle::About;
    pub use crate::bindings::mask::exports::nowconnect::plugin::mask_hook::{
        Cover, Entry, Level, Mask,
    };
    pub use crate::bindings::open::exports::nowconnect::plugin::open_hook::{
        Grant, Open, Verdict as OpenVerdict,
    };
}

/// What most plugins use.
pub mod prelude {
    pub use serde::Deserialize;

    pub use crate::types::*;
    pub use crate::{
        ByeHook, CloseHook, EnrichHook, HelloHook, HttpRequestHook, HttpResponseHook, MaskHook,
        NoSettings, OpenHook, Plugin, allow, bad_config, deny, found, internal, next, unavailable,
        unbounded,
    };
}

use types::{
    About, Ask, Bye, Call, Carry, Closed, Denial, Edit, Entry, Error, Findings, Grant, Hello,
    HelloVerdict, Mask, Next, Open, OpenVerdict, Request, RequestVerdict, Response,
    ResponseVerdict,
};

/// Every plugin: its settings, and what it calls itself.
pub trait Plugin: Sized {
    /// What the operator configures: a type that serde can read, or [`NoSettings`].
    type Settings: ReadSettings;

    /// Takes the settings over. Runs at load, where an error refuses the set and keeps the one
    /// in force, and again before each call: keep it short.
    ///
    /// # Errors
    /// [`bad_config`] with a text that names the key, the value and what is possible.
    fn new(settings: Self::Settings) -> Result<Self, Error>;

    /// What it says about itself where the package's name, version and description are not it.
    fn about(package: About) -> About {
        package
    }
}

/// Asked when an agent joins, renews or comes back. A fault denies the agent.
pub trait HelloHook: Plugin {
    /// `accept` can only narrow what was announced; `carry` is what this plugin answered when
    /// the session was decided on before.
    ///
    /// # Errors
    /// It cannot answer now; the host takes that for a fault of the plugin's surroundings.
    fn on_hello(&self, call: &Call, hello: Hello, carry: Carry) -> Result<HelloVerdict, Error>;
}

/// Told when a session has ended.
pub trait ByeHook: Plugin {
    /// `carry` is what `on_hello` attached.
    fn on_bye(&self, call: &Call, bye: Bye, carry: Carry);
}

/// Asked before the policies: adds signals that they can name. A fault is named in
/// `context.signalsMissing`, on which the shipped policies forbid.
pub trait EnrichHook: Plugin {
    /// Signals such as `DE`, without the plugin's own name in front, and what the later hooks
    /// of the same flow or request are to know.
    ///
    /// # Errors
    /// It cannot answer now.
    fn signals(&self, call: &Call, ask: Ask) -> Result<Findings, Error>;
}

/// Asked for each flow that the policies allow. A fault denies the flow.
pub trait OpenHook: Plugin {
    /// Sets bounds or says no; `carry` is what `signals` attached.
    ///
    /// # Errors
    /// It cannot answer now.
    fn on_open(&self, call: &Call, open: Open, carry: Carry) -> Result<OpenVerdict, Error>;
}

/// Told when a flow has ended.
pub trait CloseHook: Plugin {
    /// `carry` is what `on_open` attached.
    fn on_close(&self, call: &Call, closed: Closed, carry: Carry);
}

/// Asked for each HTTP request that the policies allow. A fault answers 503.
pub trait HttpRequestHook: Plugin {
    /// Edits fields, says no, or answers in place of the origin; `carry` is what `signals`
    /// attached.
    ///
    /// # Errors
    /// It cannot answer now.
    fn on_request(
        &self,
        call: &Call,
        request: Request,
        carry: Carry,
    ) -> Result<RequestVerdict, Error>;
}

/// Asked for each HTTP response. A fault answers 503.
pub trait HttpResponseHook: Plugin {
    /// Edits fields or answers in place of the origin; `carry` is what `on_request` attached.
    ///
    /// # Errors
    /// It cannot answer now.
    fn on_response(
        &self,
        call: &Call,
        response: Response,
        carry: Carry,
    ) -> Result<ResponseVerdict, Error>;
}

/// Asked for batches of log records. A fault erases all values of the batch.
pub trait MaskHook: Plugin {
    /// Names what to cover.
    ///
    /// # Errors
    /// It cannot answer now.
    fn mask_entries(&self, call: &Call, batch: Vec<Entry>) -> Result<Vec<Mask>, Error>;
}

/// A grant without any bound.
pub fn unbounded() -> Grant {
    Grant {
        max_bytes: None,
        max_seconds: None,
        idle_seconds: None,
        attributes: Vec::new(),
        carry: Vec::new(),
    }
}

/// Allows a flow without any bound.
pub fn allow() -> OpenVerdict {
    OpenVerdict::Allow(unbounded())
}

/// Why a plugin says no: a stable code (`[a-z0-9_]`), a text that may reach the peer, and one
/// for the decision log alone.
pub fn deny(
    code: impl Into<String>,
    public: impl Into<String>,
    private: impl Into<String>,
) -> Denial {
    Denial {
        code: code.into(),
        public: public.into(),
        private: private.into(),
    }
}

/// Signals, with nothing for the later hooks.
pub fn found(signals: Vec<String>) -> Findings {
    Findings {
        signals,
        carry: Vec::new(),
    }
}

/// The settings are wrong; retrying cannot help.
pub fn bad_config(detail: impl Into<String>) -> Error {
    error("bad_config", detail)
}

/// Something that the plugin depends on is not there now.
pub fn unavailable(detail: impl Into<String>) -> Error {
    error("unavailable", detail)
}

/// The plugin itself does not know how to go on.
pub fn internal(detail: impl Into<String>) -> Error {
    error("internal", detail)
}

fn error(code: &str, detail: impl Into<String>) -> Error {
    Error {
        code: code.to_owned(),
        detail: detail.into(),
    }
}

/// Forwards a request after these edits.
pub fn next(edits: Vec<Edit>) -> RequestVerdict {
    RequestVerdict::Next(Next {
        edits,
        carry: Vec::new(),
    })
}

/// Makes a component of a plugin: its type, and the hooks that it implements.
///
/// ```
/// # use nowconnect_plugin::prelude::*;
/// # struct Mine;
/// # impl Plugin for Mine {
/// #     type Settings = NoSettings;
/// #     fn new(_: NoSettings) -> Result<Self, Error> { Ok(Self) }
/// # }
/// # impl OpenHook for Mine {
/// #     fn on_open(&self, _: &Call, _: Open, _: Carry) -> Result<OpenVerdict, Error> { Ok(allow()) }
/// # }
/// # impl CloseHook for Mine {
/// #     fn on_close(&self, _: &Call, _: Closed, _: Carry) {}
/// # }
/// nowconnect_plugin::export!(Mine: open, close);
/// ```
///
/// Hooks are `hello`, `bye`, `enrich`, `open`, `close`, `http_request`, `http_response` and
/// `mask`. Name, version and summary are those of the package.
#[macro_export]
macro_rules! export {
    ($plugin:ty : $($hook:ident),+ $(,)?) => {
        // A linker for the machine itself does not take the names of a component's functions.
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $plugin;
            struct Component;

            impl $crate::bindings::lifecycle::exports::nowconnect::plugin::lifecycle::Guest
                for Component
            {
                fn describe() -> $crate::types::About {
                    $crate::glue::watch_panics();
                    <Exported as $crate::Plugin>::about($crate::types::About {
                        name: env!("CARGO_PKG_NAME").into(),
                        version: env!("CARGO_PKG_VERSION").into(),
                        summary: env!("CARGO_PKG_DESCRIPTION").into(),
                    })
                }

                fn check_config(json: $crate::glue::String) -> Result<(), $crate::types::Error> {
                    $crate::glue::check::<Exported>(json)
                }
            }

            $crate::bindings::lifecycle::export_lifecycle!(
                Component with_types_in $crate::bindings::lifecycle
            );
            $($crate::__export_hook!(Exported, Component, $hook);)+
        };

        $($crate::__check_hook!($plugin, $hook);)+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __check_hook {
    (@ $plugin:ty, $hook:ident) => {
        const _: () = {
            const fn is_implemented<T: $crate::$hook>() {}
            is_implemented::<$plugin>();
        };
    };
    ($plugin:ty, hello) => { $crate::__check_hook!(@ $plugin, HelloHook); };
    ($plugin:ty, bye) => { $crate::__check_hook!(@ $plugin, ByeHook); };
    ($plugin:ty, enrich) => { $crate::__check_hook!(@ $plugin, EnrichHook); };
    ($plugin:ty, open) => { $crate::__check_hook!(@ $plugin, OpenHook); };
    ($plugin:ty, close) => { $crate::__check_hook!(@ $plugin, CloseHook); };
    ($plugin:ty, http_request) => { $crate::__check_hook!(@ $plugin, HttpRequestHook); };
    ($plugin:ty, http_response) => { $crate::__check_hook!(@ $plugin, HttpResponseHook); };
    ($plugin:ty, mask) => { $crate::__check_hook!(@ $plugin, MaskHook); };
    ($plugin:ty, $other:ident) => {
        compile_error!(concat!(
            "there is no hook `",
            stringify!($other),
            "`; known are hello, bye, enrich, open, close, http_request, http_response and mask"
        ));
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_hook {
    ($plugin:ident, $component:ident, hello) => {
        impl $crate::bindings::hello::exports::nowconnect::plugin::hello_hook::Guest for $component {
            fn on_hello(
                call: $crate::types::Call,
                hello: $crate::types::Hello,
                carry: $crate::types::Carry,
            ) -> Result<$crate::types::HelloVerdict, $crate::types::Error> {
                $crate::HelloHook::on_hello(
                    &$crate::glue::start::<$plugin>()?,
                    &call,
                    hello,
                    carry,
                )
            }
        }
        $crate::bindings::hello::export_hello!($component with_types_in $crate::bindings::hello);
    };
    ($plugin:ident, $component:ident, bye) => {
        impl $crate::bindings::bye::exports::nowconnect::plugin::bye_hook::Guest for $component {
            fn on_bye(
                call: $crate::types::Call,
                bye: $crate::types::Bye,
                carry: $crate::types::Carry,
            ) {
                if let Ok(plugin) = $crate::glue::start::<$plugin>() {
                    $crate::ByeHook::on_bye(&plugin, &call, bye, carry);
                }
            }
        }
        $crate::bindings::bye::export_bye!($component with_types_in $crate::bindings::bye);
    };
    ($plugin:ident, $component:ident, enrich) => {
        impl $crate::bindings::enrich::exports::nowconnect::plugin::enrich_hook::Guest
            for $component
        {
            fn signals(
                call: $crate::types::Call,
                ask: $crate::types::Ask,
            ) -> Result<$crate::types::Findings, $crate::types::Error> {
                $crate::EnrichHook::signals(&$crate::glue::start::<$plugin>()?, &call, ask)
            }
        }
        $crate::bindings::enrich::export_enrich!($component with_types_in $crate::bindings::enrich);
    };
    ($plugin:ident, $component:ident, open) => {
        impl $crate::bindings::open::exports::nowconnect::plugin::open_hook::Guest for $component {
            fn on_open(
                call: $crate::types::Call,
                open: $crate::types::Open,
                carry: $crate::types::Carry,
            ) -> Result<$crate::types::OpenVerdict, $crate::types::Error> {
                $crate::OpenHook::on_open(
                    &$crate::glue::start::<$plugin>()?,
                    &call,
                    open,
                    carry,
                )
            }
        }
        $crate::bindings::open::export_open!($component with_types_in $crate::bindings::open);
    };
    ($plugin:ident, $component:ident, close) => {
        impl $crate::bindings::close::exports::nowconnect::plugin::close_hook::Guest
            for $component
        {
            fn on_close(
                call: $crate::types::Call,
                closed: $crate::types::Closed,
                carry: $crate::types::Carry,
            ) {
                if let Ok(plugin) = $crate::glue::start::<$plugin>() {
                    $crate::CloseHook::on_close(&plugin, &call, closed, carry);
                }
            }
        }
        $crate::bindings::close::export_close!($component with_types_in $crate::bindings::close);
    };
    ($plugin:ident, $component:ident, http_request) => {
        impl $crate::bindings::http_request::exports::nowconnect::plugin::http_request_hook::Guest
            for $component
        {
            fn on_request(
                call: $crate::types::Call,
                request: $crate::types::Request,
                carry: $crate::types::Carry,
            ) -> Result<$crate::types::RequestVerdict, $crate::types::Error> {
                $crate::HttpRequestHook::on_request(
                    &$crate::glue::start::<$plugin>()?,
                    &call,
                    request,
                    carry,
                )
            }
        }
        $crate::bindings::http_request::export_http_request!(
            $component with_types_in $crate::bindings::http_request
        );
    };
    ($plugin:ident, $component:ident, http_response) => {
        impl $crate::bindings::http_response::exports::nowconnect::plugin::http_response_hook::Guest
            for $component
        {
            fn on_response(
                call: $crate::types::Call,
                response: $crate::types::Response,
                carry: $crate::types::Carry,
            ) -> Result<$crate::types::ResponseVerdict, $crate::types::Error> {
                $crate::HttpResponseHook::on_response(
                    &$crate::glue::start::<$plugin>()?,
                    &call,
                    response,
                    carry,
                )
            }
        }
        $crate::bindings::http_response::export_http_response!(
            $component with_types_in $crate::bindings::http_response
        );
    };
    ($plugin:ident, $component:ident, mask) => {
        impl $crate::bindings::mask::exports::nowconnect::plugin::mask_hook::Guest for $component {
            fn mask_entries(
                call: $crate::types::Call,
                batch: $crate::glue::Vec<$crate::types::Entry>,
            ) -> Result<$crate::glue::Vec<$crate::types::Mask>, $crate::types::Error> {
                $crate::MaskHook::mask_entries(&$crate::glue::start::<$plugin>()?, &call, batch)
            }
        }
        $crate::bindings::mask::export_mask!($component with_types_in $crate::bindings::mask);
    };
    // `__check_hook` says what is wrong.
    ($plugin:ident, $component:ident, $other:ident) => {};
}
