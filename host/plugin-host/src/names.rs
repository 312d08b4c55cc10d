//! Names to addresses, with a bound on the lookups that go on.
//!
//! The system's resolver cannot be stopped: a lookup that nobody waits for any more still holds a
//! thread until it ends, which takes as long as the slowest name server lets it. So its place is
//! held until then, not until its caller gave up: whoever asks for names that are never answered
//! runs out of places, not the hub out of threads. What a caller waits for a place counts as any
//! other wait.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Lookups at once, of all plugins and sources; each holds a thread.
const LOOKUPS_MAX: usize = 32;

type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Looks names up.
pub(crate) struct Names {
    places: Arc<Semaphore>,
    resolve: Arc<Resolve>,
}

impl Names {
    /// With the system's resolver.
    pub(crate) fn new() -> Self {
        Self::with(LOOKUPS_MAX, |host, port| {
            (host, port).to_socket_addrs().map(Iterator::collect)
        })
    }

    fn with(
        places: usize,
        resolve: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            resolve: Arc::new(resolve),
        }
    }

    /// The addresses of a host, none where it has none. `own` bounds the lookups of who asks, so
    /// that one cannot take all the places. The caller bounds the time.
    pub(crate) async fn addresses(
        &self,
        host: &str,
        port: u16,
        own: Option<&Arc<Semaphore>>,
    ) -> Vec<SocketAddr> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return vec![SocketAddr::new(address, port)];
        }
        let own = match own {
            // Neither is ever closed, so an error cannot be.
            Some(own) => Arc::clone(own).acquire_owned().await.ok(),
            None => None,
        };
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (resolve, host) = (Arc::clone(&self.resolve), host.to_owned());
        let lookup = spawn_blocking(move || {
            let _held = (own, place);
            resolve(&host, port)
        });
        match lookup.await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Sender, channel};
    use std::time::{Duration, Instant};

    use parking_lot::Mutex;
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::Names;

    /// Longer than any lookup that finds a place takes to begin.
    const SOON: Duration = Duration::from_millis(100);

    /// Names that nobody answers for until the sender goes, and how often they were looked up.
    fn silent(places: usize) -> (Names, Arc<AtomicUsize>, Sender<()>) {
        let (hold, held) = channel::<()>();
        let held = Mutex::new(held);
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let names = Names::with(places, move |_, port| {
            count.fetch_add(1, Ordering::SeqCst);
            // An error is what the end of the sender is.
            let _ = held.lock().recv();
            Ok(vec![([192, 0, 2, 1], port).into()])
        });
        (names, begun, hold)
    }

    async fn begins(begun: &AtomicUsize, number: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while begun.load(Ordering::SeqCst) < number {
            assert!(Instant::now() < deadline, "it did not begin in 20 s");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_lookup_that_nobody_waits_for_holds_its_place_until_it_ends() {
        let (names, begun, hold) = silent(2);
        for number in 1..=2 {
            let lookup = names.addresses("a.example", 80, None);
            let both = async { tokio::join!(lookup, begins(&begun, number)) };
            let given_up = timeout(Duration::from_secs(1), both).await;
            assert!(given_up.is_err(), "nobody answers");
            assert_eq!(begun.load(Ordering::SeqCst), number);
        }
        let third = timeout(SOON, names.addresses("a.example", 80, None)).await;
        assert!(third.is_err());
        assert_eq!(begun.load(Ordering::SeqCst), 2, "there is no third place");
        // An address needs no lookup.
        let written_out = names.addresses("192.0.2.7", 80, None).await;
        assert_eq!(written_out, [SocketAddr::from(([192, 0, 2, 7], 80))]);

        drop(hold);
        let answered = timeout(
            Duration::from_secs(20),
            names.addresses("a.example", 80, None),
        );
        assert_eq!(
            answered.await.unwrap(),
            [SocketAddr::from(([192, 0, 2, 1], 80))]
        );
    }

    #[tokio::test]
    async fn who_asks_for_silent_names_leaves_places_to_others() {
        let (names, begun, hold) = silent(4);
        let own = Arc::new(Semaphore::new(1));
        for _ in 0..4 {
            let lookup = names.addresses("a.example", 80, Some(&own));
            assert!(timeout(SOON, lookup).await.is_err());
        }
        begins(&begun, 1).await;
        assert_eq!(names.places.available_permits(), 3);
        drop(hold);
        let other = names.addresses("b.example", 80, None).await;
        assert_eq!(other.len(), 1);
    }
}
