//! Times, limits, labels, and what is seen from outside.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Checker, Origin};
use crate::config::file::{LimitsSection, ObservabilitySection, TunnelSection, known};
use crate::config::{
    Limits, LogFormat, LogLevel, Observability, TunnelTuning, WS_PAYLOAD_MAX, WS_PAYLOAD_MIN,
};

/// HELLO carries at most this many labels.
const LABELS_MAX: usize = nowconnect_protocol::limits::MAX_PAIRS;
/// Most bytes of a label's key or value.
const LABEL_BYTES_MAX: usize = 256;
/// The longest bound on a quiet flow, in milliseconds.
pub(super) const WEEK_MS: u64 = 604_800_000;
const HEALTH_HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
const HEALTH_PORT: u64 = 8_090;

impl Checker<'_> {
    pub(super) fn tuning(&mut self, section: &TunnelSection) -> TunnelTuning {
        let mut tuning = TunnelTuning::default();
        let seconds = Duration::from_secs;
        let millis = Duration::from_millis;
        if let Some(value) = &section.ping_interval_sec {
            tuning.ping_interval =
                seconds(self.bounded("tunnel.ping_interval_sec", value, 1, 3_600));
        }
        if let Some(value) = &section.ping_timeout_sec {
            tuning.ping_timeout = seconds(self.bounded("tunnel.ping_timeout_sec", value, 1, 3_600));
        }
        if let Some(value) = &section.max_ws_payload {
            let (low, high) = (u64::from(WS_PAYLOAD_MIN), u64::from(WS_PAYLOAD_MAX));
            let bytes = self.bounded("tunnel.max_ws_payload", value, low, high);
            tuning.max_ws_payload = u32::try_from(bytes).unwrap_or(WS_PAYLOAD_MAX);
        }
        if let Some(value) = &section.connect_timeout_ms {
            tuning.connect_timeout =
                millis(self.bounded("tunnel.connect_timeout_ms", value, 100, 120_000));
        }
        if let Some(value) = &section.renew_before_sec {
            tuning.renew_before =
                seconds(self.bounded("tunnel.renew_before_sec", value, 1, 86_400));
        }
        if let Some(reconnect) = &section.reconnect {
            let backoff = &mut tuning.backoff;
            if let Some(value) = &reconnect.base_ms {
                backoff.base = millis(self.bounded("tunnel.reconnect.base_ms", value, 10, 60_000));
            }
            if let Some(value) = &reconnect.cap_ms {
                backoff.cap = millis(self.bounded("tunnel.reconnect.cap_ms", value, 10, 3_600_000));
                if backoff.cap < backoff.base {
                    self.problem(
                        &Origin::File(known(value.referenced)),
                        "`tunnel.reconnect.cap_ms` is below `tunnel.reconnect.base_ms`".to_owned(),
                    );
                }
            }
            if let Some(value) = &reconnect.stable_after_sec {
                backoff.stable_after =
                    seconds(self.bounded("tunnel.reconnect.stable_after_sec", value, 1, 86_400));
            }
        }
        tuning
    }

    pub(super) fn labels(&mut self, section: &TunnelSection) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for (name, value) in section.labels.iter().flatten() {
            let origin = Origin::File(known(value.referenced));
            if name.is_empty()
                || name.len() > LABEL_BYTES_MAX
                || value.value.len() > LABEL_BYTES_MAX
            {
                self.problem(
                    &origin,
                    format!("`tunnel.labels.{name}`: name and value have at most {LABEL_BYTES_MAX} bytes"),
                );
            }
            labels.insert(name.clone(), value.value.clone());
            if labels.len() == LABELS_MAX + 1 {
                self.problem(
                    &origin,
                    format!("`tunnel.labels` has more than {LABELS_MAX} labels"),
                );
            }
        }
        labels
    }

    pub(super) fn limits(&mut self, section: &LimitsSection) -> Limits {
        let mut limits = Limits::default();
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        if let Some(value) = &section.idle_timeout_ms {
            let bound = self.bounded("limits.idle_timeout_ms", value, 100, WEEK_MS);
            limits.idle_timeout = Some(Duration::from_millis(bound));
        }
        if let Some(value) = &section.stall_timeout_ms {
            let bound = self.bounded("limits.stall_timeout_ms", value, 100, WEEK_MS);
            limits.stall_timeout = Duration::from_millis(bound);
        }
        if let Some(value) = &section.connect_timeout_ms {
            limits.connect_timeout =
                Duration::from_millis(self.bounded("limits.connect_timeout_ms", value, 1, 120_000));
        }
        if let Some(value) = &section.queue_depth_per_cid {
            limits.queue_depth_per_cid =
                small(self.bounded("limits.queue_depth_per_cid", value, 1, 10_000));
        }
        if let Some(value) = &section.max_inflight_cids {
            limits.max_inflight_cids =
                small(self.bounded("limits.max_inflight_cids", value, 1, 1_000_000));
        }
        if let Some(value) = &section.shutdown_timeout_sec {
            limits.shutdown_timeout =
                Duration::from_secs(self.bounded("limits.shutdown_timeout_sec", value, 0, 3_600));
        }
        limits
    }

    pub(super) fn health(&mut self, section: &ObservabilitySection) -> Option<SocketAddr> {
        let port = match self.first_variable(&["NC_HEALTH_PORT"]) {
            Some(found) => match found.value.trim().parse::<u16>() {
                Ok(port) => u64::from(port),
                Err(_) => {
                    let message = format!("`{}` must be a port number, or 0 for none", found.value);
                    self.problem(&found.origin, message);
                    return None;
                }
            },
            None => section.health_port.as_ref().map_or(HEALTH_PORT, |value| {
                self.bounded("observability.health_port", value, 0, 65_535)
            }),
        };
        let host = self.optional(
            "observability.health_host",
            Some("NC_HEALTH_HOST"),
            section.health_host.as_ref(),
            |text| match text {
                "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
                _ => text.parse().map_err(|_| {
                    format!("`{text}` must be an IP address, such as `{HEALTH_HOST}`")
                }),
            },
        );
        let host = host.unwrap_or(HEALTH_HOST);
        match u16::try_from(port) {
            Ok(0) | Err(_) => None,
            Ok(port) => Some(SocketAddr::new(host, port)),
        }
    }

    pub(super) fn observability(&mut self, section: &ObservabilitySection) -> Observability {
        let log_level = self.optional(
            "observability.log_level",
            Some("NC_LOG_LEVEL"),
            section.log_level.as_ref(),
            |text| match text.to_ascii_lowercase().as_str() {
                "error" => Ok(LogLevel::Error),
                "warn" | "warning" => Ok(LogLevel::Warn),
                "info" => Ok(LogLevel::Info),
                "debug" => Ok(LogLevel::Debug),
                "trace" => Ok(LogLevel::Trace),
                _ => Err(format!(
                    "`{text}` must be `error`, `warn`, `info`, `debug` or `trace`"
                )),
            },
        );
        let log_format = self.optional(
            "observability.log_format",
            Some("NC_LOG_FORMAT"),
            section.log_format.as_ref(),
            |text| match text.to_ascii_lowercase().as_str() {
                "plain" => Ok(LogFormat::Plain),
                "json" => Ok(LogFormat::Json),
                _ => Err(format!("`{text}` must be `plain` or `json`")),
            },
        );
        let otlp_endpoint = self.optional(
            "observability.otlp_endpoint",
            Some("OTEL_EXPORTER_OTLP_ENDPOINT"),
            section.otlp_endpoint.as_ref(),
            |text| {
                if text.starts_with("http://") || text.starts_with("https://") {
                    Ok(text.trim_end_matches('/').to_owned())
                } else {
                    Err(format!("`{text}` must start with `http://` or `https://`"))
                }
            },
        );
        Observability {
            log_level: log_level.unwrap_or_default(),
            log_format: log_format.unwrap_or_default(),
            otlp_endpoint,
        }
    }
}
