//! Looks where bundles come from, and hands over what is new.
//!
//! A web server is asked with the ETag of what was handed over last, so that an unchanged bundle
//! costs a header. A source that fails is asked less and less often. What is read is bounded in
//! time and size and means nothing until it is verified.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ETAG, IF_NONE_MATCH};
use http::{HeaderValue, StatusCode};
use nowconnect_policy::BundleArchive;
use rand::RngExt as _;
use reqwest::{Client, Url, redirect};
use sha2::{Digest as _, Sha256};

use super::board::Order;
use super::refused::{BundleRefused, codes};
use super::state::Origin;
use crate::config::{BundleConfig, BundleSource};
use crate::hub::Hub;
use crate::identity::fetch;

/// Longest time between two looks at a source that fails, unless it is looked at less often
/// anyway.
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// How often the configuration is looked at where bundles are only pushed.
const WITHOUT_SOURCE: Duration = Duration::from_secs(60);

/// Looks until it is dropped.
pub(crate) async fn watch(hub: Arc<Hub>) {
    let mut looker = Looker::default();
    loop {
        let config = hub.config().policy.bundle.clone();
        let pause = match &config {
            Some(config) => looker.look(&hub, config).await,
            None => WITHOUT_SOURCE,
        };
        // Whoever waits for a change need not wait for the time.
        let _ = tokio::time::timeout(pause, hub.bundles().look.notified()).await;
    }
}

#[derive(Default)]
struct Looker {
    /// What this is about; another source is looked at anew.
    config: Option<BundleConfig>,
    client: Option<Client>,
    etag: Option<HeaderValue>,
    /// Digest of what was handed over and has been decided about.
    decided: Option<[u8; 32]>,
    failures: u32,
    told: Option<BundleRefused>,
}

/// What a look found.
enum Found {
    Unchanged,
    Archive {
        archive: Box<BundleArchive>,
        digest: [u8; 32],
        origin: Origin,
        etag: Option<HeaderValue>,
    },
}

impl Looker {
    /// Says how long to wait for the next look.
    async fn look(&mut self, hub: &Hub, config: &BundleConfig) -> Duration {
        if self.config.as_ref() != Some(config) {
            *self = Self {
                config: Some(config.clone()),
                told: self.told.take(),
                ..Self::default()
            };
        }
        let found = match &config.source {
            BundleSource::Push => {
                self.tell(hub, None);
                return WITHOUT_SOURCE;
            }
            BundleSource::Path(path) => read(path.clone()).await,
            BundleSource::Url(url) => self.fetch(config, url).await,
        };
        match found {
            Ok(found) => {
                self.failures = 0;
                self.tell(hub, None);
                self.hand_over(hub, found).await;
            }
            Err(refused) => {
                self.failures = self.failures.saturating_add(1);
                hub.metrics().bundle.looked("failed");
                hub.metrics().bundle.rejected(refused.code);
                self.tell(hub, Some(refused));
            }
        }
        pause(
            config.poll,
            self.failures,
            rand::rng().random_range(0.8..1.2),
        )
    }

    async fn hand_over(&mut self, hub: &Hub, found: Found) {
        let Found::Archive {
            archive,
            digest,
            origin,
            etag,
        } = found
        else {
            hub.metrics().bundle.looked("unchanged");
            return;
        };
        if self.decided == Some(digest) {
            self.etag = etag;
            hub.metrics().bundle.looked("unchanged");
            return;
        }
        hub.metrics().bundle.looked("new");
        let decided = hub
            .bundles()
            .order(|answer| Order::Deliver {
                archive,
                origin,
                stage_only: false,
                answer,
            })
            .await;
        // Some refusals are about this moment and not about these bytes.
        let is_final = decided.map_or_else(|refused| !refused.may_pass(), |_| true);
        if is_final {
            self.decided = Some(digest);
            self.etag = etag;
        }
    }

    async fn fetch(&mut self, config: &BundleConfig, url: &Url) -> Result<Found, BundleRefused> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(client(config)?).clone(),
        };
        let fetched = fetch_tar(&client, config, url, self.etag.as_ref());
        let fetched = match tokio::time::timeout(config.timeout, fetched).await {
            Ok(fetched) => fetched?,
            Err(_) => {
                let ms = config.timeout.as_millis();
                return Err(failed(url, &format!("did not answer within {ms} ms")));
            }
        };
        let Some((bytes, etag)) = fetched else {
            return Ok(Found::Unchanged);
        };
        blocking(move || {
            let archive = BundleArchive::from_tar(&bytes)?;
            Ok(Found::Archive {
                archive: Box::new(archive),
                digest: Sha256::digest(&bytes).into(),
                origin: Origin::Url,
                etag,
            })
        })
        .await
    }

    /// Tells what changed since it was told last.
    fn tell(&mut self, hub: &Hub, problem: Option<BundleRefused>) {
        if self.told != problem {
            self.told.clone_from(&problem);
            hub.bundles().source(problem);
        }
    }
}

async fn read(path: PathBuf) -> Result<Found, BundleRefused> {
    blocking(move || {
        let archive = BundleArchive::read(&path)?;
        let digest = Sha256::digest(archive.to_tar()?).into();
        Ok(Found::Archive {
            archive: Box::new(archive),
            digest,
            origin: Origin::Path,
            etag: None,
        })
    })
    .await
}

async fn blocking(
    read: impl FnOnce() -> Result<Found, BundleRefused> + Send + 'static,
) -> Result<Found, BundleRefused> {
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|_| Err(BundleRefused::internal()))
}

fn client(config: &BundleConfig) -> Result<Client, BundleRefused> {
    let refused = |message: String| BundleRefused::new(codes::SOURCE, message);
    let mut builder = Client::builder()
        .connect_timeout(config.timeout)
        .redirect(redirect::Policy::custom(fetch::same_origin_only))
        .user_agent(concat!("nowconnect/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &config.ca_bundle {
        let (roots, _) = fetch::ca_bundle("policy.bundle.ca_bundle", path).map_err(refused)?;
        builder = builder.tls_certs_merge(roots);
    }
    builder
        .build()
        .map_err(|error| refused(format!("no HTTP client for bundles: {error}")))
}

/// The body, whole; `None` where it is what the ETag names.
async fn fetch_tar(
    client: &Client,
    config: &BundleConfig,
    url: &Url,
    etag: Option<&HeaderValue>,
) -> Result<Option<(Vec<u8>, Option<HeaderValue>)>, BundleRefused> {
    let broken = |error: reqwest::Error| {
        let reason = fetch::innermost(&error.without_url());
        failed(url, &format!("cannot be read: {reason}"))
    };
    let mut request = client.get(url.clone());
    if let Some(etag) = etag {
        request = request.header(IF_NONE_MATCH, etag);
    }
    let mut answer = request.send().await.map_err(broken)?;
    if answer.status() == StatusCode::NOT_MODIFIED && etag.is_some() {
        return Ok(None);
    }
    if answer.status() != StatusCode::OK {
        let status = answer.status().as_u16();
        return Err(failed(url, &format!("answered {status}")));
    }
    let etag = answer.headers().get(ETAG).cloned();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(broken)? {
        if (body.len() + chunk.len()) as u64 > config.max_bytes {
            let limit = config.max_bytes;
            return Err(failed(url, &format!("answered more than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some((body, etag)))
}

fn failed(url: &Url, what: &str) -> BundleRefused {
    BundleRefused::new(codes::SOURCE, format!("`{}` {what}", fetch::shown(url)))
}

/// Doubles with each failure in a row, and is never the same for two hubs.
fn pause(poll: Duration, failures: u32, jitter: f64) -> Duration {
    let longest = MAX_BACKOFF.max(poll);
    let doubled = 2_u32
        .checked_pow(failures)
        .and_then(|times| poll.checked_mul(times));
    doubled.unwrap_or(longest).min(longest).mul_f64(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_source_is_asked_less_and_less_often_up_to_a_bound() {
        let poll = Duration::from_secs(30);
        assert_eq!(pause(poll, 0, 1.0), poll);
        assert_eq!(pause(poll, 1, 1.0), poll * 2);
        assert_eq!(pause(poll, 3, 1.0), poll * 8);
        assert_eq!(pause(poll, 4, 1.0), MAX_BACKOFF);
        assert_eq!(pause(poll, u32::MAX, 1.0), MAX_BACKOFF);
        let hourly = Duration::from_secs(3600);
        assert_eq!(pause(hourly, 9, 1.0), hourly);
        assert!(pause(poll, 0, 0.8) < pause(poll, 0, 1.2));
    }
}
