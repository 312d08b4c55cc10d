//! `plugin componentize`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use nowconnect_plugins::workbench::componentize;

use super::mounting::read_component;
use super::{Done, Trouble};
use crate::cli::Exit;

/// `nowconnect plugin componentize`.
#[derive(Clone, Debug, Args)]
pub struct Componentize {
    /// The core module that the compiler wrote
    core: PathBuf,
    /// Where the component goes
    component: PathBuf,
    /// Folder with the plugin's world and, in `deps`, the contract; not needed where the module
    /// carries its world, as those of wit-bindgen do
    #[arg(long, value_name = "DIR")]
    wit: Option<PathBuf>,
    /// The world in that folder, where it has more than one
    #[arg(long, requires = "wit")]
    world: Option<String>,
    /// The adapter for a module that imports WASI preview 1, where it is not to be the built-in one
    #[arg(long, value_name = "FILE")]
    adapt: Option<PathBuf>,
    /// Give the adapter memory by growing, for languages whose runtime starts late, such as Go
    #[arg(long)]
    realloc_via_memory_grow: bool,
}

impl Componentize {
    pub(super) fn run(self, out: &mut dyn Write) -> Done {
        let core = read_component(&self.core)?;
        let adapter = self.adapt.as_deref().map(read_component).transpose()?;
        let wit = self
            .wit
            .as_deref()
            .map(|path| (path, self.world.as_deref()));
        let component = componentize(&core, wit, adapter.as_deref(), self.realloc_via_memory_grow)
            .map_err(|error| Trouble::failure(format!("`{}`: {error}", self.core.display())))?;
        let refuse = |error: std::io::Error| {
            Trouble::failure(format!(
                "cannot write `{}`: {error}",
                self.component.display()
            ))
        };
        let unfinished = self.component.with_extension("unfinished");
        std::fs::write(&unfinished, &component).map_err(refuse)?;
        std::fs::rename(&unfinished, &self.component).map_err(refuse)?;
        writeln!(
            out,
            "{}: {} bytes",
            self.component.display(),
            component.len()
        )?;
        Ok(Exit::Success)
    }
}
