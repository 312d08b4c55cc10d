//! Metrics of the certificates of the HTTP ports.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::label::{LabelCap, MAX_CERTIFICATES, MAX_CODES, MAX_LABEL_BYTES, OTHER};
use super::registrar::Registrar;

/// Families of certificates.
#[derive(Debug)]
pub struct CertificateMetrics {
    ends: IntGaugeVec,
    missing: IntGauge,
    ending: IntGauge,
    failing: IntGauge,
    orders: IntCounterVec,
    codes: LabelCap,
    /// Name and source of what was set last.
    shown: Mutex<BTreeSet<(String, &'static str)>>,
}

impl CertificateMetrics {
    pub(super) fn new(families: &mut Registrar<'_>) -> Self {
        Self {
            ends: families.gauges(
                "nowconnect_http_certificate_not_after_seconds",
                &["name", "source"],
                "When a certificate of the HTTP ports ends, seconds since 1970, by its first name; beyond 512 names the first that does.",
            ),
            missing: families.gauge(
                "nowconnect_http_certificates_missing",
                "Names that certificates are issued for and that have none yet.",
            ),
            ending: families.gauge(
                "nowconnect_certificates_ending",
                "Certificates of the ports for viewers, agents and operators that end so soon that their renewal should have happened.",
            ),
            failing: families.gauge(
                "nowconnect_http_certificates_failing",
                "Names that certificates are issued for and whose last order failed.",
            ),
            orders: families.counters(
                "nowconnect_certificate_orders_total",
                &["result"],
                "Orders at the certificate authority, by result: issued, renewed, or the code of the failure.",
            ),
            codes: LabelCap::new(MAX_CODES),
            shown: Mutex::default(),
        }
    }

    /// Counts an order: `issued`, `renewed` or a code.
    pub fn ordered(&self, result: &str) {
        let label = self.codes.admit(result);
        self.orders.with_label_values(&[label]).inc();
    }

    /// Sets how many certificates end soon, and how many names' orders fail.
    pub(crate) fn troubled(&self, ending: usize, failing: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.ending.set(number(ending));
        self.failing.set(number(failing));
    }

    /// Sets every certificate: its first name, its source, and when it ends, seconds since 1970;
    /// `None` where it is still to come. Those that are not among them leave.
    pub fn set<'a>(&self, all: impl Iterator<Item = (&'a str, &'static str, Option<i64>)>) {
        let mut missing = 0;
        let mut ends: BTreeMap<(String, &'static str), i64> = BTreeMap::new();
        for (name, source, not_after) in all {
            let Some(not_after) = not_after else {
                missing += 1;
                continue;
            };
            let key = match ends.len() < MAX_CERTIFICATES && name.len() <= MAX_LABEL_BYTES {
                true => (name.to_owned(), source),
                false => (OTHER.to_owned(), OTHER),
            };
            let end = ends.entry(key).or_insert(not_after);
            *end = not_after.min(*end);
        }
        self.missing.set(missing);
        let mut shown = self.shown.lock();
        for (name, source) in shown.iter().filter(|key| !ends.contains_key(*key)) {
            // It is there: it was set.
            drop(self.ends.remove_label_values(&[name.as_str(), source]));
        }
        for ((name, source), end) in &ends {
            self.ends
                .with_label_values(&[name.as_str(), source])
                .set(*end);
        }
        *shown = ends.into_keys().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;

    #[test]
    fn a_certificate_that_is_no_more_leaves_and_many_share_a_series() {
        let metrics = Metrics::new();
        let certificates = &metrics.certificates;
        certificates.set([("a", "file", Some(5)), ("b", "acme", None)].into_iter());
        let page = metrics.render();
        assert!(
            page.contains("after_seconds{name=\"a\",source=\"file\"} 5"),
            "{page}"
        );
        assert!(
            page.contains("nowconnect_http_certificates_missing 1"),
            "{page}"
        );
        let names: Vec<String> = (0..600).map(|number| format!("n{number:03}")).collect();
        let many = names.iter().zip(1000..);
        certificates.set(many.map(|(name, end)| (name.as_str(), "acme", Some(end))));
        let page = metrics.render();
        assert!(!page.contains("name=\"a\""), "{page}");
        assert!(
            page.contains("{name=\"n000\",source=\"acme\"} 1000"),
            "{page}"
        );
        assert!(
            page.contains("{name=\"other\",source=\"other\"} 1512"),
            "{page}"
        );
        assert!(
            page.contains("nowconnect_http_certificates_missing 0"),
            "{page}"
        );
    }
}
