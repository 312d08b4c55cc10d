//! One link, from the hello to its end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nowconnect_protocol::ReplicaId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tracing::{debug, info, warn};

use super::{Inner, Mesh, SECURITY, nap, wall_clock};
use crate::address::PeerUrl;
use crate::arrival::Admission;
use crate::choice::Contender;
use crate::close::{CloseCode, LinkEnd};
use crate::credentials::Credentials;
use crate::handshake::{self, HelloError, Known};
use crate::io::{MeshIo, link_config};
use crate::limits::{CLOSE_WITHIN, RENEW_BEFORE, RENEW_PAUSE};
use crate::link::{CloseSignal, ReadyLink};
use crate::table::Standing;

/// Why somebody who knocked got no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The hello took too long.
    #[error("no proof in time")]
    Timeout,
    /// The hello led to no link.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// Another link to the same hub stands and stays.
    #[error("there is a link to this hub already, and it stays")]
    Duplicate,
    /// This hub takes no links: it is leaving, or another hub has its name.
    #[error("this hub takes no links at the moment")]
    Closed,
}

impl AcceptError {
    /// A stable name for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Timeout => CloseCode::HelloTimeout.as_str(),
            Self::Hello(error) => error.code(),
            Self::Duplicate => CloseCode::Duplicate.as_str(),
            Self::Closed => CloseCode::Leaving.as_str(),
        }
    }
}

impl Mesh {
    /// Takes a link: hears the dialler's hello over a WebSocket that was upgraded with
    /// [`hello_config`](crate::hello_config), and serves the link until it ends.
    ///
    /// # Errors
    /// There is no link; the peer was told why.
    pub async fn accept<S>(
        &self,
        mut ws: WebSocketStream<S>,
        admission: Admission,
    ) -> Result<LinkEnd, AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let source = admission.knock.source();
        let deadline = admission.knock.deadline();
        let settings = self.0.settings();
        let loaded = settings.credentials.clone();
        let me = self.0.speaker(&settings, loaded.as_deref());
        let session = admission.session.as_ref();
        let greeting = handshake::greet(&mut ws, &me, session, &admission.shown);
        let greeted = match timeout_at(deadline, greeting).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => {
                self.refuse(&mut ws, source.ip(), &error).await;
                return Err(error.into());
            }
            Err(_) => {
                let code = CloseCode::HelloTimeout;
                self.0.observer.turned_away(source.ip(), code.as_str());
                handshake::refuse(&mut ws, code).await;
                return Err(AcceptError::Timeout);
            }
        };
        // From here on the peer is known: it holds no place among those who are not.
        drop(admission);
        // The dialler has nothing to say before it is welcomed, so nothing of it is lost here.
        let io: Box<dyn MeshIo> = Box::new(ws.into_inner());
        let mut ws = WebSocketStream::from_raw_socket(io, Role::Server, Some(link_config())).await;
        let Some(entered) = Entered::enter(&self.0, &greeted.known, None, loaded.as_deref()) else {
            debug!(peer = %greeted.known.theirs.replica, %source, "a second link was refused");
            handshake::refuse(&mut ws, CloseCode::Duplicate).await;
            return Err(AcceptError::Duplicate);
        };
        // Only now: a hub that begins to leave ends what stands in the table.
        if self.0.is_shut() {
            entered.gave_up("this hub takes no links at the moment");
            handshake::refuse(&mut ws, CloseCode::Leaving).await;
            return Err(AcceptError::Closed);
        }
        match timeout_at(deadline, greeted.welcome(&mut ws, &me)).await {
            Ok(Ok(known)) => Ok(entered.serve(ws, known, (false, source)).await),
            Ok(Err(error)) => {
                entered.gave_up(&error.to_string());
                Err(error.into())
            }
            Err(_) => {
                entered.gave_up("it did not take the welcome");
                Err(AcceptError::Timeout)
            }
        }
    }

    async fn refuse<S>(&self, ws: &mut WebSocketStream<S>, source: IpAddr, error: &HelloError)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if *error != HelloError::OwnAddress {
            self.0.observer.turned_away(source, error.code());
            warn!(
                target: SECURITY,
                event = "mesh_refused",
                %source,
                code = error.code(),
                %error,
                "somebody did not prove to be a hub"
            );
        }
        if let Some(code) = error.close_code() {
            handshake::refuse(ws, code).await;
        }
    }
}

/// A link that stands in the table; leaves it when dropped.
pub(super) struct Entered {
    inner: Arc<Inner>,
    peer: ReplicaId,
    id: u64,
    signal: watch::Receiver<Option<CloseCode>>,
    not_after: Option<i64>,
    replaced: Option<Standing>,
    why: String,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let why = std::mem::take(&mut self.why);
        let (peer, id) = (&self.peer, self.id);
        self.inner
            .change(|table| table.leave(peer, id, Instant::now(), why));
    }
}

impl Entered {
    /// Puts a known peer's link into the table, where it does not lose against the one there.
    pub(super) fn enter(
        inner: &Arc<Inner>,
        known: &Known,
        address: Option<&PeerUrl>,
        loaded: Option<&Credentials>,
    ) -> Option<Self> {
        let peer = &known.theirs.replica;
        let theirs = known.identity.as_ref().map(|identity| identity.not_after);
        let ours = loaded.map(|loaded| loaded.not_after);
        let not_after = theirs.map(|theirs| ours.map_or(theirs, |ours| ours.min(theirs)));
        let (end, signal) = watch::channel(None);
        let standing = Standing {
            contender: Contender {
                dialled: address.is_some(),
                boot: known.theirs.boot,
            },
            end,
            address: address.cloned(),
            version: known.version,
            proven: known.identity.is_some(),
            not_after,
            renew_at: not_after.map(renew_at),
            chain: known.chain.clone(),
        };
        let (id, replaced) = inner.change(|table| {
            let entered = table.enter(&inner.replica, peer, standing)?;
            if let Some(target) = address.and_then(|url| table.target_mut(url)) {
                target.replica = Some(peer.clone());
                target.failures = 0;
                target.last_error = None;
                target.links += 1;
            }
            Some(entered)
        })?;
        Some(Self {
            inner: Arc::clone(inner),
            peer: peer.clone(),
            id,
            signal,
            not_after,
            replaced,
            why: "it was cut".to_owned(),
        })
    }

    /// The link never came to be.
    fn gave_up(mut self, why: &str) {
        why.clone_into(&mut self.why);
    }

    /// Hands the link to whoever carries flows, and waits for its end.
    pub(super) async fn serve(
        mut self,
        ws: WebSocketStream<Box<dyn MeshIo>>,
        known: Known,
        (dialled, remote): (bool, SocketAddr),
    ) -> LinkEnd {
        info!(
            event = "mesh_link_established",
            peer = %self.peer,
            dialled,
            version = known.version,
            proven = known.identity.is_some(),
            replaces = self.replaced.is_some(),
            "a link to another hub stands"
        );
        let (cut, cut_signal) = watch::channel(None);
        let serving = self.inner.user.serve(ReadyLink {
            ws,
            ours: known.ours,
            theirs: known.theirs,
            version: known.version,
            dialled,
            remote,
            close: CloseSignal(cut_signal),
        });
        if let Some(older) = self.replaced.take() {
            older.end.send_replace(Some(CloseCode::Replaced));
        }
        let end = self.until_its_end(serving, &cut).await;
        let (peer, code) = (&self.peer, end.code());
        if end.is_orderly() {
            info!(event = "mesh_link_ended", %peer, code, "a link ended: {end}");
        } else {
            warn!(event = "mesh_link_ended", %peer, code, "a link ended: {end}");
            self.inner.observer.failed(peer.as_str(), code);
        }
        self.why = end.to_string();
        end
    }

    /// Passes on why the link has to end, and cuts it where it does not.
    async fn until_its_end(
        &self,
        mut serving: BoxFuture<'static, LinkEnd>,
        cut: &watch::Sender<Option<CloseCode>>,
    ) -> LinkEnd {
        let over = async {
            let mut told = CloseSignal(self.signal.clone());
            let code = tokio::select! {
                code = told.wanted() => code,
                () = expiry(self.not_after) => CloseCode::CertificateExpired,
            };
            cut.send_replace(Some(code));
            tokio::time::sleep(CLOSE_WITHIN).await;
            code
        };
        tokio::select! {
            end = &mut serving => end,
            code = over => LinkEnd::ByUs(code),
        }
    }
}

/// Waits until the wall clock shows the end of a certificate.
async fn expiry(not_after: Option<i64>) {
    let Some(not_after) = not_after else {
        return std::future::pending().await;
    };
    while wall_clock() <= not_after {
        // Whole seconds are compared: a nap of none would spin.
        tokio::time::sleep(nap(not_after).max(Duration::from_millis(50))).await;
    }
}

/// When to renew a link whose first certificate ends then, both in seconds since 1970. The pauses
/// between attempts shrink with what is left.
fn renew_at(not_after: i64) -> i64 {
    let left = not_after.saturating_sub(wall_clock());
    let before = i64::try_from(RENEW_BEFORE.as_secs()).unwrap_or(i64::MAX);
    let least = i64::try_from(RENEW_PAUSE.as_secs()).unwrap_or(1);
    not_after - before.min(left / 2).max(least)
}
