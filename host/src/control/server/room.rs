//! Places for connections. When all are taken, whoever has gone longest without a request makes
//! room for the next one: holding connections open keeps nobody out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How long one that was told has before the next one is told as well.
const NEXT_TOLD_AFTER: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Room {
    places: Arc<Semaphore>,
    idle: Mutex<Idle>,
    /// A connection has become idle while another one waits for a place.
    came: Notify,
}

/// Who asks for nothing now.
#[derive(Default)]
struct Idle {
    /// What the next one to become idle is called: the order of the calls is that of time.
    next: u64,
    /// How each is told to leave, the longest idle first.
    since: BTreeMap<u64, Arc<Notify>>,
    /// Whether somebody waits for a place.
    awaited: bool,
}

/// A connection's place; free again when dropped.
pub(super) struct Place {
    room: Arc<Room>,
    leave: Arc<Notify>,
    /// Its number among the idle; `None` while a request is being answered.
    idle: Mutex<Option<u64>>,
    answered: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

/// A request is being answered; over when dropped.
pub(super) struct Busy<'a>(&'a Place);

impl Room {
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(places)),
            idle: Mutex::default(),
            came: Notify::new(),
        })
    }

    /// The next place; where there is none, the longest idle connection is told to leave. `told`
    /// is called for each that is. For one caller at a time.
    pub(super) async fn enter(self: &Arc<Self>, told: impl Fn()) -> Place {
        loop {
            if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
                return self.place(permit);
            }
            if self.tell_longest_idle() {
                told();
            }
            tokio::select! {
                permit = Arc::clone(&self.places).acquire_owned() => {
                    return self.place(permit.expect("the places are never closed"));
                }
                () = self.came.notified() => {}
                // Whoever was told may not read what he was answered, and hold on for a while.
                () = tokio::time::sleep(NEXT_TOLD_AFTER) => {}
            }
        }
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let leave = Arc::new(Notify::new());
        let mut idle = self.idle.lock();
        idle.awaited = false;
        let number = idle.insert(&leave);
        drop(idle);
        Place {
            room: Arc::clone(self),
            leave,
            idle: Mutex::new(Some(number)),
            answered: AtomicBool::new(false),
            _permit: permit,
        }
    }

    fn tell_longest_idle(&self) -> bool {
        let mut idle = self.idle.lock();
        idle.awaited = true;
        let longest = idle.since.pop_first();
        if let Some((_, leave)) = &longest {
            leave.notify_one();
        }
        longest.is_some()
    }
}

impl Idle {
    fn insert(&mut self, leave: &Arc<Notify>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.since.insert(number, Arc::clone(leave));
        number
    }
}

impl Place {
    /// A request has come.
    pub(super) fn busy(&self) -> Busy<'_> {
        let number = self.idle.lock().take();
        if let Some(number) = number {
            self.room.idle.lock().since.remove(&number);
        }
        Busy(self)
    }

    /// Whether anything was asked, and so may be on its way back.
    pub(super) fn is_used(&self) -> bool {
        self.answered.load(Ordering::Relaxed) || self.idle.lock().is_none()
    }

    /// Waits until the place is wanted for another one.
    pub(super) async fn is_wanted(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let place = self.0;
        place.answered.store(true, Ordering::Relaxed);
        let mut idle = place.room.idle.lock();
        *place.idle.lock() = Some(idle.insert(&place.leave));
        if idle.awaited {
            place.room.came.notify_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let number = *self.idle.lock();
        if let Some(number) = number {
            self.room.idle.lock().since.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_longest_idle_leaves_when_all_places_are_taken() {
        let room = Room::new(3);
        let places = [
            room.enter(|| {}).await,
            room.enter(|| {}).await,
            room.enter(|| {}).await,
        ];
        let [first, second, third] = &places;
        // The first has asked for something since, and the second is being answered.
        drop(first.busy());
        let busy = second.busy();
        let told = std::cell::Cell::new(0);
        let mut next = Box::pin(room.enter(|| told.set(told.get() + 1)));
        assert!(next.as_mut().now_or_never().is_none());
        assert_eq!(told.get(), 1);
        assert!(third.is_wanted().now_or_never().is_some());
        assert!(first.is_wanted().now_or_never().is_none());
        assert!(second.is_wanted().now_or_never().is_none() && second.is_used());
        assert!(first.is_used() && !third.is_used());
        drop(busy);
        // What becomes idle while somebody waits is told as well.
        assert!(next.as_mut().now_or_never().is_none());
        assert!(first.is_wanted().now_or_never().is_some());
        let [first, ..] = places;
        drop(first);
        assert!(next.now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_has_left_is_told_nothing() {
        let room = Room::new(1);
        drop(room.enter(|| {}).await);
        let told = std::cell::Cell::new(false);
        let place = room.enter(|| told.set(true)).await;
        assert!(!told.get());
        drop(place.busy());
        assert_eq!(room.idle.lock().since.len(), 1);
        drop(place);
        assert!(room.idle.lock().since.is_empty());
    }
}
