//! Where components come from: bytes, files, a web server, a registry.
//!
//! What comes over the network is named by its digest, so whoever serves it can refuse or delay
//! it and nothing else: sizes and time are bounded, each part is compared with its digest before
//! it is looked into. What is pinned and runs is not fetched again, nor are bytes that a cache
//! keeps; a signature beside them is, as long as none that suffices is kept.

mod blobs;
mod challenge;
mod credentials;
mod entry;
mod registry;
mod upload;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderValue, StatusCode};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::address::is_public;
use crate::component::{COMPONENT_BYTES_MAX, Digest, read_bounded};
use crate::engine::EngineInner;
use crate::error::LoadProblem;
use crate::names::Asker;
use crate::spec::{PluginSource, PluginSpec};
use crate::trust::{self, SIGNATURES_BYTES_MAX};
use crate::web::{Incoming, Outgoing, Target};

pub use credentials::{CredentialsError, RegistryCredentials};
pub(crate) use entry::{Door, WayOut};
pub use registry::OCI_SIGNATURES;
pub(crate) use registry::Reference;
pub use upload::{RegistryUpload, UploadError};

/// Time that one component may take to arrive.
const FETCH_TIME_MAX: Duration = Duration::from_secs(60);
/// Time that a signature beside a component may take: one that does not come is none.
const SIGNATURE_TIME_MAX: Duration = Duration::from_secs(5);
/// Servers that one request may be sent on to, as a registry does to where it stores things.
const REDIRECTS_MAX: usize = 3;

/// What the operator says about the registry that a component comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryAccess {
    /// Hosts beside the registry's own that may hand out its tokens, and are shown its
    /// credentials; with their port where it is not that of the scheme.
    pub token_hosts: Vec<String>,
    /// The file in which [`RegistryCredentials`] are looked for; `None` reads anonymously.
    pub auth_file: Option<PathBuf>,
}

impl RegistryAccess {
    /// Whether this can be one of the `token_hosts`, or name a registry.
    pub fn is_host(text: &str) -> bool {
        challenge::host_and_port(text, true).is_some()
    }
}

/// A component as it arrived, and the text of its signatures, where it has some.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) digest: Digest,
    pub(crate) signature: Option<String>,
}

/// Gets the bytes and compares them with the pin, before anything looks into them.
pub(crate) async fn arrive(
    engine: &Arc<EngineInner>,
    spec: &PluginSpec,
) -> Result<Arrived, LoadProblem> {
    let pinned = spec.digest.as_deref().map(Digest::parse).transpose()?;
    let fetched = timeout(FETCH_TIME_MAX, fetch(engine, spec, pinned)).await;
    let (bytes, signature) = fetched.unwrap_or_else(|_| {
        Err(LoadProblem::Fetch(format!(
            "it did not arrive in {FETCH_TIME_MAX:?}"
        )))
    })?;
    let digest = blobs::digest_of(&bytes).await?;
    if let Some(pinned) = pinned.filter(|pinned| *pinned != digest) {
        return Err(LoadProblem::DigestMismatch {
            pinned: format!("sha256:{pinned}"),
            actual: format!("sha256:{digest}"),
        });
    }
    Ok(Arrived {
        bytes,
        digest,
        signature: spec.signature.clone().or(signature),
    })
}

type Signed = (Arc<[u8]>, Option<String>);

async fn fetch(
    engine: &Arc<EngineInner>,
    spec: &PluginSpec,
    pinned: Option<Digest>,
) -> Result<Signed, LoadProblem> {
    match &spec.source {
        PluginSource::Bytes(bytes) => Ok((Arc::clone(bytes), None)),
        PluginSource::Path(path) => {
            let path = path.clone();
            let read = spawn_blocking(move || {
                let bytes = read_bounded(&path, COMPONENT_BYTES_MAX)?;
                let mut beside = path.into_os_string();
                beside.push(".sig");
                let beside = PathBuf::from(beside);
                let signature = match beside.exists() {
                    true => Some(read_bounded(&beside, SIGNATURES_BYTES_MAX)?),
                    false => None,
                };
                Ok((bytes.into(), signature.map(text)))
            });
            read.await.unwrap_or_else(|error| {
                Err(LoadProblem::Fetch(format!("reading it panicked: {error}")))
            })
        }
        PluginSource::Url(url) => {
            let pinned = pinned.ok_or(LoadProblem::Unpinned)?;
            over_https(engine, spec, url, pinned).await
        }
        PluginSource::Oci(reference) => {
            let reference = Reference::parse(reference)?;
            registry::pull(engine, &reference, &spec.registry).await
        }
    }
}

async fn over_https(
    engine: &Arc<EngineInner>,
    spec: &PluginSpec,
    url: &str,
    pinned: Digest,
) -> Result<Signed, LoadProblem> {
    let bytes = match blobs::kept(engine, pinned).await {
        Some(bytes) => bytes,
        None => {
            let bytes = get(engine, url, Outgoing::get(), COMPONENT_BYTES_MAX).await?;
            let bytes = good(url, bytes)?;
            blobs::keep(engine, pinned, &bytes).await;
            bytes
        }
    };
    // Where nobody is trusted, or the configuration has it, no signature is looked for.
    if spec.trust.is_empty() || spec.signature.is_some() {
        return Ok((bytes, None));
    }
    let kept = blobs::kept_signature(engine, pinned).await;
    if let Some(kept) = &kept
        && suffices(&bytes, kept, spec).await
    {
        return Ok((bytes, Some(kept.clone())));
    }
    // None is kept, or the one that is does not suffice (any more): the server may have another.
    let beside = format!("{url}.sig");
    let asked = get(engine, &beside, Outgoing::get(), SIGNATURES_BYTES_MAX);
    let fetched = timeout(SIGNATURE_TIME_MAX, asked)
        .await
        .ok()
        .and_then(Result::ok)
        .filter(|answer| answer.status == StatusCode::OK)
        .map(|answer| text(answer.body.to_vec()));
    if let Some(fetched) = &fetched
        && suffices(&bytes, fetched, spec).await
    {
        blobs::keep_signature(engine, pinned, fetched).await;
    }
    // A server without a signature says so; what that means is decided with the trust list.
    Ok((bytes, fetched.or(kept)))
}

/// Whether these signatures let the plugin run. Hashes the whole component, which no thread that
/// serves others has time for.
async fn suffices(bytes: &Arc<[u8]>, signatures: &str, spec: &PluginSpec) -> bool {
    let (bytes, signatures, spec) = (Arc::clone(bytes), signatures.to_owned(), spec.clone());
    let check = move || trust::check(&bytes, Some(&signatures), &spec);
    matches!(spawn_blocking(check).await, Ok(Ok(Some(_))))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// The body of an answer that says `200 OK`.
fn good(url: &str, answer: Incoming) -> Result<Arc<[u8]>, LoadProblem> {
    if answer.status == StatusCode::OK {
        return Ok(answer.body.as_ref().into());
    }
    Err(LoadProblem::Fetch(format!(
        "`{url}` answers {}",
        answer.status
    )))
}

/// Gets what a URL leads to, over a few redirects. The first host is the operator's choice; one
/// that it sends us on to must be public and speak TLS, and is shown no credentials.
async fn get(
    engine: &Arc<EngineInner>,
    url: &str,
    outgoing: Outgoing,
    bytes_max: u64,
) -> Result<Incoming, LoadProblem> {
    let failed = |error: crate::web::WebError| LoadProblem::Fetch(format!("`{url}`: {error}"));
    let first = Target::parse(url).map_err(failed)?;
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut target = first.clone();
    let mut headers = outgoing.headers;
    for _ in 0..=REDIRECTS_MAX {
        let own = target.host == first.host && target.port == first.port;
        let outgoing = Outgoing {
            headers: headers.clone(),
            ..Outgoing::get()
        };
        let may_reach = |address: IpAddr| own || is_public(address);
        let answer = engine
            .web
            .exchange(&target, outgoing, bytes_max, Asker::Source, may_reach)
            .await
            .map_err(failed)?;
        if !answer.status.is_redirection() {
            return Ok(answer);
        }
        let next = answer.headers.get(LOCATION).map(HeaderValue::to_str);
        let Some(Ok(next)) = next else {
            return Ok(answer);
        };
        let next = target.join(next).map_err(failed)?;
        if (next.host.as_str(), next.port) != (target.host.as_str(), target.port) {
            headers.remove(AUTHORIZATION);
        }
        if first.tls && !next.tls {
            return Err(LoadProblem::Fetch(format!("`{url}` leads away from TLS")));
        }
        target = next;
    }
    Err(LoadProblem::Fetch(format!(
        "`{url}` is sent on more than {REDIRECTS_MAX} times"
    )))
}
