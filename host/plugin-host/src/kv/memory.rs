//! The store in the hub's own memory.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use parking_lot::Mutex;

use super::{KEY_BYTES_MAX, KvError, KvStore, Namespace, TTL_SECONDS_MAX, VALUE_BYTES_MAX};

/// Locks, so that two plugins or tenants seldom wait for each other.
const SHARDS: usize = 16;
/// What one entry costs beside its key and value: map slot, expiry record, allocations.
const ENTRY_OVERHEAD_BYTES: u64 = 128;
/// Dead entries taken away by one operation, so that no call pays for many.
const EXPIRED_PER_OPERATION_MAX: usize = 64;

/// Bounds of a [`MemoryKv`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryKvSettings {
    /// Bytes of the whole table, keys and overhead included. Split evenly over 16 shards.
    pub bytes_max: u64,
}

impl Default for MemoryKvSettings {
    fn default() -> Self {
        Self {
            bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// A [`KvStore`] in memory: bounded, gone with the process.
pub struct MemoryKv {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    shard_bytes_max: u64,
    now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl std::fmt::Debug for MemoryKv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryKv")
            .field("shard_bytes_max", &self.shard_bytes_max)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shard {
    spaces: HashMap<Namespace, Space>,
    /// When each entry dies; a record whose entry was made anew or deleted is stale.
    deaths: BinaryHeap<Reverse<(u64, u64)>>,
    /// Which entry a death record belongs to.
    owners: HashMap<u64, (Namespace, Box<str>)>,
    bytes: u64,
    next_id: u64,
}

#[derive(Default)]
struct Space {
    entries: HashMap<Box<str>, Entry>,
    bytes: u64,
}

struct Entry {
    value: Value,
    dies_at_ms: u64,
    id: u64,
    bytes: u64,
}

enum Value {
    Bytes(Box<[u8]>),
    Counter(i64),
}

impl MemoryKv {
    /// An empty store on the machine's monotonic clock.
    pub fn new(settings: MemoryKvSettings) -> Self {
        let start = Instant::now();
        Self::with_clock(settings, move || {
            u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// An empty store on a clock of the caller's, in milliseconds, which never goes back.
    pub fn with_clock(
        settings: MemoryKvSettings,
        now_ms: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            shard_bytes_max: settings.bytes_max / SHARDS as u64,
            now_ms: Box::new(now_ms),
        }
    }

    /// Bytes in use, dead entries that were not yet taken away included.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }

    fn with_shard<R>(&self, namespace: &Namespace, act: impl FnOnce(&mut Shard, u64) -> R) -> R {
        let now = (self.now_ms)();
        let index = self.hasher.hash_one(namespace) as usize % SHARDS;
        let mut shard = self.shards[index].lock();
        shard.bury(now);
        act(&mut shard, now)
    }
}

impl KvStore for MemoryKv {
    fn get(&self, namespace: &Namespace, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        check_key(key)?;
        Ok(self.with_shard(namespace, |shard, now| {
            shard
                .live(namespace, key, now)
                .map(|entry| match &entry.value {
                    Value::Bytes(bytes) => bytes.to_vec(),
                    Value::Counter(count) => count.to_string().into_bytes(),
                })
        }))
    }

    fn set(
        &self,
        namespace: &Namespace,
        key: &str,
        value: &[u8],
        ttl_seconds: u32,
        quota_bytes: u64,
    ) -> Result<(), KvError> {
        check_key(key)?;
        check_ttl(ttl_seconds)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(KvError::TooLarge);
        }
        let bounds = Bounds {
            quota_bytes,
            shard_bytes: self.shard_bytes_max,
        };
        self.with_shard(namespace, |shard, now| {
            shard.put(
                namespace,
                key,
                Value::Bytes(value.into()),
                now + u64::from(ttl_seconds) * 1000,
                bounds,
            )
        })
    }

    fn delete(&self, namespace: &Namespace, key: &str) -> Result<(), KvError> {
        check_key(key)?;
        self.with_shard(namespace, |shard, _| shard.remove(namespace, key));
        Ok(())
    }

    fn increment(
        &self,
        namespace: &Namespace,
        key: &str,
        delta: i64,
        ttl_seconds: u32,
        quota_bytes: u64,
    ) -> Result<i64, KvError> {
        check_key(key)?;
        check_ttl(ttl_seconds)?;
        let bounds = Bounds {
            quota_bytes,
            shard_bytes: self.shard_bytes_max,
        };
        self.with_shard(namespace, |shard, now| {
            if let Some(entry) = shard.live(namespace, key, now) {
                return match &mut entry.value {
                    Value::Counter(count) => {
                        *count = count.saturating_add(delta);
                        Ok(*count)
                    }
                    Value::Bytes(_) => Err(KvError::NotACounter),
                };
            }
            let dies_at_ms = now + u64::from(ttl_seconds) * 1000;
            shard.put(namespace, key, Value::Counter(delta), dies_at_ms, bounds)?;
            Ok(delta)
        })
    }
}

#[derive(Clone, Copy)]
struct Bounds {
    quota_bytes: u64,
    shard_bytes: u64,
}

impl Shard {
    fn live(&mut self, namespace: &Namespace, key: &str, now: u64) -> Option<&mut Entry> {
        self.spaces
            .get_mut(namespace)?
            .entries
            .get_mut(key)
            .filter(|entry| entry.dies_at_ms > now)
    }

    fn put(
        &mut self,
        namespace: &Namespace,
        key: &str,
        value: Value,
        dies_at_ms: u64,
        bounds: Bounds,
    ) -> Result<(), KvError> {
        let value_bytes = match &value {
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::Counter(_) => 8,
        };
        let bytes = key.len() as u64 + value_bytes + ENTRY_OVERHEAD_BYTES;
        // What it replaces makes room, and stays where the new value finds none.
        let space = self.spaces.get(namespace);
        let replaced = space.and_then(|space| space.entries.get(key));
        let replaced = replaced.map_or(0, |entry| entry.bytes);
        let in_space = space.map_or(0, |space| space.bytes) - replaced;
        let in_shard = self.bytes - replaced;
        if in_space + bytes > bounds.quota_bytes || in_shard + bytes > bounds.shard_bytes {
            return Err(KvError::NoQuota);
        }
        self.remove(namespace, key);
        let id = self.next_id;
        self.next_id += 1;
        self.deaths.push(Reverse((dies_at_ms, id)));
        self.owners.insert(id, (namespace.clone(), key.into()));
        self.bytes += bytes;
        let space = self.spaces.entry(namespace.clone()).or_default();
        space.bytes += bytes;
        let entry = Entry {
            value,
            dies_at_ms,
            id,
            bytes,
        };
        space.entries.insert(key.into(), entry);
        Ok(())
    }

    fn remove(&mut self, namespace: &Namespace, key: &str) {
        let Some(space) = self.spaces.get_mut(namespace) else {
            return;
        };
        if let Some(entry) = space.entries.remove(key) {
            space.bytes -= entry.bytes;
            self.bytes -= entry.bytes;
            self.owners.remove(&entry.id);
        }
        if space.entries.is_empty() {
            self.spaces.remove(namespace);
        }
        self.drop_stale_deaths();
    }

    /// A key set again and again leaves a death record each time; without this the heap would
    /// grow by the rate of writes times the longest time to live.
    fn drop_stale_deaths(&mut self) {
        if self.deaths.len() > 2 * self.owners.len() + EXPIRED_PER_OPERATION_MAX {
            let owners = &self.owners;
            self.deaths
                .retain(|Reverse((_, id))| owners.contains_key(id));
        }
    }

    fn bury(&mut self, now: u64) {
        for _ in 0..EXPIRED_PER_OPERATION_MAX {
            match self.deaths.peek() {
                Some(Reverse((dies_at_ms, _))) if *dies_at_ms <= now => {}
                Some(_) | None => return,
            }
            let Some(Reverse((_, id))) = self.deaths.pop() else {
                return;
            };
            if let Some((namespace, key)) = self.owners.remove(&id) {
                self.remove(&namespace, &key);
            }
        }
    }
}

fn check_key(key: &str) -> Result<(), KvError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(KvError::TooLarge);
    }
    Ok(())
}

fn check_ttl(ttl_seconds: u32) -> Result<(), KvError> {
    if ttl_seconds == 0 || ttl_seconds > TTL_SECONDS_MAX {
        return Err(KvError::BadTtl);
    }
    Ok(())
}
