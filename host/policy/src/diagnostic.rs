//! What is wrong with a bundle's texts, and where.

use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The bundle is refused.
    Error,
    /// Worth a look; the bundle works.
    Warning,
}

/// One problem, at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as named in [`SourceFile`](crate::SourceFile).
    pub file: String,
    /// Line from 1.
    pub line: usize,
    /// Column from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(
            f,
            "{}:{}:{}: {severity}: {}",
            self.file, self.line, self.column, self.message
        )?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// Every problem of a refused bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// A folder of policies could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Reading failed.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// What was read.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file is bigger than the bound.
    #[error("`{path}` has {bytes} bytes; a policy file may have {limit_bytes}")]
    TooBig {
        /// What was read.
        path: String,
        /// Its size.
        bytes: u64,
        /// The bound.
        limit_bytes: u64,
    },
    /// There are more files than the bound.
    #[error("`{path}` has more than {limit} policy files")]
    TooMany {
        /// The folder.
        path: String,
        /// The bound.
        limit: usize,
    },
    /// A link of a template cannot be expanded.
    #[error("`{path}`: {problem}")]
    Links {
        /// The file of links.
        path: String,
        /// Which link, and why.
        problem: String,
    },
    /// A schema that is neither the hub's nor an extension of it.
    #[error(
        "`{path}` changes the core schema, which is the hub's: take it away, replace it by what \
         `nowconnect policy schema` prints, or declare what you add in a namespace of your own"
    )]
    Schema {
        /// The file.
        path: String,
    },
    /// A folder without any policy would deny everything; that is hardly meant.
    #[error("`{path}` has no `*.cedar` file; leave `policy.dir` out to use the shipped policies")]
    Empty {
        /// The folder.
        path: String,
    },
}

/// An error with what is behind it, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
