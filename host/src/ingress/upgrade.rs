//! WebSockets: bytes both ways, until both end.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tracing::debug;

use super::account::End;
use super::door::Viewer;
use super::running::Running;
use super::upstream::Upstream;

/// Bytes that are held for each direction.
const BUFFER_BYTES: usize = 16 * 1024;

/// How long a viewer may still hold its connection once the flow has ended.
const LINGER: Duration = Duration::from_secs(10);

/// Joins the two connections once both have switched. The viewer's place in the bounds stays taken
/// until they end.
pub(crate) fn splice(
    viewer: Arc<Viewer>,
    on_viewer: OnUpgrade,
    on_origin: OnUpgrade,
    mut running: Box<Running>,
) {
    // From here on this task alone looks after it.
    running.hold = None;
    viewer.socket.set_unpaced();
    let flow_ended = running.upstream.as_ref().map(Upstream::ended);
    tokio::spawn(async move {
        let copied = async {
            let (near, far) = tokio::try_join!(on_viewer, on_origin)
                .inspect_err(|error| {
                    debug!(peer = %viewer.peer, %error, "a connection was not switched");
                })
                .ok()?;
            let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
            copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER_BYTES, BUFFER_BYTES)
                .await
                .ok()
        };
        let request = running.request();
        let end = tokio::select! {
            biased;
            () = request.until_cut() => End::Cut,
            copied = copied => match copied {
                Some((_, outward)) => {
                    running.sent(outward);
                    End::Complete
                }
                None if viewer.socket.is_stalled() => End::ViewerStalled,
                None => End::ViewerLeft,
            },
            () = lingered(flow_ended, LINGER) => End::OriginBroke,
        };
        running.upgraded(end);
    });
}

/// Ready when the flow has ended and the viewer had so long to take the rest and leave: what it
/// sends has nowhere to go any more.
async fn lingered(flow_ended: Option<impl Future<Output = ()>>, linger: Duration) {
    if let Some(flow_ended) = flow_ended {
        flow_ended.await;
    }
    tokio::time::sleep(linger).await;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use futures_util::FutureExt as _;
    use nowconnect_protocol::ResetCode;
    use tokio::sync::watch;

    use super::super::origin_flow::{FlowState, until};
    use super::*;

    #[tokio::test]
    async fn a_viewer_holds_nothing_once_the_flow_has_ended() {
        let (tell, state) = watch::channel(FlowState::Open { http2: false });
        let ended = until(state, FlowState::is_end);
        let mut lingered = Box::pin(lingered(Some(ended), Duration::ZERO));
        assert!((&mut lingered).now_or_never().is_none());
        tell.send(FlowState::Reset(ResetCode::Idle)).unwrap();
        lingered.await;
    }

    #[tokio::test]
    async fn a_flow_that_is_gone_without_a_word_has_ended() {
        let (tell, state) = watch::channel(FlowState::Open { http2: false });
        drop(tell);
        lingered(Some(until(state, FlowState::is_end)), Duration::ZERO).await;
    }
}
