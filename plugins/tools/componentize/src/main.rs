//! Makes a component of the core module that rustc wrote for a plugin: the contract that
//! `wit-bindgen` left in a custom section becomes the component's types.
//!
//! Usage: `componentize <core module> <component>`; the component is written in one step.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use wit_component::ComponentEncoder;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [core, component] = arguments.as_slice() else {
        eprintln!("usage: componentize <core module> <component>");
        return ExitCode::from(64);
    };
    match componentize(core, component) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("componentize: `{}`: {error}", core.display());
            ExitCode::FAILURE
        }
    }
}

fn componentize(core: &Path, component: &Path) -> Result<(), Box<dyn Error>> {
    let module = fs::read(core)?;
    let encoded = ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.validate(true).encode())
        // The alternate form names the whole chain of causes.
        .map_err(|error| format!("{error:#}"))?;
    let unfinished = component.with_extension("unfinished");
    fs::write(&unfinished, encoded)?;
    fs::rename(&unfinished, component)?;
    Ok(())
}
