//! What was found on the way.

use std::time::Duration;

use serde::Serialize;

/// The hops that were tried, in order.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    ok: bool,
    hops: Vec<Hop>,
    #[serde(skip)]
    any_failed: bool,
}

#[derive(Debug, Serialize)]
struct Hop {
    hop: String,
    status: Status,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    Failed,
    Skipped,
}

impl Report {
    pub(super) fn ok(&mut self, hop: &str, detail: impl Into<String>) {
        self.push(hop, Status::Ok, detail.into(), None);
    }

    pub(super) fn failed(
        &mut self,
        hop: &str,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.any_failed = true;
        self.push(hop, Status::Failed, detail.into(), Some(advice.into()));
    }

    pub(super) fn skipped(&mut self, hop: &str, why: impl Into<String>) {
        self.push(hop, Status::Skipped, why.into(), None);
    }

    /// A remark on the last hop.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        if let Some(hop) = self.hops.last_mut() {
            hop.notes.push(text.into());
        }
    }

    /// How long the last hop took.
    pub(super) fn took(&mut self, duration: Duration) {
        if let Some(hop) = self.hops.last_mut() {
            hop.took_ms = Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        }
    }

    pub(super) fn is_ok(&self) -> bool {
        !self.any_failed
    }

    fn push(&mut self, hop: &str, status: Status, detail: String, advice: Option<String>) {
        self.hops.push(Hop {
            hop: hop.to_owned(),
            status,
            detail,
            notes: Vec::new(),
            advice,
            took_ms: None,
        });
        self.ok = !self.any_failed;
    }

    pub(super) fn to_text(&self) -> String {
        let width = self
            .hops
            .iter()
            .map(|hop| hop.hop.len())
            .max()
            .unwrap_or_default();
        let mut lines = Vec::new();
        for hop in &self.hops {
            let status = match hop.status {
                Status::Ok => "ok",
                Status::Failed => "FAILED",
                Status::Skipped => "skipped",
            };
            let took = hop
                .took_ms
                .map_or_else(String::new, |took_ms| format!("  ({took_ms} ms)"));
            lines.push(format!(
                "{status:<8} {:<width$}  {}{took}",
                hop.hop, hop.detail
            ));
            let indent = " ".repeat(width + 11);
            lines.extend(hop.notes.iter().map(|note| format!("{indent}{note}")));
            lines.extend(
                hop.advice
                    .iter()
                    .map(|advice| format!("{indent}try: {advice}")),
            );
        }
        lines.push(if self.is_ok() {
            "every hop is ok".to_owned()
        } else {
            let failed = self
                .hops
                .iter()
                .filter(|hop| hop.status == Status::Failed)
                .count();
            format!("{failed} of {} hops failed", self.hops.len())
        });
        lines.join("\n")
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|_| "{}".to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn text_and_json_tell_the_same() {
        let mut report = Report::default();
        report.ok("tcp", "connected to 192.0.2.1:443");
        report.took(Duration::from_millis(12));
        report.failed("tls", "certificate has expired", "renew it");
        report.note("subject CN=hub");
        report.skipped("hello", "no tunnel");
        assert_eq!(
            report.to_text(),
            "ok       tcp    connected to 192.0.2.1:443  (12 ms)\n\
             FAILED   tls    certificate has expired\n                \
             subject CN=hub\n                try: renew it\n\
             skipped  hello  no tunnel\n1 of 3 hops failed"
        );
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["hops"][0]["status"], "ok");
        assert_eq!(json["hops"][0]["took_ms"], 12);
        assert_eq!(json["hops"][1]["advice"], "renew it");
    }
}
