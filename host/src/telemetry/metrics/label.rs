//! Bounds on label values.
//!
//! A label value that a peer or a policy author can choose is a way to fill the hub's memory and
//! the operator's time-series store. Every such label has a cap; what comes after the cap is
//! counted under [`OTHER`].

use std::sync::Arc;

use parking_lot::RwLock;
use rustc_hash::{FxHashMap, FxHashSet};

/// The value that stands for everything beyond a label's cap.
pub const OTHER: &str = "other";

/// Longest label value in bytes. Agent ids, the longest of our names, end at 128 and carry a
/// tenant of at most 64 and a slash.
pub const MAX_LABEL_BYTES: usize = 193;

/// Distinct values kept for a label whose values come from code (reset codes, reasons, results).
/// The largest registry of codes has about 30 entries.
pub const MAX_CODES: usize = 64;

/// Distinct connectors with a series of their own. Each costs about 10 series and two
/// histograms, some 6 KiB, so at most 6 MiB.
pub const MAX_CONNECTORS: usize = 1024;

/// Distinct agents with a series of their own. Each costs about 1 KiB, so at most 4 MiB.
pub const MAX_AGENTS: usize = 4096;

/// Distinct certificates with a series of their own, some 200 bytes each.
pub const MAX_CERTIFICATES: usize = 512;

/// Distinct hubs with a series of their own. A hub dials 256 at most, and as many may dial it.
pub const MAX_HUBS: usize = 512;

/// Distinct plugins with a series of their own; a set of plugins is smaller by far, the rest
/// is room for names that come and go with generations.
pub const MAX_PLUGINS: usize = 64;

/// Distinct policy ids on decisions. With 9 actions, 2 results and 8 kinds a policy shows in a
/// handful of combinations, so about 256 × 4 series.
pub const MAX_POLICIES: usize = 256;

/// A set of admitted values for one label.
#[derive(Debug)]
pub struct LabelCap {
    cap: usize,
    seen: RwLock<FxHashSet<Box<str>>>,
}

impl LabelCap {
    /// An empty set that admits at most `cap` values.
    pub fn new(cap: usize) -> Self {
        Self {
            cap,
            seen: RwLock::default(),
        }
    }

    /// `value` itself while there is room or it was admitted before, else [`OTHER`].
    pub fn admit<'v>(&self, value: &'v str) -> &'v str {
        if value.len() > MAX_LABEL_BYTES {
            return OTHER;
        }
        if self.seen.read().contains(value) {
            return value;
        }
        let mut seen = self.seen.write();
        if seen.len() >= self.cap && !seen.contains(value) {
            return OTHER;
        }
        seen.insert(value.into());
        value
    }
}

/// Children resolved once per label value, with one shared child for what exceeds the cap.
#[derive(Debug)]
pub(super) struct CappedChildren<T> {
    cap: usize,
    children: RwLock<FxHashMap<Arc<str>, Arc<T>>>,
    other: RwLock<Option<Arc<T>>>,
}

impl<T> CappedChildren<T> {
    pub(super) fn new(cap: usize) -> Self {
        Self {
            cap,
            children: RwLock::default(),
            other: RwLock::default(),
        }
    }

    /// The child for `name`, made by `make` at its first use.
    pub(super) fn child(&self, name: &str, make: impl Fn(&str) -> T) -> Arc<T> {
        if let Some(child) = self.children.read().get(name) {
            return Arc::clone(child);
        }
        let mut children = self.children.write();
        if let Some(child) = children.get(name) {
            return Arc::clone(child);
        }
        if children.len() >= self.cap || name.len() > MAX_LABEL_BYTES || name == OTHER {
            let mut other = self.other.write();
            let child = other.get_or_insert_with(|| Arc::new(make(OTHER)));
            return Arc::clone(child);
        }
        let child = Arc::new(make(name));
        children.insert(name.into(), Arc::clone(&child));
        child
    }

    /// Frees the place of `name`; `true` if it had one.
    pub(super) fn forget(&self, name: &str) -> bool {
        self.children.write().remove(name).is_some()
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(&T)) {
        for child in self.children.read().values() {
            visit(child);
        }
        if let Some(other) = self.other.read().as_ref() {
            visit(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_cap_are_counted_together() {
        let labels = LabelCap::new(2);
        assert_eq!(labels.admit("a"), "a");
        assert_eq!(labels.admit("b"), "b");
        assert_eq!(labels.admit("c"), OTHER);
        assert_eq!(labels.admit("a"), "a");
    }

    #[test]
    fn an_overlong_value_takes_no_place() {
        let labels = LabelCap::new(1);
        let long = "x".repeat(MAX_LABEL_BYTES + 1);
        assert_eq!(labels.admit(&long), OTHER);
        assert_eq!(labels.admit("a"), "a");
    }

    #[test]
    fn a_forgotten_child_frees_its_place() {
        let children = CappedChildren::new(1);
        let first = children.child("a", str::to_owned);
        assert_eq!(*first, "a");
        assert_eq!(*children.child("b", str::to_owned), OTHER);
        assert!(children.forget("a"));
        assert_eq!(*children.child("b", str::to_owned), "b");
    }
}
