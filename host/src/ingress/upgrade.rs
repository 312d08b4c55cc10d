//! WebSockets and whatever else a connection is turned into: bytes both ways, until both end.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tracing::debug;

use super::account::End;
use super::door::Viewer;
use super::running::Running;

/// Bytes that are held for each direction.
const BUFFER_BYTES: usize = 16 * 1024;

/// Joins the two connections once both have switched. The viewer's place in the bounds stays taken
/// until they end.
pub(crate) fn splice(
    viewer: Arc<Viewer>,
    on_viewer: OnUpgrade,
    on_origin: OnUpgrade,
    mut running: Box<Running>,
) {
    tokio::spawn(async move {
        let (near, far) = match tokio::try_join!(on_viewer, on_origin) {
            Ok(both) => both,
            Err(error) => {
                return debug!(peer = %viewer.peer, %error, "a connection was not switched");
            }
        };
        let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
        let request = running.request();
        let end = tokio::select! {
            copied = copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER_BYTES, BUFFER_BYTES) => {
                match copied {
                    Ok((_, outward)) => {
                        running.sent(outward);
                        End::Complete
                    }
                    Err(_) => End::ViewerLeft,
                }
            }
            () = request.until_cut() => End::Cut,
        };
        running.upgraded(end);
    });
}
