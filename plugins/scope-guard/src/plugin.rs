//! The rules as a plugin: hooks `hello` and `open`, capability `config`.

#![allow(unsafe_code, missing_docs, reason = "the bindings are generated")]

use bump as _;

use crate::rules::{Refusal, Rules};

wit_bindgen::generate!({
    inline: r#"
        package nowconnect:scope-guard;

        world plugin {
            import nowconnect:plugin/config@0.1.0;
            export nowconnect:plugin/lifecycle@0.1.0;
            export nowconnect:plugin/hello-hook@0.1.0;
            export nowconnect:plugin/open-hook@0.1.0;
        }
    "#,
    path: "../../wit/0.1",
    generate_all,
});

use exports::nowconnect::plugin::hello_hook::{self, Hello, Welcome};
use exports::nowconnect::plugin::lifecycle::{self, About};
use exports::nowconnect::plugin::open_hook::{self, Grant, Open};
use nowconnect::plugin::config;
use nowconnect::plugin::types::{Call, Denial, Error};

struct ScopeGuard;
export!(ScopeGuard);

impl lifecycle::Guest for ScopeGuard {
    fn describe() -> About {
        About {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: env!("CARGO_PKG_DESCRIPTION").to_owned(),
        }
    }

    fn check_config(json: String) -> Result<(), Error> {
        Rules::parse(&json).map(drop).map_err(Error::BadConfig)
    }
}

impl hello_hook::Guest for ScopeGuard {
    fn on_hello(_: Call, hello: Hello) -> Result<hello_hook::Verdict, Error> {
        let agent = &hello.agent;
        Ok(
            match rules()?.hello(&agent.id, &agent.scopes, &hello.announced) {
                Ok(accept) => hello_hook::Verdict::Accept(Welcome {
                    accept,
                    attributes: Vec::new(),
                    carry: Vec::new(),
                }),
                Err(refusal) => hello_hook::Verdict::Deny(denial(refusal)),
            },
        )
    }
}

impl open_hook::Guest for ScopeGuard {
    fn on_open(_: Call, open: Open) -> Result<open_hook::Verdict, Error> {
        Ok(match rules()?.open(&open.listener, &open.connector) {
            Ok(()) => open_hook::Verdict::Allow(Grant {
                max_bytes: None,
                max_seconds: None,
                idle_seconds: None,
                attributes: Vec::new(),
                carry: Vec::new(),
            }),
            Err(refusal) => open_hook::Verdict::Deny(denial(refusal)),
        })
    }
}

fn rules() -> Result<Rules, Error> {
    Rules::parse(&config::json()).map_err(Error::BadConfig)
}

fn denial(refusal: Refusal) -> Denial {
    Denial {
        code: refusal.code.to_owned(),
        public: "not allowed by the naming rules".to_owned(),
        private: refusal.text,
    }
}
