//! What is wrong with a configuration, and how that is shown.

use std::fmt::{self, Write as _};
use std::path::{Path as FilePath, PathBuf};

use super::secret::HIDDEN;
use super::tree::{Node, Origin, Path};

/// One thing that is wrong, and the way out where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `listeners[2].bind`.
    pub key: String,
    /// What is wrong: lower case, with the value in backticks.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Line and column in the file, from 1, if it is written there.
    pub place: Option<(u64, u64)>,
    /// The environment variable that the value came from.
    pub variable: Option<&'static str>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file `{path}`: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The file, or the environment, holds mistakes: all that could be found, in the order of the
    /// file. Shown as a paragraph each, with line, column and an excerpt.
    #[error("{}", .0)]
    Invalid(Report),
}

impl ConfigError {
    /// The problems one by one; empty for [`ConfigError::Unreadable`].
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Invalid(report) => &report.problems,
        }
    }
}

/// Every problem of a configuration, with what is needed to show them.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order of the file; what came from the environment is last.
    pub problems: Vec<Problem>,
    file: Option<PathBuf>,
    lines: Vec<String>,
}

impl Report {
    pub(crate) fn new(mut problems: Vec<Problem>, file: Option<&FilePath>, text: &str) -> Self {
        problems.sort_by_key(|problem| problem.place.unwrap_or((u64::MAX, u64::MAX)));
        Self {
            problems,
            file: file.map(FilePath::to_path_buf),
            lines: text.lines().map(str::to_owned).collect(),
        }
    }

    fn show(&self, problem: &Problem, out: &mut String) -> fmt::Result {
        writeln!(out, "error: {}", problem.message)?;
        match (problem.place, problem.variable) {
            (Some((line, column)), _) => self.show_place(line, column, out)?,
            (None, Some(variable)) => {
                writeln!(
                    out,
                    "  --> environment variable `{variable}`, key `{}`",
                    problem.key
                )?;
            }
            (None, None) => writeln!(out, "  --> key `{}`", problem.key)?,
        }
        if let Some(help) = &problem.help {
            writeln!(out, "  = {help}")?;
        }
        Ok(())
    }

    fn show_place(&self, line: u64, column: u64, out: &mut String) -> fmt::Result {
        let file = self.file.as_ref().map_or_else(
            || "configuration".to_owned(),
            |file| file.display().to_string(),
        );
        writeln!(out, "  --> {file}:{line}:{column}")?;
        let index = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
        if let Some(text) = self.lines.get(index) {
            let shown = hide_secrets(text);
            let number = line.to_string();
            let before = usize::try_from(column.saturating_sub(1)).unwrap_or(0);
            writeln!(out, "   {number} | {shown}")?;
            writeln!(
                out,
                "   {:width$} | {:before$}^",
                "",
                "",
                width = number.len()
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        for problem in &self.problems {
            self.show(problem, &mut out)?;
            out.push('\n');
        }
        let plural = if self.problems.len() == 1 { "" } else { "s" };
        write!(
            out,
            "{} problem{plural} in the configuration",
            self.problems.len()
        )?;
        f.write_str(&out)
    }
}

/// The line as it may be shown: what follows a key that sounds secret, and user information in a
/// URL, is hidden. The key may be misspelt, so this goes by its sound and not by the schema.
fn hide_secrets(line: &str) -> String {
    const MAX_CHARACTERS: usize = 160;
    let line: String = line.chars().take(MAX_CHARACTERS).collect();
    if let Some((key, value)) = line.split_once(':') {
        let name = key.trim().trim_start_matches("- ").to_ascii_lowercase();
        if sounds_secret(&name) && !value.trim().is_empty() {
            return format!("{key}: {HIDDEN}");
        }
    }
    hide_user_info(&line)
}

/// Whether a key's value should be hidden wherever it is shown.
pub(crate) fn sounds_secret(key: &str) -> bool {
    const SECRET: [&str; 9] = [
        "secret",
        "password",
        "passwd",
        "token",
        "redis",
        "authorization",
        "api_key",
        "api-key",
        "credential",
    ];
    const HARMLESS: [&str; 7] = [
        "_file",
        "_claim",
        "_hosts",
        "_ms",
        "_sec",
        "_bytes",
        "query_token",
    ];
    SECRET.iter().any(|word| key.contains(word)) && !HARMLESS.iter().any(|end| key.ends_with(end))
}

/// `scheme://user:password@host` becomes `scheme://***@host`.
pub(crate) fn hide_user_info(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        shown.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\''))
            .unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                shown.push_str(HIDDEN);
                shown.push('@');
                shown.push_str(host);
            }
            None => shown.push_str(authority),
        }
        rest = tail;
    }
    shown.push_str(rest);
    shown
}

/// Gathers problems while the tree is checked and turned into the runtime form.
#[derive(Debug)]
pub(crate) struct Problems<'a> {
    root: &'a Node,
    found: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(crate) fn new(root: &'a Node) -> Self {
        Self {
            root,
            found: Vec::new(),
        }
    }

    /// Notes a problem of the value at `path`.
    pub(crate) fn add(&mut self, path: &Path, message: impl Into<String>) {
        let at = self.root.nearest(path).at;
        self.add_at(path, at, message.into(), None);
    }

    /// Notes a problem of the value at `path`, with the way out.
    pub(crate) fn add_with_help(
        &mut self,
        path: &Path,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let at = self.root.nearest(path).at;
        self.add_at(path, at, message.into(), Some(help.into()));
    }

    /// Notes a problem at a place of its own, such as that of a key.
    pub(crate) fn add_at(
        &mut self,
        path: &Path,
        at: Origin,
        message: String,
        help: Option<String>,
    ) {
        let (place, variable) = match at {
            Origin::Line { line, column } => (Some((line, column)), None),
            Origin::Variable(name) => (None, Some(name)),
            Origin::Absent => (None, None),
        };
        self.found.push(Problem {
            key: path.to_string(),
            message,
            help,
            place,
            variable,
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn into_found(self) -> Vec<Problem> {
        self.found
    }
}
