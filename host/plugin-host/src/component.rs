//! From bytes to compiled, checked code: digest, contract version, imports, exports.

use std::fmt;
use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::{Component, ComponentExportIndex};

use crate::contract::{CONTRACT_VERSIONS, ContractVersion, Named, PACKAGE};
use crate::error::LoadProblem;
use crate::grant::{Capability, Grants};
use crate::hook::Hook;

/// Largest component in bytes. A Python plugin has 18 MiB; compiling takes time by size, which
/// no limit of a call covers.
pub(crate) const COMPONENT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What the grant `wasi` covers; `wasi:http` and others reach outside and are never offered.
const WASI_PACKAGES: [&str; 6] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// Digest of a component's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads `sha256:<64 hex digits>`.
    pub(crate) fn parse(text: &str) -> Result<Self, LoadProblem> {
        let bad = || LoadProblem::BadDigest(text.to_owned());
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?;
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Compiled code of one component, and where its functions are.
pub(crate) struct Compiled {
    pub(crate) component: Component,
    pub(crate) digest: Digest,
    /// Capabilities that it imports, each in the version that it was built for.
    pub(crate) imports: Vec<(Capability, ContractVersion)>,
    /// Interfaces of WASI that it imports.
    pub(crate) wasi: Vec<String>,
    pub(crate) describe: Function,
    pub(crate) check_config: Function,
    /// By [`Hook::index`].
    pub(crate) hooks: [Option<Function>; Hook::ALL.len()],
    /// Memories and tables of one instance.
    pub(crate) memories: u32,
    pub(crate) tables: u32,
}

/// Where an exported function is, and which version's shapes it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    pub(crate) index: ComponentExportIndex,
    pub(crate) version: ContractVersion,
}

impl Compiled {
    pub(crate) fn imports(&self, capability: Capability) -> bool {
        self.imports.iter().any(|(one, _)| *one == capability)
    }

    pub(crate) fn exported_hooks(&self) -> impl Iterator<Item = Hook> + '_ {
        Hook::ALL
            .into_iter()
            .filter(|hook| self.hooks[hook.index()].is_some())
    }
}

/// Reads a file that has at most `bytes_max` bytes.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, LoadProblem> {
    let unreadable = |error: std::io::Error| LoadProblem::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > bytes_max {
        return Err(LoadProblem::TooLarge {
            path: path.to_owned(),
            bytes,
            bytes_max,
        });
    }
    fs::read(path).map_err(unreadable)
}

/// Compiles and finds imports and exports. Takes milliseconds to seconds: not for a thread that
/// serves traffic.
pub(crate) fn compile(
    engine: &Engine,
    bytes: &[u8],
    digest: Digest,
) -> Result<Compiled, LoadProblem> {
    check_form(bytes)?;
    let component = Component::from_binary(engine, bytes)
        .map_err(|error| LoadProblem::Invalid(first_line(&error)))?;
    let Imports { capabilities, wasi } = imports(engine, &component)?;
    let exports = Exports::of(engine, &component)?;
    let describe = exports.function("lifecycle", "describe")?;
    let check_config = exports.function("lifecycle", "check-config")?;
    let mut hooks = [None; Hook::ALL.len()];
    for hook in Hook::ALL {
        if exports.has(hook.interface()) {
            let function = exports.function(hook.interface(), hook.function())?;
            hooks[hook.index()] = Some(function);
        }
    }
    let resources = component
        .resources_required()
        .ok_or_else(|| LoadProblem::UnknownImport("a core module".to_owned()))?;
    Ok(Compiled {
        imports: capabilities,
        wasi,
        describe,
        check_config,
        hooks,
        memories: resources.num_memories,
        tables: resources.num_tables,
        component,
        digest,
    })
}

/// What can be said about bytes before the compiler sees them.
pub(crate) fn check_form(bytes: &[u8]) -> Result<(), LoadProblem> {
    if bytes.len() as u64 > COMPONENT_BYTES_MAX {
        return Err(LoadProblem::Invalid(format!(
            "it has {} bytes, at most {COMPONENT_BYTES_MAX} are loaded",
            bytes.len()
        )));
    }
    // Only the binary form: text would be compiled from a path that no digest covers.
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadProblem::Invalid(
            "it does not begin with `\\0asm`; build it as a component".to_owned(),
        ));
    }
    Ok(())
}

/// Every import of code must be granted; interfaces that only hold types need nothing.
pub(crate) fn check_grants(compiled: &Compiled, grants: &Grants) -> Result<(), LoadProblem> {
    let mut missing: Vec<&str> = compiled
        .imports
        .iter()
        .filter(|(capability, _)| !grants.allows(*capability))
        .map(|(capability, _)| capability.as_str())
        .collect();
    missing.dedup();
    if let Some(wasi) = compiled.wasi.first()
        && !grants.allows_wasi()
    {
        return Err(LoadProblem::Wasi(wasi.clone()));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut all: Vec<&str> = compiled
        .imports
        .iter()
        .map(|(one, _)| one.paste())
        .collect();
    all.dedup();
    if !compiled.wasi.is_empty() {
        all.push("wasi");
    }
    Err(LoadProblem::NotGranted {
        missing: quoted(&missing),
        paste: format!("grants: [{}]", all.join(", ")),
    })
}

struct Imports {
    capabilities: Vec<(Capability, ContractVersion)>,
    wasi: Vec<String>,
}

fn imports(engine: &Engine, component: &Component) -> Result<Imports, LoadProblem> {
    let mut capabilities = Vec::new();
    let mut wasi = Vec::new();
    let ty = component.component_type();
    for (name, _) in ty.imports(engine) {
        let unknown = || LoadProblem::UnknownImport(name.to_owned());
        if WASI_PACKAGES
            .iter()
            .any(|package| name.starts_with(package))
        {
            wasi.push(name.to_owned());
            continue;
        }
        match Named::parse(name) {
            Named::Served("types" | "http-types", _) => {}
            Named::Served(interface, version) => {
                let capability =
                    Capability::parse(interface).filter(|capability| capability.since() <= version);
                capabilities.push((capability.ok_or_else(unknown)?, version));
            }
            Named::Unserved(_) => return Err(unserved(name)),
            Named::Other => return Err(unknown()),
        }
    }
    capabilities.sort_unstable();
    Ok(Imports { capabilities, wasi })
}

fn unserved(wanted: &str) -> LoadProblem {
    LoadProblem::Version {
        wanted: wanted.to_owned(),
        served: CONTRACT_VERSIONS,
    }
}

/// What a component exports of the contract. It may export an interface in several versions, so
/// that older hubs can run it; the newest that this hub serves is taken, others are left alone.
struct Exports<'a> {
    component: &'a Component,
    /// Interface, version, and the full name under which it is exported.
    interfaces: Vec<(String, ContractVersion, String)>,
}

impl<'a> Exports<'a> {
    fn of(engine: &Engine, component: &'a Component) -> Result<Self, LoadProblem> {
        let mut interfaces = Vec::new();
        let mut others = Vec::new();
        for (name, _) in component.component_type().exports(engine) {
            match Named::parse(name) {
                Named::Served(interface, version) => {
                    interfaces.push((interface.to_owned(), version, name.to_owned()));
                }
                Named::Unserved(interface) => others.push((interface.to_owned(), name.to_owned())),
                Named::Other => {}
            }
        }
        let all = Self {
            component,
            interfaces,
        };
        match others.iter().find(|(interface, _)| !all.has(interface)) {
            Some((_, name)) => Err(unserved(name)),
            None => Ok(all),
        }
    }

    fn has(&self, interface: &str) -> bool {
        self.interfaces.iter().any(|(short, ..)| short == interface)
    }

    fn function(&self, interface: &str, function: &str) -> Result<Function, LoadProblem> {
        let missing = || LoadProblem::NoExport(format!("{PACKAGE}{interface}: {function}"));
        let (_, version, full) = self
            .interfaces
            .iter()
            .filter(|(short, ..)| short == interface)
            .max_by_key(|(_, version, _)| *version)
            .ok_or_else(missing)?;
        let instance = self
            .component
            .get_export_index(None, full)
            .ok_or_else(missing)?;
        let index = self
            .component
            .get_export_index(Some(&instance), function)
            .ok_or_else(missing)?;
        Ok(Function {
            index,
            version: *version,
        })
    }
}

pub(crate) fn quoted(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The runtime's errors go on over many lines with internals; the first ones say what happened.
pub(crate) fn first_line(error: &wasmtime::Error) -> String {
    one_line(&format!("{error:#}"))
}

/// Why a call ended, without the list of the guest's functions that it ended in.
pub(crate) fn cause_line(error: &wasmtime::Error) -> String {
    one_line(&error.root_cause().to_string())
}

fn one_line(text: &str) -> String {
    const BYTES_MAX: usize = 300;
    let mut text = text.replace('\n', " ");
    if text.len() > BYTES_MAX {
        let end = text.floor_char_boundary(BYTES_MAX);
        text.truncate(end);
        text.push('…');
    }
    text
}
