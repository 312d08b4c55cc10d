//! Registration of metric families, and the catalogue that the documentation is made from.
//!
//! A family without children does not show in a scrape, so the registry itself cannot say which
//! names exist. The registrar writes each family down as it registers it.

use std::fmt::Write as _;

use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};

/// What a family measures in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyKind {
    /// Only goes up, from 0 at start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, a sum and a count.
    Histogram,
}

impl FamilyKind {
    /// The word that the exposition format uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric name with what may stand on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// The full name, with the prefix `nowconnect_` or `process_`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: FamilyKind,
    /// Label names in order; empty for a family of one child.
    pub labels: &'static [&'static str],
    /// The help text of the scrape, one sentence.
    pub help: &'static str,
}

/// The catalogue as a Markdown table, sorted by name.
pub fn markdown_table(families: &[Family]) -> String {
    let mut sorted: Vec<&Family> = families.iter().collect();
    sorted.sort_by_key(|family| family.name);
    let mut text = String::from("| name | kind | labels | meaning |\n|---|---|---|---|\n");
    for family in sorted {
        let labels = family
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect::<Vec<_>>()
            .join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {labels} | {} |",
            family.name,
            family.kind.as_str(),
            family.help.replace('|', "\\|")
        );
    }
    text
}

/// Registers families and remembers them.
pub(super) struct Registrar<'r> {
    registry: &'r Registry,
    families: Vec<Family>,
}

impl<'r> Registrar<'r> {
    pub(super) fn new(registry: &'r Registry) -> Self {
        Self {
            registry,
            families: Vec::new(),
        }
    }

    pub(super) fn into_families(self) -> Vec<Family> {
        self.families
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> IntCounter {
        let made = IntCounter::new(name, help).expect(CONSTANT);
        self.keep(name, FamilyKind::Counter, &[], help, made)
    }

    pub(super) fn counters(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> IntCounterVec {
        let made = IntCounterVec::new(Opts::new(name, help), labels).expect(CONSTANT);
        self.keep(name, FamilyKind::Counter, labels, help, made)
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str) -> IntGauge {
        let made = IntGauge::new(name, help).expect(CONSTANT);
        self.keep(name, FamilyKind::Gauge, &[], help, made)
    }

    pub(super) fn gauges(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> IntGaugeVec {
        let made = IntGaugeVec::new(Opts::new(name, help), labels).expect(CONSTANT);
        self.keep(name, FamilyKind::Gauge, labels, help, made)
    }

    pub(super) fn float_counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        let made = Counter::new(name, help).expect(CONSTANT);
        self.keep(name, FamilyKind::Counter, &[], help, made)
    }

    pub(super) fn float_gauge(&mut self, name: &'static str, help: &'static str) -> Gauge {
        let made = Gauge::new(name, help).expect(CONSTANT);
        self.keep(name, FamilyKind::Gauge, &[], help, made)
    }

    pub(super) fn float_gauges(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> GaugeVec {
        let made = GaugeVec::new(Opts::new(name, help), labels).expect(CONSTANT);
        self.keep(name, FamilyKind::Gauge, labels, help, made)
    }

    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        buckets: &[f64],
        help: &'static str,
    ) -> Histogram {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let made = Histogram::with_opts(opts).expect(CONSTANT);
        self.keep(name, FamilyKind::Histogram, &[], help, made)
    }

    pub(super) fn histograms(
        &mut self,
        name: &'static str,
        labels: &'static [&'static str],
        buckets: &[f64],
        help: &'static str,
    ) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let made = HistogramVec::new(opts, labels).expect(CONSTANT);
        self.keep(name, FamilyKind::Histogram, labels, help, made)
    }

    fn keep<C: Collector + Clone + 'static>(
        &mut self,
        name: &'static str,
        kind: FamilyKind,
        labels: &'static [&'static str],
        help: &'static str,
        made: C,
    ) -> C {
        self.registry
            .register(Box::new(made.clone()))
            .expect(CONSTANT);
        self.families.push(Family {
            name,
            kind,
            labels,
            help,
        });
        made
    }
}

const CONSTANT: &str = "metric names and labels are constants, each valid and registered once";
