//! Public TCP ports: each is one endpoint's, and is kept with its name.

use super::Endpoint;
use crate::schema::{ENDPOINT_IDS, ENDPOINTS, PORTS};
use crate::{Store, StoreError};

/// The ports that may be given, both ends among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest; not below the first.
    pub last: u16,
}

impl PortRange {
    /// Whether a port is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last.saturating_sub(self.first)) + 1
    }

    /// All of them, beginning with the one that an endpoint has first choice of by its id: asked
    /// for again after its name was over, it gets the same one where that is still free.
    fn by_choice_of(self, id: &str) -> impl Iterator<Item = u16> {
        /// FNV-1a: spreads ids, and is the same in every release.
        const PRIME: u32 = 16_777_619;
        let hash = id.bytes().fold(2_166_136_261_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(PRIME)
        });
        let (first, count) = (u32::from(self.first), self.count());
        let choice = hash % count;
        (0..count).filter_map(move |step| u16::try_from(first + (choice + step) % count).ok())
    }
}

impl Store {
    /// The port that an endpoint has, or else a free one. `None` where all are taken. Another
    /// endpoint may get it before this one is claimed.
    ///
    /// # Errors
    /// The store failed.
    pub fn port_for(&self, range: PortRange, id: &str) -> Result<Option<u16>, StoreError> {
        self.read(|transaction| {
            if let Some(name) = ENDPOINT_IDS.get::<String>(transaction, id)? {
                let held: Option<Endpoint> = ENDPOINTS.get(transaction, &name)?;
                let port = held.and_then(|held| held.port);
                if let Some(port) = port.filter(|port| range.contains(*port)) {
                    return Ok(Some(port));
                }
            }
            for port in range.by_choice_of(id) {
                let holder: Option<String> = PORTS.get(transaction, &port_key(port))?;
                if holder.is_none() {
                    return Ok(Some(port));
                }
            }
            Ok(None)
        })
    }
}

pub(super) fn port_key(port: u16) -> String {
    format!("{port:05}")
}
