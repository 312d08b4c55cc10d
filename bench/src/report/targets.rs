//! The figures to reach, as data: a row per line of the table in the definition of done.

use std::collections::BTreeMap;

use super::{TargetOutcome, Value, number};
use crate::figures::Figures;

/// What a figure is compared by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    /// At least this many times two chained plain HAProxies.
    TimesHaproxyAtLeast(f64),
    /// At most this many times two chained plain HAProxies.
    TimesHaproxyAtMost(f64),
    /// At least this many times plain TCP over the same path.
    TimesDirectAtLeast(f64),
    AtMost(f64, &'static str),
    /// At most this, of a figure that is the product's alone.
    ProductAtMost(f64, &'static str),
    /// At least this, of a figure that is the product's alone.
    ProductAtLeast(f64, &'static str),
}

/// One condition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) title: &'static str,
    pub(super) figure: &'static str,
    pub(super) bound: Bound,
    /// Figures that show where the time or memory goes, told where the target is missed.
    pub(super) parts: &'static [&'static str],
}

use Bound::{
    AtMost, ProductAtLeast, ProductAtMost, TimesDirectAtLeast, TimesHaproxyAtLeast,
    TimesHaproxyAtMost,
};

const fn target(title: &'static str, figure: &'static str, bound: Bound) -> Target {
    Target {
        title,
        figure,
        bound,
        parts: &[],
    }
}

/// "No change" beside stalled flows: what two runs on a quiet machine differ by.
const NO_CHANGE: f64 = 1.15;

/// "Flat": what the allocator's habits move a process of 100 MB by.
const FLAT_PERCENT: f64 = 5.0;

/// "Flat" for a long transfer: what the windows of one flow may hold at most.
const FLAT_MB: f64 = 64.0;

pub(super) const TARGETS: [Target; 63] = [
    target("bulk, 1 flow down", "down1.mb_s", TimesHaproxyAtLeast(1.0)),
    target("bulk, 1 flow up", "up1.mb_s", TimesHaproxyAtLeast(1.0)),
    target(
        "bulk, 1 flow down, CPU",
        "down1.cpu_s_gb",
        AtMost(0.80, "s/GB"),
    ),
    target("bulk, 1 flow up, CPU", "up1.cpu_s_gb", AtMost(0.80, "s/GB")),
    target(
        "bulk, 16 flows down",
        "down16.mb_s",
        TimesHaproxyAtLeast(1.05),
    ),
    target("bulk, 16 flows up", "up16.mb_s", TimesHaproxyAtLeast(1.05)),
    target(
        "bulk, 16 flows both ways",
        "both16.mb_s",
        TimesHaproxyAtLeast(1.05),
    ),
    target(
        "bulk, 64 flows down",
        "down64.mb_s",
        TimesHaproxyAtLeast(1.05),
    ),
    target("bulk, 64 flows up", "up64.mb_s", TimesHaproxyAtLeast(1.05)),
    target(
        "bulk, 64 flows both ways",
        "both64.mb_s",
        TimesHaproxyAtLeast(1.05),
    ),
    target(
        "bulk, 16 flows down, CPU",
        "down16.cpu_s_gb",
        AtMost(0.90, "s/GB"),
    ),
    target(
        "bulk, 16 flows up, CPU",
        "up16.cpu_s_gb",
        AtMost(0.90, "s/GB"),
    ),
    target(
        "bulk, 16 flows both ways, CPU",
        "both16.cpu_s_gb",
        AtMost(0.90, "s/GB"),
    ),
    target(
        "bulk, 64 flows down, CPU",
        "down64.cpu_s_gb",
        AtMost(0.90, "s/GB"),
    ),
    target(
        "bulk, 64 flows up, CPU",
        "up64.cpu_s_gb",
        AtMost(0.90, "s/GB"),
    ),
    target(
        "bulk, 64 flows both ways, CPU",
        "both64.cpu_s_gb",
        AtMost(0.95, "s/GB"),
    ),
    target(
        "new flows per second, 16 at a time",
        "conn16.per_s",
        TimesHaproxyAtLeast(1.2),
    ),
    target("new flows, CPU each", "conn16.cpu_us", AtMost(120.0, "µs")),
    target("new flows, errors", "conn16.errors", AtMost(0.0, "")),
    target(
        "open p50, one at a time",
        "open.p50_us",
        TimesHaproxyAtMost(1.0),
    ),
    target(
        "round trip p50, 1 flow",
        "ping1.p50_us",
        TimesHaproxyAtMost(1.0),
    ),
    target(
        "round trips per second, 256 flows",
        "ping256.per_s",
        TimesHaproxyAtLeast(1.3),
    ),
    target(
        "round trips, 256 flows, CPU each",
        "ping256.cpu_us",
        AtMost(14.0, "µs"),
    ),
    target(
        "small flow beside bulk down, p50",
        "beside_down.p50_us",
        TimesHaproxyAtMost(2.3),
    ),
    target(
        "small flow beside bulk up, p50",
        "beside_up.p50_us",
        TimesHaproxyAtMost(2.3),
    ),
    target(
        "small flow beside bulk down, p99",
        "beside_down.p99_us",
        AtMost(2000.0, "µs"),
    ),
    target(
        "small flow beside bulk up, p99",
        "beside_up.p99_us",
        AtMost(2000.0, "µs"),
    ),
    target(
        "new flow beside bulk down, p50",
        "beside_down.fresh_p50_us",
        AtMost(800.0, "µs"),
    ),
    target(
        "new flow beside bulk up, p50",
        "beside_up.fresh_p50_us",
        AtMost(800.0, "µs"),
    ),
    target(
        "beside 64 stalled flows, p50 changes by",
        "beside_stalled.p50_change",
        AtMost(NO_CHANGE, "×"),
    ),
    target(
        "new flow beside 64 stalled, p50 changes by",
        "beside_stalled.fresh_p50_change",
        AtMost(NO_CHANGE, "×"),
    ),
    target(
        "1 flow down over 50 ms",
        "far50.down_mb_s",
        TimesDirectAtLeast(0.9),
    ),
    target(
        "1 flow up over 50 ms",
        "far50.up_mb_s",
        TimesDirectAtLeast(0.9),
    ),
    target(
        "1 flow down over 100 ms",
        "far100.down_mb_s",
        TimesDirectAtLeast(0.9),
    ),
    target(
        "1 flow up over 100 ms",
        "far100.up_mb_s",
        TimesDirectAtLeast(0.9),
    ),
    target(
        "1 flow down over 200 ms",
        "far200.down_mb_s",
        TimesDirectAtLeast(0.9),
    ),
    target(
        "1 flow up over 200 ms",
        "far200.up_mb_s",
        TimesDirectAtLeast(0.9),
    ),
    target(
        "memory per idle flow, 1,000 open",
        "idle1000.kb",
        AtMost(6.0, "KB"),
    ),
    target(
        "memory per idle flow, 9,000 open",
        "idle9000.kb",
        AtMost(6.0, "KB"),
    ),
    target(
        "time to open 9,000 flows",
        "idle9000.open_s",
        AtMost(1.5, "s"),
    ),
    target(
        "memory per stalled flow",
        "stalled64.kb",
        AtMost(320.0, "KB"),
    ),
    target(
        "1,000 policies and 4 plugins at OPEN, p50 over none",
        "open_cost.p1000_w4_added_us",
        ProductAtMost(80.0, "µs"),
    ),
    target(
        "errors while generations swap under load",
        "swap.errors",
        ProductAtMost(0.0, ""),
    ),
    target(
        "decision, 1,000 policies, warm p50",
        "decide.p1000_warm_p50_us",
        ProductAtMost(20.0, "µs"),
    )
    .made_of(&["decide.p0_warm_p50_us", "decide.p100_warm_p50_us"]),
    target(
        "decision, 1,000 policies, cold p50",
        "decide.p1000_cold_p50_us",
        ProductAtMost(60.0, "µs"),
    )
    .made_of(&["decide.p0_cold_p50_us", "decide.p1000_warm_p50_us"]),
    target(
        "a Rust plugin's call in a fresh instance, p50",
        "plugin_call.rust_1_p50_us",
        ProductAtMost(10.0, "µs"),
    )
    .made_of(&[
        "plugin_call.rust_0_p50_us",
        "plugin_call.rust_1_instance_p50_us",
        "plugin_call.rust_kept_1_p50_us",
    ]),
    target(
        "generation swapped under 1,000 flows/s, errors",
        "generation_swap.errors",
        ProductAtMost(0.0, ""),
    ),
    target(
        "decisions under a mixed generation",
        "generation_swap.mixed",
        ProductAtMost(0.0, ""),
    ),
    target(
        "flows without a record of their generation",
        "generation_swap.unrecorded",
        ProductAtMost(0.0, ""),
    ),
    target(
        "swap visible to new flows, slowest",
        "generation_swap.visible_max_ms",
        ProductAtMost(100.0, "ms"),
    )
    .made_of(&[
        "generation_swap.visible_p50_ms",
        "generation_swap.answered_p50_ms",
        "generation_swap.answered_max_ms",
    ]),
    target(
        "p99 of OPEN during a swap over normal",
        "generation_swap.p99_ratio",
        ProductAtMost(2.0, "×"),
    )
    .made_of(&[
        "generation_swap.normal_p99_us",
        "generation_swap.during_p50_us",
        "generation_swap.during_p99_us",
        "generation_swap.answered_p50_ms",
    ]),
    target(
        "memory after all swaps over after a tenth of them",
        "swap_memory.growth_percent",
        ProductAtMost(FLAT_PERCENT, "%"),
    )
    .made_of(&[
        "swap_memory.start_mb",
        "swap_memory.middle_mb",
        "swap_memory.end_mb",
    ]),
    target(
        "LDAP workload, added p95",
        "ldap.added_p95_ms",
        ProductAtMost(1.0, "ms"),
    ),
    target(
        "LDAP workload, errors",
        "ldap.errors",
        ProductAtMost(0.0, ""),
    ),
    target(
        "LDAP workload, p99",
        "ldap.tunnel_p99_ms",
        ProductAtMost(200.0, "ms"),
    ),
    target(
        "HTTP, 64 connections, 1 KB, of one hop of HAProxy",
        "http.1k_c64.hub_w0_to_haproxy",
        ProductAtLeast(0.45, "×"),
    )
    .made_of(&[
        "http.1k_c64.haproxy_cpu_us",
        "http.1k_c64.nginx_cpu_us",
        "http.1k_c64.hub_w0_cpu_us",
    ]),
    target(
        "the same with header-inject",
        "http.1k_c64.hub_w1_to_haproxy",
        ProductAtLeast(0.30, "×"),
    )
    .made_of(&["http.1k_c64.hub_w0_cpu_us", "http.1k_c64.hub_w1_cpu_us"]),
    target(
        "HTTP, 1 connection, 1 KB, added p50",
        "http.1k_c1.hub_w0_added_p50_us",
        ProductAtMost(500.0, "µs"),
    ),
    target(
        "HTTP, 64 connections, 1 KB, errors",
        "http.1k_c64.hub_w0_errors",
        ProductAtMost(0.0, ""),
    ),
    target(
        "HTTP/2, 64 connections, 1 KB, errors",
        "http2.1k_c64.hub_w0_errors",
        ProductAtMost(0.0, ""),
    ),
    target(
        "memory grown by a download",
        "http_large.down_rss_grown_mb",
        ProductAtMost(FLAT_MB, "MB"),
    ),
    target(
        "memory grown by an upload",
        "http_large.up_rss_grown_mb",
        ProductAtMost(FLAT_MB, "MB"),
    ),
    target(
        "WebSockets open at once",
        "http_sockets.open",
        ProductAtLeast(1_000.0, ""),
    ),
];

impl Target {
    const fn made_of(self, parts: &'static [&'static str]) -> Self {
        Self { parts, ..self }
    }

    /// Where the time or memory of a missed target goes; `None` where nothing is known of it.
    pub(super) fn account(self, product: &Figures) -> Option<String> {
        let own = product.get(self.figure)?;
        let parts: Vec<String> = self
            .parts
            .iter()
            .filter_map(|part| Some(format!("{part} {}", number(*product.get(*part)?))))
            .collect();
        (!parts.is_empty()).then(|| {
            let (title, figure) = (self.title, self.figure);
            format!("{title}: {figure} {}; {}", number(*own), parts.join(", "))
        })
    }

    /// Compares what was seen with the bound.
    pub(super) fn judge(
        self,
        own: Option<&BTreeMap<String, Value>>,
        product: &Figures,
    ) -> TargetOutcome {
        let value = own.and_then(|own| own.get(self.figure));
        let alone = product.get(self.figure).copied();
        let (to_reach, seen, met) = match self.bound {
            TimesHaproxyAtLeast(least) => (
                format!("≥ {least} × two HAProxies"),
                value.and_then(|value| value.to_haproxy2),
                value
                    .and_then(|value| value.to_haproxy2)
                    .map(|seen| seen >= least),
            ),
            TimesHaproxyAtMost(most) => (
                format!("≤ {most} × two HAProxies"),
                value.and_then(|value| value.to_haproxy2),
                value
                    .and_then(|value| value.to_haproxy2)
                    .map(|seen| seen <= most),
            ),
            TimesDirectAtLeast(least) => (
                format!("≥ {least} × plain TCP"),
                value.and_then(|value| value.to_direct),
                value
                    .and_then(|value| value.to_direct)
                    .map(|seen| seen >= least),
            ),
            AtMost(most, unit) => (
                format!("≤ {most} {unit}"),
                value.map(|value| value.median),
                value.map(|value| value.median <= most),
            ),
            ProductAtMost(most, unit) => (
                format!("≤ {most} {unit}"),
                alone,
                alone.map(|seen| seen <= most),
            ),
            ProductAtLeast(least, unit) => (
                format!("≥ {least} {unit}"),
                alone,
                alone.map(|seen| seen >= least),
            ),
        };
        TargetOutcome {
            figure: self.title.to_owned(),
            to_reach: to_reach.trim_end().to_owned(),
            seen: seen.map_or("-".to_owned(), number),
            met,
        }
    }
}
