//! The certificates that an authority has issued, as handshakes see them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use rustls::sign::CertifiedKey;
use tokio::sync::{mpsc, watch};

use super::challenge::Challenges;
use super::keeper::Ask;
use super::view::CertificateStatus;

/// What operators ask for that waits for the keeper. Each is answered within the keeper's next
/// round.
const MAX_WAITING_ASKS: usize = 16;

/// How a name stands.
#[derive(Clone)]
pub(super) enum Standing {
    /// It has a certificate.
    Held(Arc<CertifiedKey>),
    /// Its first one is on its way.
    Coming,
    /// It has none, and the next try comes later.
    Missing,
}

/// See the module. Changed by the keeper alone.
pub(crate) struct Issued {
    names: ArcSwap<FxHashMap<Arc<str>, Standing>>,
    /// Says that `names` is another.
    changed: watch::Sender<()>,
    wait_ms: AtomicU64,
    challenges: Arc<Challenges>,
    status: ArcSwap<Vec<CertificateStatus>>,
    /// Which certificates of this hub end soon, issued or not; `None` where none does.
    ending: ArcSwapOption<String>,
    /// Whether the file that they are kept in fails.
    state_failed: AtomicBool,
    asks: mpsc::Sender<Ask>,
    /// Until the keeper begins.
    waiting: Mutex<Option<mpsc::Receiver<Ask>>>,
}

impl Issued {
    /// Nothing yet.
    pub(crate) fn new() -> Arc<Self> {
        let (asks, waiting) = mpsc::channel(MAX_WAITING_ASKS);
        Arc::new(Self {
            names: ArcSwap::default(),
            changed: watch::channel(()).0,
            wait_ms: AtomicU64::new(0),
            challenges: Arc::default(),
            status: ArcSwap::default(),
            ending: ArcSwapOption::empty(),
            state_failed: AtomicBool::new(false),
            asks,
            waiting: Mutex::new(Some(waiting)),
        })
    }

    /// The certificate of a name in lower case.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        match self.names.load().get(name) {
            Some(Standing::Held(key)) => Some(Arc::clone(key)),
            Some(Standing::Coming | Standing::Missing) | None => None,
        }
    }

    /// Whether certificates are issued for this name, also where there is none yet.
    pub(crate) fn is_wanted(&self, name: &str) -> bool {
        self.names.load().contains_key(name)
    }

    /// Waits for the first certificate of a name, at most for `ingress.acme.handshake_wait_ms`.
    /// `false` at once where none is on its way.
    pub(crate) async fn arrives(&self, name: &str) -> bool {
        let mut changed = self.changed.subscribe();
        let arrived = async {
            loop {
                match self.standing(name) {
                    Some(Standing::Held(_)) => return true,
                    Some(Standing::Coming) => {}
                    Some(Standing::Missing) | None => return false,
                }
                if changed.changed().await.is_err() {
                    return false;
                }
            }
        };
        let wait = Duration::from_millis(self.wait_ms.load(Ordering::Relaxed));
        tokio::time::timeout(wait, arrived).await.unwrap_or(false)
    }

    fn standing(&self, name: &str) -> Option<Standing> {
        self.names.load().get(name).cloned()
    }

    /// What authorities are shown.
    pub(crate) fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// How each name stands, by name.
    pub(crate) fn status(&self) -> Arc<Vec<CertificateStatus>> {
        self.status.load_full()
    }

    /// Which certificates end soon, for the operator.
    pub(crate) fn ending(&self) -> Option<Arc<String>> {
        self.ending.load_full()
    }

    /// Whether the file that certificates are kept in fails.
    pub(crate) fn has_state_failed(&self) -> bool {
        self.state_failed.load(Ordering::Relaxed)
    }

    pub(super) fn set_state_failed(&self, failed: bool) {
        self.state_failed.store(failed, Ordering::Relaxed);
    }

    pub(super) fn set_ending(&self, ending: Option<String>) {
        self.ending.store(ending.map(Arc::new));
    }

    /// Asks the keeper; `false` where it is gone or too many wait.
    pub(crate) fn ask(&self, ask: Ask) -> bool {
        self.asks.try_send(ask).is_ok()
    }

    /// Where the keeper hears what operators ask for; `None` the second time.
    pub(super) fn take_asks(&self) -> Option<mpsc::Receiver<Ask>> {
        self.waiting.lock().take()
    }

    pub(super) fn set_wait(&self, wait: Duration) {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.wait_ms.store(wait, Ordering::Relaxed);
    }

    pub(super) fn publish(
        &self,
        names: FxHashMap<Arc<str>, Standing>,
        status: Vec<CertificateStatus>,
    ) {
        self.names.store(Arc::new(names));
        self.status.store(Arc::new(status));
        self.changed.send_replace(());
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("names", &self.names.load().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(standing: Standing) -> FxHashMap<Arc<str>, Standing> {
        FxHashMap::from_iter([(Arc::from("shop.example.com"), standing)])
    }

    fn key() -> Arc<CertifiedKey> {
        let made = rcgen::generate_simple_self_signed(["shop.example.com".to_owned()]);
        let made = made.expect("a certificate can be made");
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let key = CertifiedKey::from_der(vec![made.cert.der().clone()], key.into(), &provider);
        Arc::new(key.expect("they belong together"))
    }

    #[tokio::test]
    async fn a_handshake_waits_for_what_is_on_its_way_and_for_nothing_else() {
        let issued = Issued::new();
        issued.set_wait(Duration::from_secs(60));
        assert!(!issued.arrives("shop.example.com").await, "not published");
        issued.publish(names(Standing::Missing), Vec::new());
        assert!(!issued.arrives("shop.example.com").await, "it failed");
        assert!(issued.is_wanted("shop.example.com"));

        issued.publish(names(Standing::Coming), Vec::new());
        let waiting = tokio::spawn({
            let issued = Arc::clone(&issued);
            async move { issued.arrives("shop.example.com").await }
        });
        tokio::task::yield_now().await;
        assert!(issued.find("shop.example.com").is_none());
        issued.publish(names(Standing::Held(key())), Vec::new());
        assert!(waiting.await.expect("it does not panic"));
        assert!(issued.find("shop.example.com").is_some());
    }

    #[tokio::test]
    async fn a_handshake_waits_no_longer_than_it_may() {
        let issued = Issued::new();
        issued.set_wait(Duration::from_millis(20));
        issued.publish(names(Standing::Coming), Vec::new());
        assert!(!issued.arrives("shop.example.com").await);
    }
}
