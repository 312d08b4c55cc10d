//! The limits as a plugin: hook `open`, capabilities `config` and `kv`.

#![allow(unsafe_code, missing_docs, reason = "the bindings are generated")]

use bump as _;

use crate::limits::{Flow, Limits};

wit_bindgen::generate!({
    inline: r#"
        package nowconnect:rate-limit;

        world plugin {
            import nowconnect:plugin/config@0.1.0;
            import nowconnect:plugin/kv@0.1.0;
            export nowconnect:plugin/lifecycle@0.1.0;
            export nowconnect:plugin/open-hook@0.1.0;
        }
    "#,
    path: "../../wit/0.1",
    generate_all,
});

use exports::nowconnect::plugin::lifecycle::{self, About};
use exports::nowconnect::plugin::open_hook::{self, Grant, Open, Verdict};
use nowconnect::plugin::types::{Call, Denial, Error};
use nowconnect::plugin::{config, kv};

struct RateLimit;
export!(RateLimit);

impl lifecycle::Guest for RateLimit {
    fn describe() -> About {
        About {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: env!("CARGO_PKG_DESCRIPTION").to_owned(),
        }
    }

    fn check_config(json: String) -> Result<(), Error> {
        Limits::parse(&json).map(drop).map_err(Error::BadConfig)
    }
}

impl open_hook::Guest for RateLimit {
    fn on_open(_: Call, open: Open) -> Result<Verdict, Error> {
        let limits = Limits::parse(&config::json()).map_err(Error::BadConfig)?;
        let flow = Flow {
            client_ip: &open.peer.ip,
            viewer: open.viewer.subject.as_deref(),
            agent: &open.agent.id,
            connector: &open.connector,
            listener: &open.listener,
        };
        let over = limits
            .count(&flow, |key, window_seconds| {
                kv::increment(key, 1, window_seconds)
            })
            .map_err(|error| Error::Unavailable(format!("the key-value table says {error:?}")))?;
        Ok(match over {
            None => Verdict::Allow(Grant {
                max_bytes: None,
                max_seconds: None,
                idle_seconds: None,
                attributes: Vec::new(),
                carry: Vec::new(),
            }),
            Some(over) => Verdict::Deny(Denial {
                code: "rate_limited".to_owned(),
                public: "too many connections, try again later".to_owned(),
                private: format!(
                    "over {} flows in {} s for `{}`",
                    over.flows, over.window_seconds, over.key
                ),
            }),
        })
    }
}
