//! Bounds in number and in rate, counted without a lock.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::RateLimit;

/// At most so many at a time. The bound may be changed while slots are out; those stay.
#[derive(Debug)]
pub struct Slots {
    taken: AtomicUsize,
    limit: AtomicUsize,
}

/// One of a [`Slots`]; given back when dropped.
#[derive(Debug)]
#[must_use = "a slot that is dropped at once bounds nothing"]
pub struct Slot {
    of: Arc<Slots>,
}

impl Slots {
    /// `limit` at a time.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
        })
    }

    /// Takes one if there is one.
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        let limit = self.limit.load(Ordering::Relaxed);
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |taken| {
                (taken < limit).then_some(taken + 1)
            })
            .ok()
            .map(|_| Slot {
                of: Arc::clone(self),
            })
    }

    /// Changes the bound for what is taken from now on.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How many are out.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.of.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// At most so many at a time, for those who wait until there is room. The bound may be changed
/// while passes are out: a lower one takes effect as they come back.
#[derive(Debug)]
pub struct Gate {
    room: Arc<Semaphore>,
    limit: Mutex<usize>,
    /// Passes to be kept back when they are returned.
    debt: AtomicUsize,
}

/// One of a [`Gate`]; given back when dropped.
#[derive(Debug)]
#[must_use = "a pass that is dropped at once bounds nothing"]
pub struct Pass {
    of: Arc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// `limit` at a time.
    pub fn new(limit: usize) -> Arc<Self> {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            room: Arc::new(Semaphore::new(limit)),
            limit: Mutex::new(limit),
            debt: AtomicUsize::new(0),
        })
    }

    /// Waits until there is room. First come, first served.
    pub async fn pass(self: &Arc<Self>) -> Pass {
        // The semaphore is never closed, so there is always a permit in the end.
        let permit = Arc::clone(&self.room).acquire_owned().await.ok();
        Pass {
            of: Arc::clone(self),
            permit,
        }
    }

    /// Changes the bound.
    pub fn set_limit(&self, limit: usize) {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        let mut current = self.limit.lock();
        if limit > *current {
            let more = limit - *current;
            let owed = self.pay(more);
            self.room.add_permits(more - owed);
        } else {
            let less = *current - limit;
            let kept = self.room.forget_permits(less);
            self.debt.fetch_add(less - kept, Ordering::AcqRel);
        }
        *current = limit;
    }

    /// Takes up to `number` off the debt and says how many.
    fn pay(&self, number: usize) -> usize {
        let before = self
            .debt
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |debt| {
                Some(debt.saturating_sub(number))
            })
            .unwrap_or(0);
        before.min(number)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.of.pay(1) == 1
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

/// So many in a second with a burst: the generic cell rate algorithm, whose whole state is the
/// time at which the bucket would be full again.
#[derive(Debug, Default)]
pub struct Rate {
    /// Nanoseconds that one costs; 0 is no bound.
    cost_ns: AtomicU64,
    /// Nanoseconds that the bucket holds.
    depth_ns: AtomicU64,
    full_at_ns: AtomicU64,
}

impl Rate {
    /// `None` is no bound.
    pub fn new(limit: Option<RateLimit>) -> Self {
        let rate = Self::default();
        rate.set(limit);
        rate
    }

    /// One in each `period`, with a burst; for what is rarer than once a second.
    pub fn every(period: Duration, burst: u32) -> Self {
        let cost_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let rate = Self::default();
        rate.cost_ns.store(cost_ns, Ordering::Relaxed);
        let depth_ns = cost_ns.saturating_mul(u64::from(burst.max(1)));
        rate.depth_ns.store(depth_ns, Ordering::Relaxed);
        rate
    }

    /// Changes the bound; what was counted stays counted.
    pub fn set(&self, limit: Option<RateLimit>) {
        const SECOND_NS: u64 = 1_000_000_000;
        let (cost_ns, depth_ns) = limit.map_or((0, 0), |limit| {
            let cost_ns = SECOND_NS / u64::from(limit.per_second.max(1));
            (
                cost_ns,
                cost_ns.saturating_mul(u64::from(limit.burst.max(1))),
            )
        });
        self.cost_ns.store(cost_ns, Ordering::Relaxed);
        self.depth_ns.store(depth_ns, Ordering::Relaxed);
    }

    /// Whether one more may happen at `now`, the time since some fixed start; if so it counts.
    pub fn allows(&self, now: Duration) -> bool {
        let cost_ns = self.cost_ns.load(Ordering::Relaxed);
        if cost_ns == 0 {
            return true;
        }
        let depth_ns = self.depth_ns.load(Ordering::Relaxed);
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.full_at_ns
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |full_at_ns| {
                let next = full_at_ns.max(now_ns).saturating_add(cost_ns);
                (next <= now_ns.saturating_add(depth_ns)).then_some(next)
            })
            .is_ok()
    }
}

/// One rate for each source address, an IPv6 /64 counting as one. Bounded: when the table is
/// full the entries that are quiet are forgotten, and if none is, a new source is refused.
#[derive(Debug)]
pub struct SourceRates {
    limit: Option<RateLimit>,
    table: Mutex<FxHashMap<IpAddr, Arc<Rate>>>,
}

/// How many sources are remembered at a time, at about 100 bytes each.
pub const MAX_SOURCES: usize = 65_536;

impl SourceRates {
    /// Each source has `limit` for itself; `None` is no bound.
    pub fn new(limit: Option<RateLimit>) -> Self {
        Self {
            limit,
            table: Mutex::default(),
        }
    }

    /// Whether one more may come from `source` at `now`.
    pub fn allows(&self, source: IpAddr, now: Duration) -> bool {
        if self.limit.is_none() {
            return true;
        }
        let mut table = self.table.lock();
        if table.len() >= MAX_SOURCES {
            let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            table.retain(|_, rate| rate.full_at_ns.load(Ordering::Relaxed) > now_ns);
            if table.len() >= MAX_SOURCES {
                return false;
            }
        }
        table
            .entry(source_of(source))
            .or_insert_with(|| Arc::new(Rate::new(self.limit)))
            .allows(now)
    }
}

/// At most so many at a time from one source, an IPv6 /64 counting as one.
#[derive(Debug)]
pub struct SourceSlots {
    limit: usize,
    table: Mutex<FxHashMap<IpAddr, usize>>,
}

/// One of a [`SourceSlots`]; given back when dropped.
#[derive(Debug)]
#[must_use = "a slot that is dropped at once bounds nothing"]
pub struct SourceSlot {
    of: Arc<SourceSlots>,
    source: IpAddr,
}

impl SourceSlots {
    /// `limit` at a time from each source. The table is as long as there are slots out, so what
    /// bounds those in all bounds it.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            table: Mutex::default(),
        })
    }

    /// Takes one if there is one.
    pub fn take(self: &Arc<Self>, source: IpAddr) -> Option<SourceSlot> {
        let source = source_of(source);
        let mut table = self.table.lock();
        let taken = table.entry(source).or_insert(0);
        if *taken >= self.limit {
            return None;
        }
        *taken += 1;
        drop(table);
        Some(SourceSlot {
            of: Arc::clone(self),
            source,
        })
    }
}

impl Drop for SourceSlot {
    fn drop(&mut self) {
        let mut table = self.of.table.lock();
        if let Some(taken) = table.get_mut(&self.source) {
            *taken -= 1;
            if *taken == 0 {
                table.remove(&self.source);
            }
        }
    }
}

/// What counts as one source: an IPv4 address, or the /64 that one IPv6 host is given.
pub(crate) fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_is_rarer_than_once_a_second_is_paced_as_well() {
        let rate = Rate::every(Duration::from_secs(5), 3);
        let at = |seconds| rate.allows(Duration::from_secs(seconds));
        assert!(at(100) && at(100) && at(100));
        assert!(!at(100) && !at(104));
        assert!(at(105));
        assert!(!at(105));
    }

    #[test]
    fn slots_come_back_when_dropped_and_a_lower_bound_waits_for_that() {
        let slots = Slots::new(2);
        let one = slots.take().unwrap();
        let two = slots.take().unwrap();
        assert!(slots.take().is_none());
        slots.set_limit(1);
        drop(one);
        assert!(slots.take().is_none());
        drop(two);
        assert!(slots.take().is_some());
        assert_eq!(slots.taken(), 0);
    }

    #[tokio::test]
    async fn a_gate_that_is_narrowed_lets_nobody_in_before_enough_have_left() {
        let gate = Gate::new(3);
        let passes = [gate.pass().await, gate.pass().await, gate.pass().await];
        gate.set_limit(1);
        let mut waiting = Box::pin(gate.pass());
        for pass in passes.into_iter().take(2) {
            drop(pass);
            assert!((&mut waiting).now_or_never().is_none());
        }
        drop(waiting);
        gate.set_limit(2);
        let _one = gate.pass().await;
        let _two = gate.pass().await;
        assert!(gate.pass().now_or_never().is_none());
    }

    #[test]
    fn a_rate_gives_its_burst_and_then_one_per_interval() {
        let rate = Rate::new(limit(10, 5));
        let start = Duration::from_secs(1_000);
        assert_eq!((0..20).filter(|_| rate.allows(start)).count(), 5);
        assert!(rate.allows(start + Duration::from_millis(100)));
        assert!(!rate.allows(start + Duration::from_millis(100)));
        let later = start + Duration::from_secs(60);
        assert_eq!((0..20).filter(|_| rate.allows(later)).count(), 5);
    }

    #[test]
    fn no_rate_is_no_bound() {
        let rate = Rate::new(None);
        assert!((0..10_000).all(|_| rate.allows(Duration::ZERO)));
    }

    #[test]
    fn sources_do_not_share_a_rate_but_a_prefix_of_64_bits_does() {
        let rates = SourceRates::new(limit(1, 1));
        let now = Duration::from_secs(1);
        assert!(rates.allows("10.0.0.1".parse().unwrap(), now));
        assert!(!rates.allows("10.0.0.1".parse().unwrap(), now));
        assert!(rates.allows("10.0.0.2".parse().unwrap(), now));
        assert!(rates.allows("2001:db8::1".parse().unwrap(), now));
        assert!(!rates.allows("2001:db8::2".parse().unwrap(), now));
        assert!(
            !rates.allows("::ffff:10.0.0.1".parse().unwrap(), now),
            "a mapped address is the IPv4 address"
        );
    }

    #[test]
    fn a_full_table_of_sources_forgets_the_quiet_and_refuses_when_none_is() {
        let rates = SourceRates::new(limit(1, 1));
        let now = Duration::from_secs(1);
        for n in 0..MAX_SOURCES {
            let n = u32::try_from(n).unwrap();
            assert!(rates.allows(IpAddr::V4(n.into()), now));
        }
        let fresh = "203.0.113.9".parse().unwrap();
        assert!(!rates.allows(fresh, now));
        assert!(rates.allows(fresh, now + Duration::from_secs(5)));
    }

    #[test]
    fn a_source_gets_its_slots_back() {
        let slots = SourceSlots::new(1);
        let source = "10.0.0.1".parse().unwrap();
        let one = slots.take(source).unwrap();
        assert!(slots.take(source).is_none());
        drop(one);
        assert!(slots.take(source).is_some());
        assert!(slots.table.lock().is_empty());
    }

    fn limit(per_second: u32, burst: u32) -> Option<RateLimit> {
        Some(RateLimit { per_second, burst })
    }
}
