//! What a bundle says about itself.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::refusal::{Refusal, RefusalCode};
use super::{CLOCK_SKEW, contents};
use crate::core_schema::CoreVersion;

/// The format of manifest and archive that is written and read here.
const FORMAT: u32 = 1;

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format of the archive.
    pub format: u32,
    /// Grows with every bundle that is made.
    pub revision: u64,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created: SystemTime,
    /// When it stops being acceptable.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "rfc3339_option"
    )]
    pub not_after: Option<SystemTime>,
    /// The lowest version of the hub that can run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_hub: Option<semver::Version>,
    /// The version of the core schema that it was written for.
    pub core_schema: u32,
    /// SHA-256 in hex of every other file, by path.
    pub files: BTreeMap<String, String>,
}

impl Manifest {
    pub(super) const FORMAT: u32 = FORMAT;

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = |message: String| Refusal::new(RefusalCode::Malformed, message);
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| malformed(format!("`{}`: {error}", contents::MANIFEST)))?;
        if manifest.format != FORMAT {
            return Err(malformed(format!(
                "this is a bundle of format {}; this hub reads format {FORMAT}",
                manifest.format
            )));
        }
        if let Some(path) = manifest
            .files
            .keys()
            .find(|path| !contents::is_member(path))
        {
            return Err(malformed(format!(
                "the manifest lists `{path}`, which has no place in a bundle"
            )));
        }
        Ok(manifest)
    }

    pub(super) fn check(&self, now: SystemTime, hub_version: &str) -> Result<(), Refusal> {
        let refuse = |code, message| Err(Refusal::new(code, message));
        if let Some(not_after) = self.not_after
            && now > not_after
        {
            let message = format!("it was good until {}", time_text(not_after));
            return refuse(RefusalCode::Expired, message);
        }
        if self.created > now + CLOCK_SKEW {
            let message = format!(
                "it was made at {}, and here it is {}; is a clock wrong?",
                time_text(self.created),
                time_text(now)
            );
            return refuse(RefusalCode::FromFuture, message);
        }
        if let Some(min_hub) = &self.min_hub
            && semver::Version::parse(hub_version).is_ok_and(|own| own < *min_hub)
        {
            let message = format!("it needs hub {min_hub}; this is {hub_version}");
            return refuse(RefusalCode::NewerHub, message);
        }
        match CoreVersion::from_number(self.core_schema) {
            Some(_) => Ok(()),
            None => Err(self.unknown_schema()),
        }
    }

    pub(super) fn unknown_schema(&self) -> Refusal {
        let served: Vec<String> = CoreVersion::SERVED
            .iter()
            .map(|version| version.number().to_string())
            .collect();
        Refusal::new(
            RefusalCode::UnknownSchema,
            format!(
                "it was written for core schema {}; this hub serves {}",
                self.core_schema,
                served.join(" and ")
            ),
        )
    }
}

/// A time as manifests have it: RFC 3339, in UTC, whole seconds where possible.
#[must_use]
pub fn time_text(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_else(|_| "a time beyond the year 9999".to_owned())
}

/// Reads a time as manifests have it.
#[must_use]
pub fn parse_time(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .map(SystemTime::from)
}

mod rfc3339 {
    use super::{SystemTime, parse_time, time_text};
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time_text(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        parse_time(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is no time such as `2026-11-21T12:00:00Z`"
            ))
        })
    }
}

mod rfc3339_option {
    use super::{SystemTime, rfc3339};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => rfc3339::serialize(time, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        rfc3339::deserialize(from).map(Some)
    }
}
