//! Links that are measured and carry no flows: what a hub in shadow asks of them.
//!
//! An M_OPEN is answered with M_RST `mesh_unavailable`, which is of class `not_started`: the hub
//! that asked opens the flow elsewhere.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{SinkExt as _, StreamExt as _};
use nowconnect_mesh::{CloseCode, LinkEnd, LinkTerms, LinkUser, ReadyLink};
use nowconnect_protocol::frame::{Frame, ResetCode};
use nowconnect_protocol::limits::{FLOW_WINDOW_MIN_BYTES, MAX_DATA_PAYLOAD_BYTES};
use nowconnect_protocol::mesh::{MeshFrame, decode, encode};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tracing::warn;

use crate::hub::Hub;
use crate::telemetry::events;
use crate::telemetry::metrics::{MeshDirection, Metrics};

/// Time between two measurements. Short, because the histogram is what operators look at.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Time without a message after which a link is given up.
const SILENT_AFTER: Duration = Duration::from_secs(15);

/// In a number of a flow: the hub that gets the frame has given it.
const GIVEN_BY_RECEIVER: u32 = 1 << 31;

/// Serves links in that way, where the policies allow them.
pub(super) struct Measured(Weak<Hub>);

impl Measured {
    pub(super) fn new(hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self(Arc::downgrade(hub)))
    }
}

impl LinkUser for Measured {
    fn terms(&self) -> LinkTerms {
        LinkTerms {
            max_data_payload: MAX_DATA_PAYLOAD_BYTES,
            flow_window: FLOW_WINDOW_MIN_BYTES,
            release: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn serve(&self, link: ReadyLink) -> BoxFuture<'static, LinkEnd> {
        let Some(hub) = self.0.upgrade() else {
            return Box::pin(end_with(link, CloseCode::Leaving));
        };
        let peer = &link.theirs.replica;
        if let Err(denial) = hub.authorizer().mesh_join(peer, link.remote) {
            warn!(
                target: events::SECURITY,
                event = events::MESH_REFUSED,
                %peer,
                source = %link.remote,
                code = CloseCode::PolicyDenied.as_str(),
                %denial,
                "the policies do not let a hub link"
            );
            return Box::pin(end_with(link, CloseCode::PolicyDenied));
        }
        let measuring = Measuring {
            metrics: Arc::clone(hub.metrics()),
            asked: None,
            heard: Instant::now(),
            number: 0,
            link,
        };
        Box::pin(measuring.run())
    }
}

/// Ends a link with a word.
async fn end_with(mut link: ReadyLink, code: CloseCode) -> LinkEnd {
    // The peer may be gone; the mesh bounds how long this takes.
    let _ = link.ws.close(Some(code.frame())).await;
    LinkEnd::ByUs(code)
}

/// One link.
struct Measuring {
    metrics: Arc<Metrics>,
    /// The PING that is not answered yet.
    asked: Option<(u64, Instant)>,
    heard: Instant,
    number: u64,
    link: ReadyLink,
}

impl Measuring {
    async fn run(mut self) -> LinkEnd {
        let mut ticks = tokio::time::interval(PING_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            let step = tokio::select! {
                code = self.link.close.wanted() => Err(LinkEnd::ByUs(code)),
                message = self.link.ws.next() => match message {
                    Some(message) => self.take(message).await,
                    None => Err(LinkEnd::Broken("it was closed".into())),
                },
                _ = ticks.tick() => self.ask().await,
            };
            if let Err(end) = step {
                break end;
            }
        };
        match end {
            LinkEnd::ByUs(code) => end_with(self.link, code).await,
            LinkEnd::ByPeer(_) | LinkEnd::Broken(_) => end,
        }
    }

    async fn ask(&mut self) -> Result<(), LinkEnd> {
        if self.heard.elapsed() >= SILENT_AFTER {
            return Err(LinkEnd::ByUs(CloseCode::Silent));
        }
        self.number += 1;
        self.asked = Some((self.number, Instant::now()));
        let nonce = self.number;
        self.send(&MeshFrame::Link(Frame::Ping { nonce })).await
    }

    async fn take(&mut self, message: Result<Message, WsError>) -> Result<(), LinkEnd> {
        self.heard = Instant::now();
        match message {
            Ok(Message::Binary(bytes)) => self.take_frames(bytes).await,
            Ok(Message::Close(frame)) => Err(LinkEnd::ByPeer(CloseCode::of_frame(frame.as_ref()))),
            Ok(Message::Ping(_) | Message::Pong(_)) => Ok(()),
            Ok(Message::Text(_) | Message::Frame(_)) => {
                Err(LinkEnd::ByUs(CloseCode::ProtocolError))
            }
            Err(WsError::Capacity(_)) => Err(LinkEnd::ByUs(CloseCode::TooLarge)),
            Err(error) => Err(LinkEnd::Broken(error.to_string().into())),
        }
    }

    async fn take_frames(&mut self, mut bytes: Bytes) -> Result<(), LinkEnd> {
        let malformed = |_| LinkEnd::ByUs(CloseCode::ProtocolError);
        while let Some(frame) = decode(&mut bytes).map_err(malformed)? {
            self.metrics.mesh.frames(MeshDirection::In, kind(&frame), 1);
            if let MeshFrame::Link(Frame::Ping { nonce }) = frame {
                self.send(&MeshFrame::Link(Frame::Pong { nonce })).await?;
            } else if let MeshFrame::Link(Frame::Pong { nonce }) = frame {
                self.answered(nonce);
            } else if let MeshFrame::Open { claim, open } = frame {
                let refused = Frame::Rst {
                    cid: open.cid | GIVEN_BY_RECEIVER,
                    code: ResetCode::MeshUnavailable,
                    message: "this hub carries no flows of others".to_owned(),
                };
                let epoch = claim.epoch.counter;
                self.send(&MeshFrame::Flow {
                    epoch,
                    frame: refused,
                })
                .await?;
            }
            // What else there is belongs to flows that were refused, or is for agents that this
            // hub never offered.
        }
        Ok(())
    }

    fn answered(&mut self, nonce: u64) {
        if let Some((asked, at)) = self.asked
            && asked == nonce
        {
            self.asked = None;
            let peer = self.link.theirs.replica.as_str();
            self.metrics.mesh.round_trip(peer, at.elapsed());
        }
    }

    async fn send(&mut self, frame: &MeshFrame) -> Result<(), LinkEnd> {
        let mut message = BytesMut::new();
        encode(frame, &mut message);
        self.metrics.mesh.frames(MeshDirection::Out, kind(frame), 1);
        let sending = self.link.ws.send(Message::Binary(message.freeze()));
        // A peer that takes nothing must not keep this end from seeing that.
        match tokio::time::timeout(SILENT_AFTER, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(LinkEnd::Broken(error.to_string().into())),
            Err(_) => Err(LinkEnd::ByUs(CloseCode::Silent)),
        }
    }
}

/// The type of a frame as the protocol's documents write it.
fn kind(frame: &MeshFrame) -> &'static str {
    match frame {
        MeshFrame::Hello(_) => "M_HELLO",
        MeshFrame::Proof(_) => "M_PROOF",
        MeshFrame::Open { .. } => "M_OPEN",
        MeshFrame::Credit { .. } => "M_CREDIT",
        MeshFrame::Resume { .. } => "M_RESUME",
        MeshFrame::Resumed { .. } => "M_RESUMED",
        MeshFrame::ResumeRst { .. } => "M_RESUME_RST",
        MeshFrame::ResumeEnd { .. } => "M_RESUME_END",
        MeshFrame::Flow {
            frame: Frame::Rst { .. },
            ..
        } => "M_RST",
        MeshFrame::Link(Frame::Ping { .. }) => "M_PING",
        MeshFrame::Link(Frame::Pong { .. }) => "M_PONG",
        // Of flows, which this hub refuses, and M_GOODBYE.
        MeshFrame::Flow { .. } | MeshFrame::Link(_) => "other",
    }
}
