//! Every bound of the registry, its unit and its reason.

use std::time::Duration;

/// The highest counter of an epoch. Scripts in the store count in double-precision numbers, which
/// hold every whole number up to here. At a thousand claims of one agent a second that is 285,000
/// years; an agent that claims to have seen more is refused.
pub const MAX_COUNTER: u64 = (1 << 53) - 1;

/// How far above what is known an agent's word on its last epoch is believed. A store that lost
/// writes lost fewer; and an agent that lies cannot use its own counter up: that takes two million
/// HELLOs.
pub const MAX_LEAP: u64 = 1 << 32;

/// What is believed of an agent's last epoch where nothing is known of it.
pub const MAX_FIRST_WITNESS: u64 = 1 << 52;

/// Connectors in one record, as many as one HELLO may name.
pub const MAX_CONNECTORS: usize = nowconnect_protocol::limits::MAX_CONNECTORS;

/// What a hub may write about an agent that it has proven. Bytes.
pub const MAX_FACTS_BYTES: usize = 16_384;

/// Agents behind one connector. At about 150 bytes an entry, one index has at most 1.5 MB.
pub const MAX_AGENTS_PER_CONNECTOR: usize = 10_000;

/// Agents that one look-up reads and returns. Where more offer the connector, it is a random
/// choice among them, so that load spreads and a look-up stays as cheap.
pub const MAX_LISTED_AGENTS: usize = 256;

/// Connectors in the sweeper's list.
pub const MAX_INDEXES: usize = 1_000_000;

/// Hubs of one cluster that are present at a time.
pub const MAX_HUBS: usize = 1_024;

/// What a hub says about itself. Bytes.
pub const MAX_HUB_BYTES: usize = 8_192;

/// The name of a shared value, a counter or something that counts once. Bytes.
pub const MAX_NAME_BYTES: usize = 512;

/// A shared value. Bytes.
pub const MAX_VALUE_BYTES: usize = 65_536;

/// Revocations in force at a time. At 1 KiB each 100 MB of the store at most.
pub const MAX_REVOCATIONS: usize = 100_000;

/// One revocation. Bytes.
pub const MAX_REVOCATION_BYTES: usize = 1_024;

/// Revocations in one answer, 1 MiB at most.
pub const MAX_REVOCATION_PAGE: usize = 1_024;

/// Agents in a [`MemoryRegistry`](crate::MemoryRegistry), those included that have left. About
/// 500 bytes each without their facts.
pub const MAX_MEMORY_AGENTS: usize = 100_000;

/// How long a claim stands without renewal. A hub that dies is noticed by its own presence, in
/// [`HUB_PRESENCE`]; the lease only clears away what it left, so that it may be long and cheap.
pub const OWNERSHIP_LEASE: Duration = Duration::from_secs(60);

/// How long a hub counts as present without another word.
pub const HUB_PRESENCE: Duration = Duration::from_secs(6);

/// How long the store remembers the epoch of an agent that nobody owns. Later the agent itself
/// is the only witness.
pub const EPOCH_MEMORY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Calls of one hub that wait for the store at a time. More wait for their turn, inside the same
/// time bound.
pub const MAX_CALLS_IN_FLIGHT: usize = 1_024;

/// Claims that one hub renews or publishes at a time.
pub const RENEWALS_IN_FLIGHT: usize = 16;

const _: () = assert!(MAX_FIRST_WITNESS + MAX_LEAP < MAX_COUNTER);
const _: () = assert!(MAX_LISTED_AGENTS <= MAX_AGENTS_PER_CONNECTOR);
const _: () = assert!(RENEWALS_IN_FLIGHT < MAX_CALLS_IN_FLIGHT);
const _: () = assert!(OWNERSHIP_LEASE.as_secs() < EPOCH_MEMORY.as_secs());
