//! Tables and numbers for a terminal.

use crate::telemetry::redact::push_escaped;

/// On which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Align {
    Left,
    Right,
}

/// Rows under headings, columns as wide as their widest cell.
#[derive(Debug)]
pub(in super::super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(in super::super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(in super::super) fn row(&mut self, cells: Vec<String>) {
        self.rows
            .push(cells.iter().map(|cell| clean_line(cell)).collect());
    }

    /// A line for the headings and one for each row; `(none)` where there is none.
    pub(in super::super) fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| {
                let cells = self.rows.iter().filter_map(|row| row.get(at));
                let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
                widest.max(self.columns[at].0.len())
            })
            .collect();
        let mut text = String::new();
        let headings: Vec<String> = self
            .columns
            .iter()
            .map(|(name, _)| (*name).into())
            .collect();
        self.push_line(&mut text, &headings, &widths);
        for row in &self.rows {
            self.push_line(&mut text, row, &widths);
        }
        if self.rows.is_empty() {
            text.push_str("(none)\n");
        }
        text
    }

    fn push_line(&self, text: &mut String, cells: &[String], widths: &[usize]) {
        let mut line = String::new();
        for ((cell, width), (_, align)) in cells.iter().zip(widths).zip(&self.columns) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            if !line.is_empty() {
                line.push_str("  ");
            }
            match align {
                Align::Left => {
                    line.push_str(cell);
                    line.push_str(&padding);
                }
                Align::Right => {
                    line.push_str(&padding);
                    line.push_str(cell);
                }
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// Text without what a terminal would take for a command; names come from agents.
pub(in super::super) fn clean_line(text: &str) -> String {
    let (line, end) = match text.strip_suffix('\n') {
        Some(line) => (line, "\n"),
        None => (text, ""),
    };
    let mut clean = String::with_capacity(text.len());
    push_escaped(&mut clean, line);
    clean.push_str(end);
    clean
}

/// Bytes in the decimal unit that leaves at most three digits before the point.
pub(in super::super) fn bytes(count: u64) -> String {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a size for reading needs no more than three digits"
    )]
    let value = count as f64;
    scaled(value, "B")
}

/// Bytes per second.
pub(in super::super) fn rate(bytes_per_second: f64) -> String {
    scaled(bytes_per_second, "B/s")
}

fn scaled(mut value: f64, unit: &str) -> String {
    for prefix in ["", "k", "M", "G", "T"] {
        if value < 999.5 {
            let digits = usize::from(!prefix.is_empty() && value < 99.95);
            return format!("{value:.digits$} {prefix}{unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.0} P{unit}")
}

/// The two largest units of a time.
pub(in super::super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// Time until an expiry.
pub(in super::super) fn expiry(seconds: i64) -> String {
    u64::try_from(seconds).map_or_else(|_| String::from("expired"), duration)
}

/// Microseconds as milliseconds.
pub(in super::super) fn micros(microseconds: u64) -> String {
    format!("{}.{} ms", microseconds / 1000, microseconds / 100 % 10)
}
