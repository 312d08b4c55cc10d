//! A folder of sources becomes an archive.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use super::manifest::Manifest;
use super::refusal::{Refusal, RefusalCode};
use super::signing::Signatures;
use super::{BundleArchive, contents, sha256};
use crate::bundle::PolicyBundle;
use crate::diagnostic::SourceError;
use crate::source::{SourceFile, Sources, file_name, files_of, read};

/// What the manifest says besides what is in the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Above every earlier one.
    pub revision: u64,
    /// Now.
    pub created: SystemTime,
    /// When it stops being acceptable.
    pub not_after: Option<SystemTime>,
    /// The lowest version of the hub that can run it.
    pub min_hub: Option<semver::Version>,
}

/// A folder as people edit it: policies, and beside them `tests/` and `assertions/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// What is compiled.
    pub sources: Sources,
    /// Test cases.
    pub tests: Vec<SourceFile>,
    /// What must be provable.
    pub assertions: Vec<SourceFile>,
}

impl Folder {
    /// Reads a folder of sources.
    ///
    /// # Errors
    /// Where the folder or a file cannot be read, is too big or not UTF-8.
    pub fn read(dir: &Path) -> Result<Self, SourceError> {
        Ok(Self {
            sources: Sources::from_dir(dir)?,
            tests: read_all(&dir.join("tests"), "json")?,
            assertions: read_all(&dir.join("assertions"), "cedar")?,
        })
    }

    /// What an archive holds.
    ///
    /// # Errors
    /// `bundle_unknown_schema`.
    pub fn of(archive: &BundleArchive) -> Result<Self, Refusal> {
        Ok(Self {
            sources: archive.sources()?,
            tests: archive.tests(),
            assertions: archive.assertions(),
        })
    }

    /// Makes an archive, without a signature, of what compiles and passes its own tests.
    ///
    /// # Errors
    /// `bundle_invalid`, `bundle_tests_failed`, `bundle_malformed` for a file name that has no
    /// place in an archive.
    pub fn build(&self, facts: Facts) -> Result<BundleArchive, Refusal> {
        let core = PolicyBundle::compile(&self.sources, 0)
            .map_err(|found| Refusal::new(RefusalCode::Invalid, found.to_string()))?
            .core();
        let mut files = BTreeMap::new();
        let sources = &self.sources;
        for (folder, texts) in [
            ("policies/", &sources.policies),
            ("tests/", &self.tests),
            ("assertions/", &self.assertions),
            ("", &sources.tenant_entities),
        ] {
            for file in texts {
                put(
                    &mut files,
                    format!("{folder}{}", file_name(&file.name)),
                    file,
                )?;
            }
        }
        for (path, file) in [
            ("entities.json", &sources.entities),
            ("schema.cedarschema", &sources.extension),
        ] {
            if let Some(file) = file {
                put(&mut files, path.to_owned(), file)?;
            }
        }
        let manifest = Manifest {
            format: Manifest::FORMAT,
            revision: facts.revision,
            created: whole_seconds(facts.created),
            not_after: facts.not_after.map(whole_seconds),
            min_hub: facts.min_hub,
            core_schema: core.number(),
            files: files
                .iter()
                .map(|(path, text)| (path.clone(), sha256(text.as_bytes())))
                .collect(),
        };
        let manifest_bytes = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| Refusal::new(RefusalCode::Malformed, error.to_string()))?;
        let archive = BundleArchive {
            manifest,
            manifest_bytes,
            signatures: Signatures::default(),
            files,
        };
        archive.compile(0)?;
        // Whoever reads it applies bounds; better to hear of them here.
        BundleArchive::from_tar(&archive.to_tar()?)
    }
}

fn put(
    files: &mut BTreeMap<String, String>,
    path: String,
    file: &SourceFile,
) -> Result<(), Refusal> {
    if !contents::is_member(&path) {
        let message = format!(
            "`{}` cannot be in an archive: names there have letters, digits, `.`, `-`, `_`, `@`, \
             and at most 80 of them",
            file.name
        );
        return Err(Refusal::new(RefusalCode::Malformed, message));
    }
    if files.insert(path.clone(), file.text.clone()).is_some() {
        let message = format!("two files would be `{path}`");
        return Err(Refusal::new(RefusalCode::Malformed, message));
    }
    Ok(())
}

fn read_all(dir: &Path, ending: &str) -> Result<Vec<SourceFile>, SourceError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    files_of(dir, ending)?
        .iter()
        .map(|path| read(path))
        .collect()
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(time, |since| {
            SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(since.as_secs())
        })
}
