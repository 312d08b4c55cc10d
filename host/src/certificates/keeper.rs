//! The task that has certificates issued and renewed.
//!
//! A round: what is published? what of it is due? begin that, publish how things stand, wait. One
//! task for the hub, so nothing is ordered twice; the orders themselves run beside it, bounded in
//! number.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use instant_acme::Account;
use nowconnect_store::Store;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::book::{Book, Bounds, Life};
use super::ending::is_ending;
use super::issued::{Issued, Standing};
use super::order::{self, Fresh, Wanted};
use super::renewal;
use super::trouble::Trouble;
use super::view::{CertificateError, CertificateSource, CertificateStatus};
use super::{account, names};
use crate::codes::CertificateCode;
use crate::config::AcmeConfig;
use crate::hub::{Hub, now_ms};
use crate::telemetry::events;

/// The longest time between two rounds: what is published is looked at again, and a clock that was
/// set is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The shortest time between two rounds that nothing asked for.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// From an account that could not be opened to the next try, times two each time.
const ACCOUNT_PAUSE_MS: u64 = 30_000;

/// The longest such pause.
const LONGEST_ACCOUNT_PAUSE_MS: u64 = 3_600_000;

/// What an operator wants.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The name whose certificate is ordered now, whatever was planned.
    pub(crate) name: String,
    /// Whether it is one of those that certificates are issued for.
    pub(crate) known: oneshot::Sender<bool>,
}

/// Keeps certificates until dropped; once for a hub. `store` is where they are kept, for a hub that
/// has any issued.
pub(crate) async fn keep(hub: Arc<Hub>, store: Option<Arc<Store>>) {
    let issued = Arc::clone(hub.ingress.issued());
    let Some(mut asks) = issued.take_asks() else {
        return;
    };
    let mut keeper = Keeper {
        kept: BTreeMap::new(),
        book: Book::default(),
        account: AccountState::default(),
        jobs: JoinSet::new(),
        issued,
        hub,
        store,
    };
    keeper.read_kept().await;
    let mut published = keeper.hub.published.changes();
    loop {
        keeper.heal().await;
        let wait = keeper.round();
        let changed = keeper.hub.ingress.changed().notified();
        tokio::select! {
            Some(done) = keeper.jobs.join_next() => {
                // A job catches its own panics, and is never aborted.
                if let Ok(done) = done {
                    keeper.done(done).await;
                }
            }
            () = changed => {}
            Ok(()) = published.changed() => {}
            Some(ask) = asks.recv() => keeper.asked(ask),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

struct Keeper {
    hub: Arc<Hub>,
    store: Option<Arc<Store>>,
    issued: Arc<Issued>,
    /// What was issued and has not ended, also for names that are not published now.
    kept: BTreeMap<Arc<str>, Fresh>,
    book: Book,
    account: AccountState,
    jobs: JoinSet<Done>,
}

/// The account at the authority.
#[derive(Default)]
struct AccountState {
    /// With the configuration that it was opened under.
    open: Option<(AcmeConfig, Account)>,
    opening: bool,
    failures: u32,
    due_ms: u64,
    trouble: Option<Trouble>,
}

/// What a job brings back.
enum Done {
    Account(Box<AcmeConfig>, Result<Account, Trouble>),
    Order(Arc<str>, Result<(Fresh, Option<Trouble>), Trouble>),
    Looked(Arc<str>, renewal::Answer),
}

impl Keeper {
    async fn read_kept(&mut self) {
        let Some(store) = &self.store else {
            return;
        };
        match order::kept(store).await {
            Ok(kept) => self.kept = kept.into_iter().collect(),
            Err(trouble) => error!(
                event = events::CERTIFICATE_FAILED,
                code = trouble.code.as_str(),
                error = %trouble.message,
                "certificates of earlier could not be read; they are ordered anew"
            ),
        }
    }

    /// Opens the file anew where it has failed, whoever used it.
    async fn heal(&self) {
        let Some(store) = self.store.clone().filter(|store| store.has_failed()) else {
            return self.issued.set_state_failed(false);
        };
        let healed = tokio::task::spawn_blocking(move || store.heal()).await;
        self.issued.set_state_failed(!matches!(healed, Ok(Ok(_))));
    }

    /// Begins what is due and publishes how things stand; how long nothing is due.
    fn round(&mut self) -> Duration {
        let now = now_ms();
        let config = self.hub.config();
        let acme = config.ingress.acme.as_ref().zip(self.store.clone());
        let wait = match acme {
            Some((acme, store)) => self.issue(acme, &store, now),
            None => {
                self.book.want(&BTreeSet::new(), now, 0.0, |_| None);
                LONGEST_WAIT
            }
        };
        self.publish();
        wait
    }

    fn issue(&mut self, acme: &AcmeConfig, store: &Arc<Store>, now: u64) -> Duration {
        self.issued.set_wait(acme.handshake_wait);
        let kept = &self.kept;
        let life = |name: &str| {
            let fresh = kept.get(name)?;
            let life = Life::of(fresh.not_before, fresh.not_after);
            (life.until_ms > now).then_some(life)
        };
        let wanted = names::wanted(&self.hub, acme);
        self.book.want(&wanted, now, rand::random(), life);
        let bounds = Bounds {
            at_once: acme.max_orders,
            per_hour: acme.orders_per_hour,
        };
        let fits = |open: &AcmeConfig| {
            open.directory_url == acme.directory_url
                && open.contact == acme.contact
                && open.external_account == acme.external_account
                && open.ca_file == acme.ca_file
        };
        match &self.account.open {
            Some((open, account)) if fits(open) => {
                let account = account.clone();
                self.begin(&account, acme, store, now, bounds);
                let next = self.book.next_ms(bounds);
                next.map_or(LONGEST_WAIT, |next| {
                    Duration::from_millis(next.saturating_sub(now))
                        .clamp(SHORTEST_WAIT, LONGEST_WAIT)
                })
            }
            Some(_) | None => {
                self.account.open = None;
                let due = self.book.next_ms(bounds).is_some_and(|next| next <= now);
                if due && !self.account.opening && self.account.due_ms <= now {
                    self.open_account(acme, store);
                }
                LONGEST_WAIT.min(Duration::from_secs(1))
            }
        }
    }

    fn open_account(&mut self, acme: &AcmeConfig, store: &Arc<Store>) {
        self.account.opening = true;
        let (acme, store) = (Box::new(acme.clone()), Arc::clone(store));
        self.jobs.spawn(async move {
            let opened = caught(account::open(&acme, &store)).await;
            Done::Account(acme, opened)
        });
    }

    fn begin(
        &mut self,
        account: &Account,
        acme: &AcmeConfig,
        store: &Arc<Store>,
        now: u64,
        bounds: Bounds,
    ) {
        for name in self.book.begin(now, bounds) {
            let line = self.book.line(&name);
            let failures = line.map_or(0, |line| line.failures);
            let mut challenges = acme.challenges.clone();
            if let Ok(times) = usize::try_from(failures) {
                challenges.rotate_left(times % acme.challenges.len().max(1));
            }
            let leaf = self
                .kept
                .get(&name)
                .and_then(|fresh| fresh.key.cert.first());
            let told = line.is_some_and(|line| line.told_renewal) && failures == 0;
            let wanted = Wanted {
                replaces: leaf.filter(|_| told).and_then(order::identifier),
                name: Arc::clone(&name),
                challenges,
                max_kept: acme.max_names.saturating_mul(2),
            };
            let directory = acme.directory_url.to_string();
            let answers = Arc::clone(self.issued.challenges());
            let (account, store) = (account.clone(), Arc::clone(store));
            self.jobs.spawn(async move {
                let ordered = order::order(&account, &wanted, &directory, &answers, &store);
                Done::Order(name, caught(ordered).await)
            });
        }
        if let Some(name) = self.book.look(now) {
            let leaf = self
                .kept
                .get(&name)
                .and_then(|fresh| fresh.key.cert.first());
            if let Some(identifier) = leaf.and_then(order::identifier) {
                let account = account.clone();
                self.jobs.spawn(async move {
                    let asked = AssertUnwindSafe(renewal::ask(&account, &identifier));
                    let answer = asked.catch_unwind().await;
                    Done::Looked(name, answer.unwrap_or_default())
                });
            }
        }
    }

    fn asked(&mut self, ask: Ask) {
        let known = self.book.hasten(&ask.name, now_ms());
        if known {
            self.account.due_ms = 0;
        }
        // Whoever asked may have given up.
        let _ = ask.known.send(known);
    }

    async fn done(&mut self, done: Done) {
        let now = now_ms();
        match done {
            Done::Account(acme, opened) => {
                self.account.opening = false;
                match opened {
                    Ok(account) => {
                        self.account = AccountState {
                            open: Some((*acme, account)),
                            ..AccountState::default()
                        };
                    }
                    Err(trouble) => self.account_failed(&acme, trouble, now).await,
                }
            }
            Done::Order(name, Ok((fresh, trouble))) => self.ordered(name, fresh, trouble, now),
            Done::Order(name, Err(trouble)) => self.not_ordered(&name, trouble, now).await,
            Done::Looked(name, answer) => {
                let again = now.saturating_add(answer.again_ms);
                self.book
                    .looked(&name, answer.window_ms, Some(again), rand::random());
            }
        }
    }

    async fn account_failed(&mut self, acme: &AcmeConfig, trouble: Trouble, now: u64) {
        self.hub.metrics.certificates.ordered(trouble.code.as_str());
        warn!(
            event = events::CERTIFICATE_FAILED,
            code = trouble.code.as_str(),
            directory = %acme.directory_url,
            error = %trouble.message,
            "no account could be had at the certificate authority"
        );
        if trouble.account_unknown {
            self.forget_account(acme).await;
        }
        let account = &mut self.account;
        let times = 2_u64.saturating_pow(account.failures);
        let pause = ACCOUNT_PAUSE_MS.saturating_mul(times);
        let asked = trouble.retry_after.unwrap_or_default().as_millis();
        let asked = u64::try_from(asked).unwrap_or(u64::MAX);
        account.failures = account.failures.saturating_add(1);
        account.due_ms = now.saturating_add(pause.min(LONGEST_ACCOUNT_PAUSE_MS).max(asked));
        account.trouble = Some(trouble);
    }

    fn ordered(&mut self, name: Arc<str>, fresh: Fresh, trouble: Option<Trouble>, now: u64) {
        let (result, event) = match self.kept.contains_key(&name) {
            true => ("renewed", events::CERTIFICATE_RENEWED),
            false => ("issued", events::CERTIFICATE_ISSUED),
        };
        self.hub.metrics.certificates.ordered(result);
        let life = Life::of(fresh.not_before, fresh.not_after);
        info!(
            event,
            name = &*name,
            not_after = fresh.not_after,
            "a certificate was issued"
        );
        if let Some(trouble) = &trouble {
            error!(
                event = events::CERTIFICATE_FAILED,
                name = &*name,
                code = trouble.code.as_str(),
                error = %trouble.message,
                "a certificate could not be kept: it is ordered anew after a restart"
            );
        }
        self.book.ended(&name);
        self.book.issued(&name, life, trouble, now, rand::random());
        self.kept.insert(name, fresh);
        self.forget_ended(now);
    }

    async fn not_ordered(&mut self, name: &Arc<str>, trouble: Trouble, now: u64) {
        self.hub.metrics.certificates.ordered(trouble.code.as_str());
        self.book.ended(name);
        self.book.failed(name, trouble.clone(), now, rand::random());
        let next = self.book.line(name).map(|line| line.due_ms);
        warn!(
            event = events::CERTIFICATE_FAILED,
            name = &**name,
            code = trouble.code.as_str(),
            error = %trouble.message,
            next_ms = next,
            "a certificate was not issued; it is tried again"
        );
        if trouble.account_unknown
            && let Some((acme, _)) = self.account.open.take()
        {
            self.forget_account(&acme).await;
        }
    }

    async fn forget_account(&self, acme: &AcmeConfig) {
        if let Some(store) = &self.store
            && let Err(trouble) = account::forget(acme, store).await
        {
            error!(
                event = events::CERTIFICATE_FAILED,
                code = trouble.code.as_str(),
                error = %trouble.message,
                "an account that its authority does not know could not be forgotten"
            );
        }
    }

    fn forget_ended(&mut self, now: u64) {
        let now = i64::try_from(now / 1000).unwrap_or(i64::MAX);
        self.kept.retain(|_, fresh| fresh.not_after > now);
    }

    fn publish(&self) {
        let now = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
        let mut standings = FxHashMap::default();
        let mut status = Vec::new();
        for (name, line) in self.book.lines() {
            let fresh = self.kept.get(name);
            let under_way = self.book.is_under_way(name);
            // Before the account is there, its trouble is that of every name without a certificate.
            let trouble = line.trouble.as_ref().or(match fresh {
                Some(_) => None,
                None => self.account.trouble.as_ref(),
            });
            let standing = match fresh {
                Some(fresh) => Standing::Held(Arc::clone(&fresh.key)),
                None if trouble.is_none() => Standing::Coming,
                None => Standing::Missing,
            };
            status.push(CertificateStatus {
                names: vec![name.to_string()],
                source: CertificateSource::Acme,
                file: None,
                not_after: fresh.map(|fresh| fresh.not_after),
                ending: fresh
                    .is_some_and(|fresh| is_ending(Some(fresh.not_before), fresh.not_after, now)),
                next_order_ms: (!under_way).then_some(line.due_ms),
                under_way,
                failures: line.failures,
                last_error: trouble.map(|trouble| CertificateError {
                    code: trouble.code.as_str().to_owned(),
                    message: trouble.message.clone(),
                }),
            });
            standings.insert(Arc::clone(name), standing);
        }
        self.issued.publish(standings, status);
        names::measure(&self.hub);
    }
}

/// A job that panics must not leave its name under way for ever.
async fn caught<T>(job: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    match AssertUnwindSafe(job).catch_unwind().await {
        Ok(done) => done,
        Err(_) => Err(Trouble::new(
            CertificateCode::AcmeBadCertificate,
            "what the authority answered made the order panic; please report this",
        )),
    }
}
