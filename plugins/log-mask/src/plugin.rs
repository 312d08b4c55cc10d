//! The rules as a plugin: hook `mask`, capability `config`.

#![allow(unsafe_code, missing_docs, reason = "the bindings are generated")]

use bump as _;

use crate::rules::{self, Rules};

wit_bindgen::generate!({
    inline: r#"
        package nowconnect:log-mask;

        world plugin {
            import nowconnect:plugin/config@0.1.0;
            export nowconnect:plugin/lifecycle@0.1.0;
            export nowconnect:plugin/mask-hook@0.1.0;
        }
    "#,
    path: "../../wit/0.1",
    generate_all,
});

use exports::nowconnect::plugin::lifecycle::{self, About};
use exports::nowconnect::plugin::mask_hook::{self, Cover, Entry, Mask};
use nowconnect::plugin::config;
use nowconnect::plugin::types::{Call, Error};

struct LogMask;
export!(LogMask);

impl lifecycle::Guest for LogMask {
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

impl mask_hook::Guest for LogMask {
    fn mask_entries(_: Call, batch: Vec<Entry>) -> Result<Vec<Mask>, Error> {
        let rules = Rules::parse(&config::json()).map_err(Error::BadConfig)?;
        let mut masks = Vec::new();
        for (number, entry) in (0u32..).zip(&batch) {
            let message = (None, rules.message(&entry.message));
            let fields = entry
                .fields
                .iter()
                .map(|(name, value)| (Some(name), rules.field(name, value)));
            for (field, cover) in std::iter::once(message).chain(fields) {
                if let Some(cover) = wire(cover) {
                    masks.push(Mask {
                        entry: number,
                        field: field.cloned(),
                        cover,
                    });
                }
            }
        }
        Ok(masks)
    }
}

fn wire(cover: rules::Cover) -> Option<Cover> {
    match cover {
        rules::Cover::Off => None,
        rules::Cover::Erase => Some(Cover::Erase),
        rules::Cover::Hash => Some(Cover::Hash),
        rules::Cover::KeepLast4 => Some(Cover::KeepLast(4)),
    }
}
