//! How the demo looks: numbered scenes, indented facts, colours only on a terminal.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

/// What a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Title,
    Good,
    Bad,
    Quiet,
}

/// Writes the story to stdout.
#[derive(Debug)]
pub struct Terminal {
    colours: bool,
    scene: u32,
}

impl Default for Terminal {
    fn default() -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colours, scene: 0 }
    }
}

impl Terminal {
    /// A heading, with the next number.
    pub fn scene(&mut self, title: &str) {
        self.scene += 1;
        let number = self.scene;
        self.line("");
        self.line(&self.styled(Style::Title, &format!("{number}. {title}")));
    }

    /// A heading without a number.
    pub fn heading(&mut self, title: &str) {
        self.line("");
        self.line(&self.styled(Style::Title, title));
    }

    /// A sentence.
    pub fn say(&self, text: impl Display) {
        self.line(&format!("   {text}"));
    }

    /// What a person would type for it.
    pub fn command(&self, text: impl Display) {
        self.line(&format!(
            "   {}",
            self.styled(Style::Quiet, &format!("$ {text}"))
        ));
    }

    /// What came back, as it is.
    pub fn output(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.line(&format!("   {} {line}", self.styled(Style::Quiet, "|")));
        }
    }

    /// Something was allowed or worked.
    pub fn good(&self, text: impl Display) {
        self.line(&format!("   {} {text}", self.styled(Style::Good, "+")));
    }

    /// Something was denied.
    pub fn denied(&self, text: impl Display) {
        self.line(&format!("   {} {text}", self.styled(Style::Bad, "x")));
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match style {
            Style::Title => "1;36",
            Style::Good => "1;32",
            Style::Bad => "1;31",
            Style::Quiet => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    fn line(&self, text: &str) {
        // Whoever closed the pipe does not want the rest.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }
}
