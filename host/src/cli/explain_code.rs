//! `nowconnect explain-code`: what a code of a log, a metric or an answer means.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Exit;
use crate::codes::{self, page};

/// `nowconnect explain-code`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The code, as a log, a metric or an answer shows it; without one all are listed
    code: Option<String>,
    /// Write the index and a page for each code into this folder, in place of what is there
    #[arg(long, value_name = "FOLDER", conflicts_with = "code")]
    write: Option<PathBuf>,
}

impl Args {
    /// Runs the command.
    pub fn run(self) -> Exit {
        match (self.code, self.write) {
            (_, Some(folder)) => match write(&folder) {
                Ok(()) => Exit::Success,
                Err((path, error)) => {
                    complain(&format!("cannot write `{}`: {error}", path.display()));
                    Exit::Failure
                }
            },
            (Some(code), None) => explain(&code),
            (None, None) => show(&list()),
        }
    }
}

fn explain(code: &str) -> Exit {
    if let Some(page) = page::page(code) {
        return show(&page);
    }
    let alike = page::alike(code);
    let hint = if alike.is_empty() {
        "`nowconnect explain-code` lists them all".to_owned()
    } else {
        format!("there are `{}`", alike.join("`, `"))
    };
    complain(&format!(
        "`{code}` is no code of this hub: {hint}. A policy's `@error` and a plugin's own codes \
         are explained by who wrote them"
    ));
    Exit::Failure
}

fn list() -> String {
    let all = codes::all();
    let width = all.iter().map(|entry| entry.code.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut last = None;
    for entry in &all {
        if last != Some(entry.group) {
            let gap = if last.is_some() { "\n" } else { "" };
            text.push_str(&format!("{gap}{}\n", entry.group.heading));
            last = Some(entry.group);
        }
        text.push_str(&format!(
            "  {:width$}  {}\n",
            entry.code, entry.text.meaning
        ));
    }
    text
}

/// Writes what should be there, and takes away pages of codes that are none.
fn write(folder: &Path) -> Result<(), (PathBuf, io::Error)> {
    let pages = folder.join(page::PAGES);
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    std::fs::create_dir_all(&pages).map_err(at(&pages))?;
    let files = page::files();
    for entry in std::fs::read_dir(&pages).map_err(at(&pages))? {
        let path = entry.map_err(at(&pages))?.path();
        let is_page = path.extension().is_some_and(|extension| extension == "md");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_page && !files.contains_key(&format!("{}/{name}", page::PAGES)) {
            std::fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(at(&path))?;
    }
    Ok(())
}

fn show(text: &str) -> Exit {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Exit::Success,
        Err(_) => Exit::Failure,
    }
}

fn complain(problem: &str) {
    // Where stderr is closed the exit code still tells.
    let _ = writeln!(io::stderr().lock(), "nowconnect: {problem}");
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn written_pages_are_all_there_and_those_of_no_code_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let pages = folder.path().join(page::PAGES);
        std::fs::create_dir(&pages).unwrap();
        for name in ["no_such_code.md", "notes.txt"] {
            std::fs::write(pages.join(name), "kept?").unwrap();
        }
        write(folder.path()).unwrap();
        for (name, text) in page::files() {
            let written = std::fs::read_to_string(folder.path().join(&name)).unwrap();
            assert_eq!(written, text, "{name}");
        }
        assert!(!pages.join("no_such_code.md").exists());
        assert!(pages.join("notes.txt").exists(), "it is no page");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (path, _) = write(file.path()).unwrap_err();
        assert!(path.starts_with(file.path()), "{}", path.display());
    }

    #[test]
    fn the_list_has_every_code_under_its_heading() {
        let list = list();
        for code in page::codes() {
            assert!(list.contains(&format!("\n  {code} ")), "{code}");
        }
        assert!(list.starts_with("Why a flow was reset\n"), "{list}");
    }
}
