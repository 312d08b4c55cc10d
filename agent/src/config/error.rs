//! Problems in the configuration, each with the place to mend it.

use std::fmt;

/// Why a configuration was refused: every problem that was found, in file order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.joined())]
pub struct ConfigError {
    problems: Vec<ConfigProblem>,
}

/// One problem and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The file's path, or the environment variable's name.
    pub source: String,
    /// Line and column, both from 1, where the source is a file and the place is known.
    pub position: Option<(u64, u64)>,
    /// What is wrong and the way out.
    pub message: String,
}

impl ConfigError {
    pub(crate) fn one(problem: ConfigProblem) -> Self {
        Self {
            problems: vec![problem],
        }
    }

    pub(crate) fn many(problems: Vec<ConfigProblem>) -> Self {
        Self { problems }
    }

    /// The problems, at least one.
    #[must_use]
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.problems
    }

    fn joined(&self) -> String {
        let lines: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }
}

impl ConfigProblem {
    pub(crate) fn whole_file(label: &str, message: impl Into<String>) -> Self {
        Self {
            source: label.to_owned(),
            position: None,
            message: message.into(),
        }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some((line, column)) => {
                write!(
                    formatter,
                    "{}:{line}:{column}: {}",
                    self.source, self.message
                )
            }
            None => write!(formatter, "{}: {}", self.source, self.message),
        }
    }
}

/// The known key that is nearest to `given`, unless all are far from it.
pub(crate) fn nearest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(given, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= (given.len().max(candidate.len()) / 2).max(2))
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().flat_map(char::to_lowercase).collect();
    let right: Vec<char> = right.chars().flat_map(char::to_lowercase).collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, left_char) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, right_char) in right.iter().enumerate() {
            let replace = last[column] + usize::from(left_char != right_char);
            let mut best = replace.min(last[column + 1] + 1).min(current[column] + 1);
            let swapped = row > 0
                && column > 0
                && *left_char == right[column - 1]
                && left[row - 1] == *right_char;
            if swapped {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_across_typos_and_units() {
        let known = ["ping_interval_sec", "ping_timeout_sec", "url", "agent_id"];
        assert_eq!(nearest("ping_interval", known), Some("ping_interval_sec"));
        assert_eq!(
            nearest("ping_interval_ms", known),
            Some("ping_interval_sec")
        );
        assert_eq!(nearest("agnet_id", known), Some("agent_id"));
        assert_eq!(nearest("URL", known), Some("url"));
        assert_eq!(nearest("completely_else_where", known), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("port", "port"), 0);
        assert_eq!(distance("prot", "port"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
