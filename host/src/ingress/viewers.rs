//! What becomes of requests under way when what proved their viewer ends.
//!
//! A new request proves its viewer anew, and is accepted for as long as one under way goes on: of a
//! token that is `exp` and as much as clocks may differ. A response, an event stream or a WebSocket
//! that is under way when a token, a certificate or a signed URL ends has the fate of an agent's
//! flows when its token does: `security.on_expiry`.

use std::time::{Duration, SystemTime};

use tracing::info;

use super::in_flight::InFlight;
use crate::config::OnExpiry;
use crate::hub::Hub;
use crate::telemetry::events;

/// Ends all whose time is over.
pub(super) fn end_expired(hub: &Hub) {
    let config = hub.config.load();
    let grace = match config.security.on_expiry {
        OnExpiry::Keep => return,
        OnExpiry::Drain => config.security.on_expiry_drain,
        OnExpiry::Close => Duration::ZERO,
    };
    let now = SystemTime::now();
    let is_over = |request: &InFlight| {
        let until = request.viewer_until;
        until.is_some_and(|until| now >= until + grace) && request.fate().is_none()
    };
    for request in hub.ingress.in_flight.collect(is_over) {
        info!(
            target: events::SECURITY,
            event = events::VIEWER_EXPIRED,
            request_id = %request.id,
            endpoint = %request.endpoint,
            client = %request.client,
            "a request under way ends because what proved its viewer has ended"
        );
        hub.metrics.http.viewer_ended();
        request.expire();
    }
}
