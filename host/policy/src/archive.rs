//! Bundles as they are delivered: a folder or a plain tar with a signed manifest.
//!
//! ```text
//! manifest.json        revision, times, what it was written for, SHA-256 of every other file
//! manifest.sig         Ed25519 signatures over the exact bytes of the manifest
//! schema.cedarschema   optional: the extension of the core schema
//! policies/*.cedar     static policies; templates were expanded when the archive was built
//! entities.json        optional: groups and labels
//! T@entities.json      optional: groups of tenant T's own
//! tests/*.json         cases that must pass before the bundle can be active
//! assertions/*.cedar   what must be provable of the policies
//! ```
//!
//! The way in is one line: [`read`](BundleArchive::read) takes everything into memory within
//! bounds and gives meaning to none of it but the manifest, [`verify`](BundleArchive::verify)
//! holds it against the keys and the clock, [`Verified::compile`] makes a bundle of the bytes
//! that were verified. Each step can only refuse, with a code that never changes its meaning.

mod build;
mod contents;
mod manifest;
mod refusal;
mod rollback;
mod signing;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use crate::bundle::PolicyBundle;
use crate::cases::{CaseReport, run_case_files};
use crate::core_schema::CoreVersion;
use crate::proof::read_assertions;
use crate::source::{SourceFile, Sources, TENANT_ENTITIES};

pub use build::{Facts as ManifestFacts, Folder};
pub use manifest::{Manifest, parse_time, time_text};
pub use nowconnect_signing::{KeyError, KeyId, PublicKey, SecretKey};
pub use refusal::{Refusal, RefusalCode};
pub use rollback::{Admission, HighWater, admit};
pub use signing::TrustedKeys;

pub use contents::ARCHIVE_BYTES;
use contents::{MANIFEST, Members, SIGNATURES};
use signing::Signatures;

/// How far the clock of who built a bundle may be ahead of ours.
pub const CLOCK_SKEW: std::time::Duration = std::time::Duration::from_secs(300);

/// A bundle as it was delivered: read, bounded, and not yet trusted.
#[derive(Clone, PartialEq, Eq)]
pub struct BundleArchive {
    manifest: Manifest,
    /// What the signatures are over.
    manifest_bytes: Vec<u8>,
    signatures: Signatures,
    /// By path, without manifest and signatures.
    files: BTreeMap<String, String>,
}

impl fmt::Debug for BundleArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BundleArchive")
            .field("manifest", &self.manifest)
            .field("signatures", &self.signatures)
            .finish_non_exhaustive()
    }
}

impl BundleArchive {
    /// Reads a folder or a tar file.
    ///
    /// # Errors
    /// `bundle_unreadable`, `bundle_too_large`, `bundle_malformed` or `bundle_unsigned`.
    pub fn read(path: &Path) -> Result<Self, Refusal> {
        Self::of(contents::read(path)?)
    }

    /// Reads the bytes of a tar.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_tar(bytes: &[u8]) -> Result<Self, Refusal> {
        Self::of(contents::from_tar(bytes)?)
    }

    /// Whether a folder holds an archive rather than bare policies.
    #[must_use]
    pub fn is_in(dir: &Path) -> bool {
        dir.join(MANIFEST).is_file()
    }

    fn of(mut members: Members) -> Result<Self, Refusal> {
        let manifest_bytes = members
            .remove(MANIFEST)
            .ok_or_else(|| Refusal::new(RefusalCode::Malformed, format!("no `{MANIFEST}`")))?
            .into_bytes();
        let signatures = match members.remove(SIGNATURES) {
            Some(text) => Signatures::parse(&text)?,
            None => Signatures::default(),
        };
        Ok(Self {
            manifest: Manifest::parse(&manifest_bytes)?,
            manifest_bytes,
            signatures,
            files: members,
        })
    }

    /// The archive as a tar: the same bytes for the same archive, on every machine.
    ///
    /// # Errors
    /// `bundle_too_large` where a path does not fit a tar header.
    pub fn to_tar(&self) -> Result<Vec<u8>, Refusal> {
        contents::to_tar(&self.members())
    }

    /// Writes the archive as files below a folder, over those of the same names.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write_to(&self, dir: &Path) -> std::io::Result<()> {
        contents::write_to(dir, &self.members())
    }

    fn members(&self) -> Members {
        let mut members = self.files.clone();
        let manifest = String::from_utf8_lossy(&self.manifest_bytes).into_owned();
        members.insert(MANIFEST.to_owned(), manifest);
        if !self.signatures.is_empty() {
            members.insert(SIGNATURES.to_owned(), self.signatures.to_text());
        }
        members
    }

    /// Adds a signature, or replaces the one of the same key.
    pub fn sign(&mut self, key: &SecretKey) {
        self.signatures.add(key, &self.manifest_bytes);
    }

    /// Holds the archive against the keys, the clock and this hub. `hub_version` is the hub's
    /// own, such as `0.1.0`.
    ///
    /// # Errors
    /// The first thing that is wrong: the signature first, because until then every other word
    /// in it is a stranger's.
    pub fn verify(
        self,
        keys: &TrustedKeys,
        now: SystemTime,
        hub_version: &str,
    ) -> Result<Verified, Refusal> {
        let signers = self.signatures.check(&self.manifest_bytes, keys)?;
        self.digests()?;
        self.manifest.check(now, hub_version)?;
        Ok(Verified {
            archive: self,
            signers,
        })
    }

    fn digests(&self) -> Result<(), Refusal> {
        for (path, wanted) in &self.manifest.files {
            let text = self.files.get(path).ok_or_else(|| {
                let message = format!("the manifest lists `{path}`, which is not there");
                Refusal::new(RefusalCode::FileMissing, message)
            })?;
            if sha256(text.as_bytes()) != *wanted {
                let message = format!("`{path}` is not what the manifest has the digest of");
                return Err(Refusal::new(RefusalCode::Digest, message));
            }
        }
        match self
            .files
            .keys()
            .find(|path| !self.manifest.files.contains_key(*path))
        {
            None => Ok(()),
            Some(path) => {
                let message = format!("`{path}` is not in the manifest");
                Err(Refusal::new(RefusalCode::FileExtra, message))
            }
        }
    }

    /// What the manifest says.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The revision: grows with every bundle that is made.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.manifest.revision
    }

    /// The keys that signed it, whether or not anybody trusts them.
    pub fn signers(&self) -> impl Iterator<Item = &KeyId> {
        self.signatures.keys()
    }

    /// SHA-256 in hex over what the bundle *is*: its files and what they were written for. Two
    /// archives with the same payload differ at most in revision, times, `min_hub` and
    /// signatures. Revision, times and `min_hub` are no part of it on purpose, so that an earlier
    /// payload is known again under a later revision; they are vouched for by the signatures,
    /// which are over the exact bytes of the manifest.
    #[must_use]
    pub fn payload_digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"nowconnect policy bundle payload\0");
        hash.update(self.manifest.core_schema.to_le_bytes());
        for (path, digest) in &self.manifest.files {
            for part in [path, digest] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
        hex(&hash.finalize())
    }

    /// The texts to compile.
    ///
    /// # Errors
    /// `bundle_schema_unknown` where it was written for a core schema that this hub does not
    /// serve.
    pub fn sources(&self) -> Result<Sources, Refusal> {
        let core = CoreVersion::from_number(self.manifest.core_schema)
            .ok_or_else(|| self.manifest.unknown_schema())?;
        Ok(Sources {
            policies: self.below("policies/"),
            entities: self.one("entities.json"),
            tenant_entities: self
                .files
                .iter()
                .filter(|(path, _)| path.ends_with(TENANT_ENTITIES))
                .map(|(path, text)| SourceFile::new(path, text))
                .collect(),
            extension: self.one("schema.cedarschema"),
            core: Some(core),
        })
    }

    /// The test cases.
    #[must_use]
    pub fn tests(&self) -> Vec<SourceFile> {
        self.below("tests/")
    }

    /// What must be provable of the policies.
    #[must_use]
    pub fn assertions(&self) -> Vec<SourceFile> {
        self.below("assertions/")
    }

    /// Runs the bundle's own test cases.
    #[must_use]
    pub fn run_tests(&self, bundle: &PolicyBundle) -> CaseReport {
        run_case_files(bundle, &self.tests())
    }

    /// Whether enough of these keys have signed the manifest. It looks at no other file: what is
    /// in them is held against the manifest by [`verify`](Self::verify).
    #[must_use]
    pub fn is_signed_by(&self, keys: &TrustedKeys) -> bool {
        self.signatures.check(&self.manifest_bytes, keys).is_ok()
    }

    /// Compiles the policies and nothing else.
    ///
    /// # Errors
    /// `bundle_schema_unknown`, or `bundle_invalid` with every problem.
    pub fn compile_policies(&self, generation: u64) -> Result<PolicyBundle, Refusal> {
        PolicyBundle::compile(&self.sources()?, generation)
            .map_err(|found| Refusal::new(RefusalCode::Invalid, found.to_string()))
    }

    /// Compiles the policies and runs the bundle's own tests.
    ///
    /// # Errors
    /// `bundle_schema_unknown`, `bundle_invalid` with every problem, or `bundle_tests_failed`.
    pub fn compile(&self, generation: u64) -> Result<PolicyBundle, Refusal> {
        let bundle = self.compile_policies(generation)?;
        read_assertions(&self.assertions(), &bundle)
            .map_err(|found| Refusal::new(RefusalCode::Invalid, found.to_string()))?;
        let report = self.run_tests(&bundle);
        if report.failed() == 0 {
            return Ok(bundle);
        }
        let failures: Vec<String> = report
            .results
            .iter()
            .filter_map(|case| {
                let failure = case.failure.as_ref()?;
                Some(format!("{}: {}: {failure}", case.file, case.name))
            })
            .collect();
        Err(Refusal::new(
            RefusalCode::TestsFailed,
            format!(
                "{} of {} cases failed: {}",
                failures.len(),
                report.results.len(),
                failures.join("; ")
            ),
        ))
    }

    fn below(&self, folder: &str) -> Vec<SourceFile> {
        self.files
            .iter()
            .filter(|(path, _)| path.starts_with(folder))
            .map(|(path, text)| SourceFile::new(path, text))
            .collect()
    }

    fn one(&self, path: &str) -> Option<SourceFile> {
        self.files.get(path).map(|text| SourceFile::new(path, text))
    }
}

/// A bundle that keys, clock and version let in. Only [`BundleArchive::verify`] makes one, and
/// it holds the very bytes that were verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    archive: BundleArchive,
    signers: Vec<KeyId>,
}

impl Verified {
    /// What was verified.
    #[must_use]
    pub fn archive(&self) -> &BundleArchive {
        &self.archive
    }

    /// The trusted keys that signed it, each once.
    #[must_use]
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }

    /// See [`BundleArchive::compile`].
    ///
    /// # Errors
    /// As there.
    pub fn compile(&self, generation: u64) -> Result<PolicyBundle, Refusal> {
        self.archive.compile(generation)
    }

    /// The policies alone, for a bundle that was in force before: its tests and assertions were
    /// held against it when it came, and another version of the hub may see these otherwise.
    ///
    /// # Errors
    /// As [`BundleArchive::compile_policies`].
    pub fn compile_policies(&self, generation: u64) -> Result<PolicyBundle, Refusal> {
        self.archive.compile_policies(generation)
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
