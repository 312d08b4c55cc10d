//! `ha.mesh.listen`: a port for links alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::debug;

use crate::hub::Hub;

/// How long an accept that failed for want of a resource waits before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Takes links while this hub has any, and closes what comes while it has none.
pub(crate) async fn serve_port(hub: Arc<Hub>, port: TcpListener) {
    let mut meshes = hub.links().subscribe();
    loop {
        let mesh = meshes.borrow_and_update().clone();
        match mesh {
            // Ends once the mesh has, so that its links can say why they end.
            Some(mesh) => mesh.serve(&port).await,
            None => tokio::select! {
                () = turn_away(&port) => {}
                changed = meshes.changed() => if changed.is_err() { return },
            },
        }
    }
}

async fn turn_away(port: &TcpListener) {
    loop {
        if let Err(error) = port.accept().await {
            debug!(%error, "accepting a hub failed");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}
