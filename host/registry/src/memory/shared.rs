//! Small shared state in tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ms;
use crate::error::RegistryError;
use crate::limits::{MAX_REVOCATION_BYTES, MAX_REVOCATION_PAGE, MAX_REVOCATIONS};
use crate::shared::{
    Bucket, Changed, OnceKind, Revocation, RevocationCursor, RevocationPage, Used, check_name,
    check_value,
};

/// Entries of one table. A store in this process has no more than its hub makes.
const MAX_ENTRIES: usize = 1_000_000;

/// Changes after which what has expired is looked for.
const EXPIRE_EVERY: u32 = 4_096;

#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    once: BTreeMap<(OnceKind, String), u64>,
    values: BTreeMap<(Bucket, String), Value>,
    counters: BTreeMap<String, (u64, u64)>,
    revoked: BTreeMap<Arc<str>, (u64, u64)>,
    version: u64,
    incarnation: String,
    changes: u32,
}

#[derive(Clone, Debug)]
struct Value {
    bytes: Vec<u8>,
    until: Option<u64>,
}

impl Shared {
    pub(super) fn use_once(
        &mut self,
        kind: OnceKind,
        id: &str,
        now: u64,
        ttl: u64,
    ) -> Result<Used, RegistryError> {
        check_name(id)?;
        self.expire(now);
        let key = (kind, id.to_owned());
        if self.once.get(&key).is_some_and(|until| *until > now) {
            return Ok(Used::Again);
        }
        RegistryError::bound("things used once", self.once.len() + 1, MAX_ENTRIES)?;
        self.once.insert(key, now.saturating_add(ttl));
        Ok(Used::First)
    }

    pub(super) fn read(
        &self,
        bucket: Bucket,
        name: &str,
        now: u64,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        check_name(name)?;
        Ok(self
            .values
            .get(&(bucket, name.to_owned()))
            .filter(|value| value.until.is_none_or(|until| until > now))
            .map(|value| value.bytes.clone()))
    }

    pub(super) fn change(
        &mut self,
        (bucket, name): (Bucket, &str),
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        now: u64,
        until: Option<u64>,
    ) -> Result<Changed, RegistryError> {
        check_value(new)?;
        let present = self.read(bucket, name, now)?;
        if present.as_deref() != expected {
            return Ok(Changed::Differs { present });
        }
        self.expire(now);
        let key = (bucket, name.to_owned());
        match new {
            Some(bytes) => {
                RegistryError::bound("shared values", self.values.len() + 1, MAX_ENTRIES)?;
                let bytes = bytes.to_vec();
                self.values.insert(key, Value { bytes, until });
            }
            None => {
                self.values.remove(&key);
            }
        }
        Ok(Changed::Done)
    }

    pub(super) fn count(
        &mut self,
        name: &str,
        add: u32,
        now: u64,
        window: u64,
    ) -> Result<u64, RegistryError> {
        check_name(name)?;
        self.expire(now);
        RegistryError::bound("counters", self.counters.len() + 1, MAX_ENTRIES)?;
        let (sum, until) = self.counters.entry(name.to_owned()).or_default();
        if *until <= now {
            (*sum, *until) = (0, now.saturating_add(window));
        }
        *sum += u64::from(add);
        Ok(*sum)
    }

    pub(super) fn revoke(
        &mut self,
        revocation: &Revocation,
        now: u64,
    ) -> Result<(), RegistryError> {
        let bytes = revocation.entry.len();
        RegistryError::bound("bytes of a revocation", bytes, MAX_REVOCATION_BYTES)?;
        if self.incarnation.is_empty() {
            self.incarnation = format!("{:016x}", rand::random::<u64>());
        }
        self.revoked.retain(|_, (_, until)| *until > now);
        let until = now.saturating_add(ms(revocation.ttl));
        if let Some((_, present)) = self.revoked.get_mut(&revocation.entry) {
            *present = until.max(*present);
            return Ok(());
        }
        RegistryError::bound("revocations", self.revoked.len() + 1, MAX_REVOCATIONS)?;
        self.version += 1;
        let entry = Arc::clone(&revocation.entry);
        self.revoked.insert(entry, (self.version, until));
        Ok(())
    }

    pub(super) fn revocations(&self, cursor: &RevocationCursor) -> RevocationPage {
        let last = self.revoked.get(&cursor.last);
        let is_there = cursor.version == 0 || last.is_some_and(|last| last.0 == cursor.version);
        let same = cursor.incarnation == self.incarnation && is_there;
        let after = if same { cursor.version } else { 0 };
        let mut found: Vec<_> = self
            .revoked
            .iter()
            .filter(|(_, (version, _))| *version > after)
            .map(|(entry, (version, _))| (*version, Arc::clone(entry)))
            .collect();
        found.sort_unstable();
        let more = found.len() > MAX_REVOCATION_PAGE;
        found.truncate(MAX_REVOCATION_PAGE);
        RevocationPage {
            cursor: RevocationCursor {
                incarnation: self.incarnation.clone(),
                version: found.last().map_or(after, |(version, _)| *version),
                last: match found.last() {
                    Some((_, last)) => Arc::clone(last),
                    None if same => Arc::clone(&cursor.last),
                    None => "".into(),
                },
            },
            entries: found.into_iter().map(|(_, entry)| entry).collect(),
            more,
            reset: !same && !cursor.incarnation.is_empty(),
        }
    }

    fn expire(&mut self, now: u64) {
        self.changes += 1;
        if self.changes >= EXPIRE_EVERY {
            self.changes = 0;
            self.once.retain(|_, until| *until > now);
            self.counters.retain(|_, (_, until)| *until > now);
            self.values
                .retain(|_, value| value.until.is_none_or(|until| until > now));
        }
    }
}
