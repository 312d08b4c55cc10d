//! Clearing away index entries that no record bears out.

use futures_util::{StreamExt as _, TryStreamExt as _};
use nowconnect_protocol::{AgentId, ConnectorName, TenantName};
use redis::{Value, cmd};

use super::RedisRegistry;
use super::ownership::{Entry, index_name, pairs};
use super::reply;
use crate::agent::{AgentKey, ConnectorKey};
use crate::error::RegistryError;
use crate::limits::MAX_AGENTS_PER_CONNECTOR;
use crate::registry::{SweepCursor, SweepReport};

/// Names of indexes, or entries, that one command asks for.
const SCAN_COUNT: usize = 64;

/// Records that are on their way at a time.
const CALLS_AT_ONCE: usize = 16;

impl RedisRegistry {
    /// Goes through whole indexes until `budget` entries were looked at; so at most one index,
    /// and what one command names, beyond it.
    pub(super) async fn sweep_some(
        &self,
        from: SweepCursor,
        budget: usize,
    ) -> Result<SweepReport, RegistryError> {
        let mut report = SweepReport {
            next: from,
            ..SweepReport::default()
        };
        loop {
            let mut command = cmd("SSCAN");
            command
                .arg(self.keys.indexes())
                .arg(report.next.0)
                .arg("COUNT")
                .arg(SCAN_COUNT);
            let (next, names) = scanned(self.link.send("sweep", &command).await?);
            for name in names {
                if let Some(connector) = connector(&name) {
                    self.sweep_index(&connector, &mut report).await?;
                }
            }
            report.next = SweepCursor(next);
            if next == 0 || report.checked >= budget {
                return Ok(report);
            }
        }
    }

    async fn sweep_index(
        &self,
        connector: &ConnectorKey,
        report: &mut SweepReport,
    ) -> Result<(), RegistryError> {
        let mut cursor = 0;
        let mut left = None;
        // An index that grows while it is read does not hold the sweep for ever.
        for _ in 0..=2 * MAX_AGENTS_PER_CONNECTOR / SCAN_COUNT {
            let mut command = cmd("HSCAN");
            command
                .arg(self.keys.index(connector))
                .arg(cursor)
                .arg("COUNT")
                .arg(SCAN_COUNT);
            let answer = self.link.send("sweep", &command).await?;
            let (next, entries) = scanned_pairs(answer);
            if entries.is_empty() && cursor == 0 && next == 0 {
                left = Some(0);
            }
            report.checked += entries.len();
            let outcomes: Vec<_> = futures_util::stream::iter(entries)
                .map(|(agent, entry)| self.sweep_entry(connector, agent, entry))
                .buffer_unordered(CALLS_AT_ONCE)
                .try_collect()
                .await?;
            for (removed, remaining) in outcomes.into_iter().flatten() {
                report.removed += usize::from(removed);
                left = Some(left.map_or(remaining, |left: u64| left.min(remaining)));
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        if left == Some(0) {
            self.forget_index(connector).await?;
        }
        Ok(())
    }

    /// What came of removing an entry; `None` where its record bears it out.
    async fn sweep_entry(
        &self,
        connector: &ConnectorKey,
        agent: String,
        entry: String,
    ) -> Result<Option<(bool, u64)>, RegistryError> {
        let (Ok(agent), Some(entry)) = (AgentId::parse(&agent), Entry::read(&entry)) else {
            // Not ours to judge: another release may have written it.
            return Ok(None);
        };
        let key = AgentKey {
            tenant: connector.tenant.clone(),
            agent,
        };
        let record = self.record(&key).await?;
        if record.is_some_and(|record| record.offer.has(&connector.name)) {
            return Ok(None);
        }
        // Only as it was read: one that was written meanwhile is later, and stays.
        let outcome = self.unlist_one(&key, &entry, connector).await?;
        Ok(Some(outcome))
    }

    /// Takes an empty index out of the list. One that is written to at the same moment is put
    /// back, because its entry is seen here or its writer adds it after this.
    async fn forget_index(&self, connector: &ConnectorKey) -> Result<(), RegistryError> {
        let mut command = cmd("SREM");
        command.arg(self.keys.indexes()).arg(index_name(connector));
        self.link.send("sweep", &command).await?;
        let length = self
            .link
            .send("sweep", cmd("HLEN").arg(self.keys.index(connector)))
            .await?;
        if length != Value::Int(0) {
            self.note_index(connector).await?;
        }
        Ok(())
    }
}

fn connector(name: &str) -> Option<ConnectorKey> {
    let (tenant, name) = name.split_once('/')?;
    Some(ConnectorKey {
        tenant: TenantName::parse(tenant).ok()?,
        name: ConnectorName::parse(name).ok()?,
    })
}

/// The cursor of a scan and what it found. What cannot be read ends the scan.
fn parts(value: Value) -> Option<(u64, Value)> {
    let Value::Array(parts) = value else {
        return None;
    };
    let [cursor, found] = <[Value; 2]>::try_from(parts).ok()?;
    Some((reply::text(cursor)?.parse().ok()?, found))
}

fn scanned(value: Value) -> (u64, Vec<String>) {
    let Some((cursor, Value::Array(found))) = parts(value) else {
        return (0, Vec::new());
    };
    (cursor, found.into_iter().filter_map(reply::text).collect())
}

fn scanned_pairs(value: Value) -> (u64, Vec<(String, String)>) {
    parts(value).map_or((0, Vec::new()), |(cursor, found)| (cursor, pairs(found)))
}
