//! Where a bundle's texts come from.

use std::path::Path;

use crate::core_schema::CoreVersion;
use crate::diagnostic::SourceError;
use crate::{extension, templates};

/// Bytes of one policy or case file: a thousand policies have about 300 KiB.
pub const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Files of one folder.
pub const FILES: usize = 1024;

/// How the name of a tenant's entities ends.
pub(crate) const TENANT_ENTITIES: &str = "@entities.json";

/// One text with the name it is known by in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Path or other name, as it is shown in messages.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl SourceFile {
    /// A text under a name.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }
}

/// The texts that a bundle is compiled from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Policies in Cedar.
    pub policies: Vec<SourceFile>,
    /// Groups and memberships as Cedar's entity JSON.
    pub entities: Option<SourceFile>,
    /// The same of single tenants: `TENANT@entities.json`, each about that tenant's own alone.
    pub tenant_entities: Vec<SourceFile>,
    /// What the set adds to the core schema.
    pub extension: Option<SourceFile>,
    /// The version of the core schema that the set was written for. Where it does not say, the
    /// newest that it is valid under is taken.
    pub core: Option<CoreVersion>,
}

impl Sources {
    /// Reads `*.cedar`, `entities.json` and `TENANT@entities.json` of a folder, without its
    /// sub-folders, in the order of names. Templates are expanded by `links.json`. A `schema.cedarschema` is the extension;
    /// where it is a core schema, it says which version the folder was written for.
    ///
    /// # Errors
    /// Where the folder or a file cannot be read, has more than [`FILES`] files or [`FILE_BYTES`]
    /// bytes, or is not UTF-8, where there is no policy file at all, where a link cannot be
    /// expanded, or where the schema is neither.
    pub fn from_dir(dir: &Path) -> Result<Self, SourceError> {
        let mut sources = Self::default();
        for path in files_of(dir, "cedar")? {
            sources.policies.push(read(&path)?);
        }
        if sources.policies.is_empty() {
            return Err(SourceError::Empty {
                path: dir.display().to_string(),
            });
        }
        sources.entities = read_if_there(&dir.join("entities.json"))?;
        for path in files_of(dir, "json")? {
            let name = path.file_name().map(|name| name.to_string_lossy());
            if name.is_some_and(|name| name.ends_with(TENANT_ENTITIES)) {
                sources.tenant_entities.push(read(&path)?);
            }
        }
        if let Some(links) = read_if_there(&dir.join("links.json"))? {
            templates::expand(&mut sources.policies, &links).map_err(|problem| {
                SourceError::Links {
                    path: links.name.clone(),
                    problem,
                }
            })?;
        }
        if let Some(schema) = read_if_there(&dir.join("schema.cedarschema"))? {
            sources.take_schema(schema)?;
        }
        Ok(sources)
    }

    fn take_schema(&mut self, file: SourceFile) -> Result<(), SourceError> {
        let Ok(fragment) = extension::parse(&file.text) else {
            // The check says what is wrong with it.
            self.extension = Some(file);
            return Ok(());
        };
        if !extension::claims_core(&fragment) {
            self.extension = Some(file);
            return Ok(());
        }
        self.core = CoreVersion::of_text(&fragment);
        match self.core {
            Some(_) => Ok(()),
            None => Err(SourceError::Schema { path: file.name }),
        }
    }
}

/// Files of a folder with this ending, in the order of names.
pub(crate) fn files_of(dir: &Path, ending: &str) -> Result<Vec<std::path::PathBuf>, SourceError> {
    let cannot = |source| SourceError::Read {
        path: dir.display().to_string(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_some_and(|found| found == ending) && path.is_file() {
            files.push(path);
        }
        if files.len() > FILES {
            return Err(SourceError::TooMany {
                path: dir.display().to_string(),
                limit: FILES,
            });
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn read_if_there(path: &Path) -> Result<Option<SourceFile>, SourceError> {
    if path.exists() {
        read(path).map(Some)
    } else {
        Ok(None)
    }
}

pub(crate) fn read(path: &Path) -> Result<SourceFile, SourceError> {
    let name = path.display().to_string();
    let cannot = |source| SourceError::Read {
        path: name.clone(),
        source,
    };
    let bytes = std::fs::metadata(path).map_err(cannot)?.len();
    if bytes > FILE_BYTES {
        return Err(SourceError::TooBig {
            path: name,
            bytes,
            limit_bytes: FILE_BYTES,
        });
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    Ok(SourceFile { name, text })
}

/// The last part of a path, without the `shipped:` of what is built in.
pub(crate) fn file_name(name: &str) -> &str {
    let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
    name.strip_prefix("shipped:").unwrap_or(name)
}

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../policies/", $name)))),*]
    };
}

/// Policies that only forbid, and hold in every hub.
const GUARDS: &[(&str, &str)] = embedded![
    "guard-identity.cedar",
    "guard-scopes.cedar",
    "guard-signals.cedar",
    "guard-tenants.cedar",
];

/// What a hub without a policy folder permits.
const GRANTS: &[(&str, &str)] = embedded![
    "admin.cedar",
    "announce.cedar",
    "endpoint.cedar",
    "hello.cedar",
    "http.cedar",
    "mesh.cedar",
    "open.cedar",
    "upstream.cedar",
];

/// What they decide, case by case.
const CASES: &[(&str, &str)] = embedded![
    "tests/admin.json",
    "tests/announce.json",
    "tests/endpoint.json",
    "tests/guard-identity.json",
    "tests/guard-scopes.json",
    "tests/guard-signals.json",
    "tests/guard-tenants.json",
    "tests/hello.json",
    "tests/http.json",
    "tests/mesh.json",
    "tests/open.json",
    "tests/upstream.json",
];

/// The policies that come with the hub, guards included, for a hub without a policy folder.
#[must_use]
pub fn shipped() -> Sources {
    let policies = GRANTS
        .iter()
        .chain(GUARDS)
        .map(|(name, text)| embedded_file(name, text))
        .collect();
    Sources {
        policies,
        ..Sources::default()
    }
}

/// The guards alone: what [`PolicyBundle::compile`](crate::PolicyBundle::compile) adds to a set
/// that does not have them.
pub(crate) fn guards() -> Vec<SourceFile> {
    GUARDS
        .iter()
        .map(|(name, text)| embedded_file(name, text))
        .collect()
}

fn embedded_file(name: &str, text: &str) -> SourceFile {
    SourceFile::new(format!("shipped:{name}"), text)
}

/// The test cases of the policies that come with the hub, as `tests/…json`.
#[must_use]
pub fn shipped_cases() -> Vec<SourceFile> {
    CASES
        .iter()
        .map(|(name, text)| SourceFile::new(*name, *text))
        .collect()
}

/// The text of the newest core schema.
#[must_use]
pub fn schema_text() -> &'static str {
    CoreVersion::CURRENT.text()
}
