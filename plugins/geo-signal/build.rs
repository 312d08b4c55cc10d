//! Makes the table of the CSV: sorted starts of ranges that a call can search at once, as part
//! of the plugin's own data. `GEO_SIGNAL_CSV` names another file than the one that ships.

#[path = "src/table.rs"]
mod table;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

fn main() {
    println!("cargo::rerun-if-env-changed=GEO_SIGNAL_CSV");
    println!("cargo::rerun-if-changed=src/table.rs");
    let csv = env::var_os("GEO_SIGNAL_CSV")
        .map_or_else(|| PathBuf::from("data/prefixes.csv"), PathBuf::from);
    println!("cargo::rerun-if-changed={}", csv.display());
    let written = make(&csv);
    if let Err(problem) = written {
        eprintln!("`{}`: {problem}", csv.display());
        process::exit(1);
    }
}

fn make(csv: &Path) -> Result<(), String> {
    let text = fs::read_to_string(csv).map_err(|error| error.to_string())?;
    let source = table::Table::parse(&text)?.to_source();
    let folder = env::var_os("OUT_DIR").ok_or("cargo sets `OUT_DIR`")?;
    let path = PathBuf::from(folder).join("table.rs");
    fs::write(path, source).map_err(|error| error.to_string())
}
