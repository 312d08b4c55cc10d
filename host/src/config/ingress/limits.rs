//! Bounds on viewers and origins.

use std::time::Duration;

use super::super::build::{ms, optional_ms};
use super::super::file::IngressLimitsFile;

/// `ingress.limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressLimits {
    /// The most bytes of a head.
    pub max_header_bytes: u32,
    /// The most fields of a head.
    pub max_headers: u32,
    /// How long the head of a request may take, waiting for it included.
    pub header_timeout: Duration,
    /// How long a client may send nothing of a body that it owes.
    pub body_timeout: Duration,
    /// How long a viewer may take nothing of a response that waits for it.
    pub send_timeout: Duration,
    /// What a viewer that is waited for has to send or to take; `None` is no bound.
    pub min_rate: Option<MinRate>,
    /// How old a viewer's connection may become; `None` is no bound.
    pub max_connection_age: Option<Duration>,
    /// TLS handshakes at once.
    pub max_handshakes: u32,
    /// How long one may take.
    pub handshake_timeout: Duration,
    /// Connections at once from one source address.
    pub max_connections_per_source: u32,
    /// Requests at once.
    pub max_requests: u32,
    /// Requests at once from one source address.
    pub max_requests_per_source: u32,
    /// Requests at once of one HTTP/2 connection.
    pub max_streams: u32,
    /// Connections to origins kept for each connector and agent.
    pub pool_idle: u32,
    /// How long one is kept.
    pub pool_idle_timeout: Duration,
}

/// The least rate of a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinRate {
    /// Bytes a second, over a whole window.
    pub bytes_per_second: u32,
    /// Time in which the viewer alone is waited for.
    pub window: Duration,
}

impl MinRate {
    pub(crate) fn bytes_per_window(self) -> u64 {
        let bytes = u128::from(self.bytes_per_second) * self.window.as_millis() / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
    }
}

impl IngressLimits {
    pub(super) fn build(file: &IngressLimitsFile) -> Self {
        Self {
            max_header_bytes: file.max_header_bytes,
            max_headers: file.max_headers,
            header_timeout: ms(file.header_timeout_ms),
            body_timeout: ms(file.body_timeout_ms),
            send_timeout: ms(file.send_timeout_ms),
            min_rate: file.min_rate.as_ref().map(|rate| MinRate {
                bytes_per_second: rate.bytes_per_second,
                window: ms(rate.window_ms),
            }),
            max_connection_age: optional_ms(file.max_connection_age_ms),
            max_handshakes: file.max_handshakes,
            handshake_timeout: ms(file.handshake_timeout_ms),
            max_connections_per_source: file.max_connections_per_source,
            max_requests: file.max_requests,
            max_requests_per_source: file
                .max_requests_per_source
                .unwrap_or((file.max_requests / 4).max(1)),
            max_streams: file.max_streams,
            pool_idle: file.pool_idle,
            pool_idle_timeout: ms(file.pool_idle_ms),
        }
    }
}
