//! As much of a registry as pushing and pulling need.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::runtime::Runtime;

#[derive(Default)]
struct Shelf {
    stored: Mutex<BTreeMap<String, Vec<u8>>>,
    refuses: AtomicBool,
    /// `Basic` or `Bearer`, and where tokens are.
    lock: Mutex<Option<(&'static str, String)>>,
    /// What it says from the second time on that somebody is not let in.
    second_challenge: Mutex<Option<String>>,
    challenged: AtomicUsize,
    /// Where uploads go on, instead of here.
    uploads_at: Mutex<String>,
    asked: AtomicUsize,
}

pub(super) struct Registry {
    pub(super) address: SocketAddr,
    shelf: Arc<Shelf>,
    /// Serves until it is dropped.
    _runtime: Runtime,
}

impl Registry {
    pub(super) fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let shelf = Arc::new(Shelf::default());
        let listening = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = runtime.block_on(listening).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shelf));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            shelf,
            _runtime: runtime,
        }
    }

    /// What was pushed, by `blobs/<digest>` and `manifests/<tag>`.
    pub(super) fn stored(&self) -> BTreeMap<String, Vec<u8>> {
        self.shelf.stored.lock().clone()
    }

    /// Lets in `pusher` with the password `s3cret` only.
    pub(super) fn lock(&self, scheme: &'static str) {
        let realm = format!("http://{}/token", self.address);
        *self.shelf.lock.lock() = Some((scheme, realm));
    }

    pub(super) fn send_for_tokens_to(&self, address: SocketAddr) {
        *self.shelf.lock.lock() = Some(("Bearer", format!("http://{address}/token")));
    }

    /// Says something else from the second time on that it is asked without credentials.
    pub(super) fn later_send_for_tokens_to(&self, address: SocketAddr) {
        let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"registry\"");
        *self.shelf.second_challenge.lock() = Some(challenge);
    }

    pub(super) fn have_uploads_sent_to(&self, base: &str) {
        *self.shelf.uploads_at.lock() = base.to_owned();
    }

    /// Requests so far.
    pub(super) fn asked(&self) -> usize {
        self.shelf.asked.load(Ordering::Relaxed)
    }

    pub(super) fn refuse(&self) {
        self.shelf.refuses.store(true, Ordering::Relaxed);
    }
}

type Answer = (StatusCode, [(HeaderName, String); 1]);

async fn answer(
    State(shelf): State<Arc<Shelf>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    shelf.asked.fetch_add(1, Ordering::Relaxed);
    let shown = headers.get(header::AUTHORIZATION);
    let is_pusher = shown.is_some_and(|shown| shown == "Basic cHVzaGVyOnMzY3JldA==");
    if uri.path() == "/token" {
        return match is_pusher {
            true => "{\"token\": \"let-me-in\"}".into_response(),
            false => StatusCode::UNAUTHORIZED.into_response(),
        };
    }
    let lock = shelf.lock.lock().clone();
    if let Some((scheme, realm)) = lock {
        let may = match scheme {
            "Basic" => is_pusher,
            _ => shown.is_some_and(|shown| shown == "Bearer let-me-in"),
        };
        if !may {
            let first = shelf.challenged.fetch_add(1, Ordering::Relaxed) == 0;
            let later = shelf.second_challenge.lock().clone().filter(|_| !first);
            let challenge =
                later.unwrap_or_else(|| format!("{scheme} realm=\"{realm}\",service=\"registry\""));
            let fields = [(header::WWW_AUTHENTICATE, challenge)];
            return (StatusCode::UNAUTHORIZED, fields).into_response();
        }
    }
    let name = uri.path().trim_start_matches("/v2/team/guard/");
    if method == Method::GET
        && let Some(bytes) = pulled(&shelf, name)
    {
        return bytes.into_response();
    }
    kept(&shelf, &method, &uri, &body).into_response()
}

/// What was pushed, by its digest.
fn pulled(shelf: &Shelf, path: &str) -> Option<Vec<u8>> {
    let stored = shelf.stored.lock();
    if let Some(blob) = stored.get(path) {
        return Some(blob.clone());
    }
    let digest = path.strip_prefix("manifests/")?;
    let manifests = stored
        .iter()
        .filter(|(name, _)| name.starts_with("manifests/"));
    manifests
        .map(|(_, bytes)| bytes)
        .find(|bytes| super::supply::digest(bytes) == digest)
        .cloned()
}

fn kept(shelf: &Shelf, method: &Method, uri: &Uri, body: &Bytes) -> Answer {
    let at = |place: &str| [(header::LOCATION, place.to_owned())];
    let path = uri
        .path()
        .trim_start_matches("/v2/")
        .trim_start_matches("team/guard/");
    if shelf.refuses.load(Ordering::Relaxed) {
        return (StatusCode::FORBIDDEN, at(""));
    }
    match (method, path) {
        (&Method::POST, "blobs/uploads/") => {
            let place = format!("{}/v2/team/guard/upload?state=1", shelf.uploads_at.lock());
            (StatusCode::ACCEPTED, at(&place))
        }
        (&Method::PUT, "upload") => {
            let digest = uri.query().unwrap().rsplit_once("digest=").unwrap().1;
            let name = format!("blobs/{}", digest.replace("%3A", ":"));
            shelf.stored.lock().insert(name.clone(), body.to_vec());
            (StatusCode::CREATED, at(&format!("/v2/team/guard/{name}")))
        }
        (&Method::PUT, manifest) if manifest.starts_with("manifests/") => {
            shelf
                .stored
                .lock()
                .insert(manifest.to_owned(), body.to_vec());
            (StatusCode::CREATED, at(uri.path()))
        }
        (&Method::GET, _) => (StatusCode::OK, at("")),
        _ => (StatusCode::NOT_FOUND, at("")),
    }
}
