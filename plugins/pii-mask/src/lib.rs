//! Covers what names people in log records: addresses, card and account numbers, phone and
//! social security numbers. [`find`] says what a text holds and knows nothing of WebAssembly;
//! `corpus` has what must be found and what must not.

#![allow(missing_docs, reason = "a plugin's interface is the contract")]

pub mod find;

use nowconnect_plugin::prelude::*;

use crate::find::{Kind, holds};

pub struct PiiMask {
    settings: Settings,
}

/// The plugin's settings.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, crate = "nowconnect_plugin::serde")]
pub struct Settings {
    /// What to look for in values and messages.
    pub find: Vec<Kind>,
    /// Fields that are covered whatever they hold.
    pub fields: Vec<String>,
    /// Fields that are never looked into.
    pub keep: Vec<String>,
    /// How a value is covered.
    pub cover: HowToCover,
}

/// How a value is covered.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase", crate = "nowconnect_plugin::serde")]
pub enum HowToCover {
    Erase,
    Hash,
}

impl Default for Settings {
    fn default() -> Self {
        let fields = [
            "email",
            "phone",
            "first_name",
            "last_name",
            "full_name",
            "birthday",
            "address",
        ];
        Self {
            find: Kind::ALL.to_vec(),
            fields: fields.map(str::to_owned).to_vec(),
            keep: Vec::new(),
            cover: HowToCover::Erase,
        }
    }
}

impl Plugin for PiiMask {
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, Error> {
        match settings
            .fields
            .iter()
            .find(|field| settings.keep.contains(field))
        {
            Some(field) => Err(bad_config(format!(
                "`{field}` is in `fields` and in `keep`"
            ))),
            None => Ok(Self { settings }),
        }
    }
}

impl MaskHook for PiiMask {
    fn mask_entries(&self, _: &Call, batch: Vec<Entry>) -> Result<Vec<Mask>, Error> {
        let mut masks = Vec::new();
        for (entry, index) in batch.iter().zip(0..) {
            if holds(&entry.message, &self.settings.find).is_some() {
                masks.push(self.mask(index, None));
            }
            for (name, value) in &entry.fields {
                if self.is_covered(name, value) {
                    masks.push(self.mask(index, Some(name.clone())));
                }
            }
        }
        Ok(masks)
    }
}

impl PiiMask {
    fn is_covered(&self, name: &str, value: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|other| other == name);
        named(&self.settings.fields)
            || !named(&self.settings.keep) && holds(value, &self.settings.find).is_some()
    }

    fn mask(&self, entry: u32, field: Option<String>) -> Mask {
        let cover = match self.settings.cover {
            HowToCover::Erase => Cover::Erase,
            HowToCover::Hash => Cover::Hash,
        };
        Mask {
            entry,
            field,
            cover,
        }
    }
}

nowconnect_plugin::export!(PiiMask: mask);

#[cfg(test)]
mod tests {
    use super::find::{Kind, holds};

    /// Lines of a corpus, without comments.
    fn lines(corpus: &str) -> impl Iterator<Item = &str> {
        corpus
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
    }

    #[test]
    fn what_must_be_masked_is_found_for_the_right_reason() {
        let corpus = include_str!("../corpus/must-mask.txt");
        let mut count = 0;
        for line in lines(corpus) {
            let (kind, text) = line.split_once('\t').unwrap_or_default();
            let found = holds(text, &Kind::ALL).map(Kind::as_str);
            assert_eq!(found, Some(kind), "{text}");
            count += 1;
        }
        assert!(count >= 40, "{count}");
    }

    #[test]
    fn what_must_not_be_masked_is_left_alone() {
        let corpus = include_str!("../corpus/must-not-mask.txt");
        let mut count = 0;
        for text in lines(corpus) {
            assert_eq!(holds(text, &Kind::ALL), None, "{text}");
            count += 1;
        }
        assert!(count >= 40, "{count}");
    }

    #[test]
    fn only_what_is_asked_for_is_found() {
        let text = "ann@example.com paid with 4111 1111 1111 1111";
        assert_eq!(holds(text, &[Kind::Card]), Some(Kind::Card));
        assert_eq!(holds(text, &[Kind::Iban]), None);
        assert_eq!(holds(text, &[]), None);
    }
}
