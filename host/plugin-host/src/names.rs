//! Names to addresses, with a bound on the lookups that go on.
//!
//! The system's resolver cannot be stopped: a lookup that nobody waits for any more still holds a
//! thread until it ends, which takes as long as the slowest name server lets it. So its place is
//! held until then, not until its caller gave up: whoever asks for names that are never answered
//! runs out of places, not the hub out of threads. What a caller waits for a place counts as any
//! other wait.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Lookups of all plugins at once; each holds a thread.
const LOOKUPS_MAX: usize = 32;
/// Lookups of one plugin at once; more wait. Fewer than there are places for all, so that names
/// that are never answered cost only the plugin that asks for them.
const LOOKUPS_PER_PLUGIN_MAX: usize = 4;
/// Lookups of the sources of components at once. They have places of their own: what a plugin asks
/// for must not keep its successor from being fetched.
const LOOKUPS_OF_SOURCES_MAX: usize = 8;

type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Who wants to know a name's addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker<'a> {
    /// A plugin by its name, so that all its generations share one bound.
    Plugin(&'a str),
    /// The hub, which fetches components.
    Source,
}

/// Looks names up.
pub(crate) struct Names {
    places: Arc<Semaphore>,
    sources: Arc<Semaphore>,
    /// By plugin, as long as one of its lookups goes on.
    plugins: Mutex<HashMap<String, Weak<Semaphore>>>,
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
            sources: Arc::new(Semaphore::new(LOOKUPS_OF_SOURCES_MAX)),
            plugins: Mutex::default(),
            resolve: Arc::new(resolve),
        }
    }

    /// The addresses of a host, none where it has none. The caller bounds the time.
    pub(crate) async fn addresses(
        &self,
        host: &str,
        port: u16,
        asker: Asker<'_>,
    ) -> Vec<SocketAddr> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return vec![SocketAddr::new(address, port)];
        }
        let (own, shared) = match asker {
            Asker::Plugin(name) => (self.places_of(name), Some(&self.places)),
            Asker::Source => (Arc::clone(&self.sources), None),
        };
        // None of them is ever closed, so an error cannot be.
        let own_place = Arc::clone(&own).acquire_owned().await.ok();
        let shared_place = match shared {
            Some(shared) => Arc::clone(shared).acquire_owned().await.ok(),
            None => None,
        };
        let (resolve, host) = (Arc::clone(&self.resolve), host.to_owned());
        let lookup = spawn_blocking(move || {
            let _held = (own_place, shared_place);
            resolve(&host, port)
        });
        match lookup.await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }

    /// The places of a plugin, for all who ask in its name at this time.
    fn places_of(&self, plugin: &str) -> Arc<Semaphore> {
        let mut plugins = self.plugins.lock();
        if let Some(places) = plugins.get(plugin).and_then(Weak::upgrade) {
            return places;
        }
        // Plugins that went leave nothing behind.
        plugins.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(LOOKUPS_PER_PLUGIN_MAX));
        plugins.insert(plugin.to_owned(), Arc::downgrade(&places));
        places
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
    use tokio::time::timeout;

    use super::{Asker, LOOKUPS_PER_PLUGIN_MAX, Names};

    const PLUGIN: Asker<'_> = Asker::Plugin("geo");

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
            let lookup = names.addresses("a.example", 80, PLUGIN);
            let both = async { tokio::join!(lookup, begins(&begun, number)) };
            let given_up = timeout(Duration::from_secs(1), both).await;
            assert!(given_up.is_err(), "nobody answers");
            assert_eq!(begun.load(Ordering::SeqCst), number);
        }
        let third = timeout(SOON, names.addresses("a.example", 80, PLUGIN)).await;
        assert!(third.is_err());
        assert_eq!(begun.load(Ordering::SeqCst), 2, "there is no third place");
        // An address needs no lookup.
        let written_out = names.addresses("192.0.2.7", 80, PLUGIN).await;
        assert_eq!(written_out, [SocketAddr::from(([192, 0, 2, 7], 80))]);

        drop(hold);
        let answered = timeout(
            Duration::from_secs(20),
            names.addresses("a.example", 80, PLUGIN),
        );
        assert_eq!(
            answered.await.unwrap(),
            [SocketAddr::from(([192, 0, 2, 1], 80))]
        );
    }

    #[tokio::test]
    async fn who_asks_for_silent_names_leaves_places_to_others() {
        let (names, begun, hold) = silent(8);
        // A plugin that is loaded again asks under the same name.
        for _ in 0..8 {
            let lookup = names.addresses("a.example", 80, PLUGIN);
            assert!(timeout(SOON, lookup).await.is_err());
        }
        begins(&begun, LOOKUPS_PER_PLUGIN_MAX).await;
        assert_eq!(names.places.available_permits(), 8 - LOOKUPS_PER_PLUGIN_MAX);
        drop(hold);
        let other = names.addresses("b.example", 80, Asker::Plugin("other"));
        assert_eq!(other.await.len(), 1);
    }

    #[tokio::test]
    async fn sources_do_not_wait_for_plugins() {
        let (names, begun, hold) = silent(1);
        let lookup = names.addresses("a.example", 80, PLUGIN);
        assert!(timeout(SOON, lookup).await.is_err());
        begins(&begun, 1).await;
        let source = names.addresses("registry.example", 443, Asker::Source);
        let both = async { tokio::join!(source, begins(&begun, 2)) };
        assert!(timeout(Duration::from_secs(1), both).await.is_err());
        assert_eq!(begun.load(Ordering::SeqCst), 2, "it began");
        drop(hold);
    }

    #[tokio::test]
    async fn nothing_is_kept_about_plugins_that_ask_no_more() {
        let (names, _, hold) = silent(4);
        drop(hold);
        for number in 0..20 {
            let name = format!("plugin-{number}");
            let found = names.addresses("a.example", 80, Asker::Plugin(&name));
            assert_eq!(found.await.len(), 1);
        }
        assert_eq!(names.plugins.lock().len(), 1);
    }
}
