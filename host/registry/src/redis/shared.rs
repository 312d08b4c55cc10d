//! Small shared state.

use std::sync::Arc;
use std::time::Duration;

use redis::{Value, cmd, from_redis_value};

use super::script::{CHANGE, COUNT, REVOCATIONS, REVOKE};
use super::{RedisRegistry, ms};
use crate::error::RegistryError;
use crate::limits::{MAX_REVOCATION_BYTES, MAX_REVOCATION_PAGE, MAX_REVOCATIONS};
use crate::shared::{
    Bucket, Changed, OnceKind, Revocation, RevocationCursor, RevocationPage, Used, check_name,
    check_value,
};

impl RedisRegistry {
    pub(super) async fn once(
        &self,
        kind: OnceKind,
        id: &str,
        ttl: Duration,
    ) -> Result<Used, RegistryError> {
        check_name(id)?;
        let mut command = cmd("SET");
        command
            .arg(self.keys.once(kind, id))
            .arg("1")
            .arg("NX")
            .arg("PX")
            .arg(ms(ttl).max(1));
        let answer = self.link.send("use once", &command).await?;
        Ok(if answer == Value::Nil {
            Used::Again
        } else {
            Used::First
        })
    }

    pub(super) async fn value(
        &self,
        bucket: Bucket,
        name: &str,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        check_name(name)?;
        let key = self.keys.value(bucket, name);
        let value = self.link.send("read", cmd("GET").arg(key)).await?;
        Ok(from_redis_value::<Option<Vec<u8>>>(value).ok().flatten())
    }

    pub(super) async fn compare_and_set(
        &self,
        bucket: Bucket,
        name: &str,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        ttl: Option<Duration>,
    ) -> Result<Changed, RegistryError> {
        check_name(name)?;
        check_value(new)?;
        let there = |value: Option<&[u8]>| if value.is_some() { b"1" } else { b"0" };
        let ttl = ttl.map_or(0, |ttl| ms(ttl).max(1)).to_string();
        let arguments: [&[u8]; 5] = [
            there(expected),
            expected.unwrap_or_default(),
            there(new),
            new.unwrap_or_default(),
            ttl.as_bytes(),
        ];
        let keys = [self.keys.value(bucket, name)];
        let mut reply = self.link.run(&CHANGE, &keys, &arguments).await?;
        match reply.outcome() {
            "ok" => Ok(Changed::Done),
            "differs" => Ok(Changed::Differs {
                present: reply.next_bytes(),
            }),
            _ => Err(reply.unexpected()),
        }
    }

    pub(super) async fn add_to_counter(
        &self,
        name: &str,
        add: u32,
        window: Duration,
    ) -> Result<u64, RegistryError> {
        check_name(name)?;
        let (add, window) = (add.to_string(), ms(window).max(1).to_string());
        let keys = [self.keys.counter(name)];
        let arguments = [add.as_bytes(), window.as_bytes()];
        let mut reply = self.link.run(&COUNT, &keys, &arguments).await?;
        reply.parsed()
    }

    pub(super) async fn publish_revocation(
        &self,
        revocation: &Revocation,
    ) -> Result<(), RegistryError> {
        let bytes = revocation.entry.len();
        RegistryError::bound("bytes of a revocation", bytes, MAX_REVOCATION_BYTES)?;
        let keys = [
            self.keys.revoked(),
            self.keys.revoked_until(),
            self.keys.revoked_about(),
        ];
        let ttl = ms(revocation.ttl).to_string();
        let most = MAX_REVOCATIONS.to_string();
        let incarnation = format!("{:016x}", rand::random::<u64>());
        let arguments = [
            revocation.entry.as_bytes(),
            ttl.as_bytes(),
            most.as_bytes(),
            incarnation.as_bytes(),
        ];
        let mut reply = self.link.run(&REVOKE, &keys, &arguments).await?;
        match reply.outcome() {
            "ok" => Ok(()),
            "full" => {
                let found: usize = reply.parsed()?;
                RegistryError::bound("revocations", found + 1, MAX_REVOCATIONS)
            }
            _ => Err(reply.unexpected()),
        }
    }

    pub(super) async fn revocations_since(
        &self,
        cursor: &RevocationCursor,
    ) -> Result<RevocationPage, RegistryError> {
        let keys = [self.keys.revoked(), self.keys.revoked_about()];
        let after = cursor.version.to_string();
        let most = MAX_REVOCATION_PAGE.to_string();
        let arguments = [
            cursor.incarnation.as_bytes(),
            after.as_bytes(),
            most.as_bytes(),
            cursor.last.as_bytes(),
        ];
        let mut reply = self.link.run(&REVOCATIONS, &keys, &arguments).await?;
        let incarnation = reply.text()?;
        let reset = reply.text()? == "1";
        let mut version = if reset { 0 } else { cursor.version };
        let mut entries: Vec<Arc<str>> = Vec::new();
        while let Some(entry) = reply.next_text() {
            version = reply.parsed()?;
            entries.push(entry.into());
        }
        Ok(RevocationPage {
            more: entries.len() >= MAX_REVOCATION_PAGE,
            cursor: RevocationCursor {
                incarnation,
                version,
                last: match entries.last() {
                    Some(last) => Arc::clone(last),
                    None if reset => "".into(),
                    None => Arc::clone(&cursor.last),
                },
            },
            entries,
            reset: reset && !cursor.incarnation.is_empty(),
        })
    }
}
