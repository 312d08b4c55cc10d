//! `plugin new`: a folder to start from, out of this program alone. It holds the contract and,
//! for Rust, the SDK, so that neither our source nor another version of it is needed.

mod files;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use self::files::{File, files};
use super::{Done, Trouble, count};
use crate::cli::Exit;

/// Letters of a plugin's name, as in a hub.
const NAME_BYTES_MAX: usize = 64;

/// `nowconnect plugin new`.
#[derive(Clone, Debug, Args)]
pub struct New {
    /// The language to write it in
    #[arg(long)]
    lang: Language,
    /// The plugin's name, and that of its folder: lower-case letters, digits and `-`
    name: String,
    /// Where the folder goes
    #[arg(long, value_name = "DIR", default_value = ".")]
    into: PathBuf,
}

/// Languages that a template is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    /// Rust, with the SDK; needs cargo
    Rust,
    /// JavaScript on QuickJS; needs Node.js
    #[value(name = "js", alias = "javascript")]
    JavaScript,
    /// Python on CPython; needs Python
    Python,
}

impl New {
    pub(super) fn run(self, out: &mut dyn Write) -> Done {
        check_name(&self.name)?;
        let folder = self.into.join(&self.name);
        let refuse = |path: &Path, error: std::io::Error| {
            let problem = if error.kind() == ErrorKind::AlreadyExists {
                "it is there already; choose another name".to_owned()
            } else {
                error.to_string()
            };
            Trouble::usage(format!("`{}`: {problem}", path.display()))
        };
        std::fs::create_dir_all(&self.into).map_err(|error| refuse(&self.into, error))?;
        std::fs::create_dir(&folder).map_err(|error| refuse(&folder, error))?;
        let files = files(self.lang);
        for file in &files {
            let path = folder.join(file.path);
            write(&path, file, &self.name).map_err(|error| refuse(&path, error))?;
        }
        let folder = folder.display();
        writeln!(out, "{} written to {folder}", count(files.len(), "file"))?;
        writeln!(out, "next: make -C {folder}")?;
        Ok(Exit::Success)
    }
}

fn write(path: &Path, file: &File, name: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let text = file
        .text
        .replace("{{name}}", name)
        .replace("{{module}}", &name.replace('-', "_"));
    std::fs::write(path, text)?;
    if file.text.starts_with("#!") {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// A name that is one in a hub, for cargo, for npm and for a folder.
fn check_name(name: &str) -> Result<(), Trouble> {
    let good = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if good {
        return Ok(());
    }
    Err(Trouble::usage(format!(
        "`{name}` cannot be a plugin's name; use lower-case letters, digits and `-`, a letter \
         first, at most {NAME_BYTES_MAX}"
    )))
}
