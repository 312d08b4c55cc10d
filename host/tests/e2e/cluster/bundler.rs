//! Whoever makes and signs policy bundles.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nowconnect_policy::{BundleArchive, Folder, ManifestFacts, SecretKey, SourceFile, Sources};

use super::PERMIT_ALL;

pub(crate) struct Bundler {
    key: SecretKey,
}

impl Bundler {
    pub(crate) fn new() -> Self {
        Self {
            key: SecretKey::generate().unwrap(),
        }
    }

    pub(crate) fn public(&self) -> String {
        self.key.public().to_string()
    }

    /// A file with the secret key.
    pub(crate) fn key_file(&self, dir: &Path) -> PathBuf {
        let path = dir.join("bundle.key");
        std::fs::write(&path, self.key.to_text()).unwrap();
        path
    }

    /// What permits everything, and these policies beside it.
    pub(crate) fn archive(&self, revision: u64, more: &str) -> BundleArchive {
        self.exactly(revision, &format!("{PERMIT_ALL}\n{more}"))
    }

    /// Exactly these policies.
    pub(crate) fn exactly(&self, revision: u64, text: &str) -> BundleArchive {
        self.built(revision, text, SystemTime::now(), None)
    }

    /// What permits everything, made at this time and good until that.
    pub(crate) fn dated(
        &self,
        revision: u64,
        created: SystemTime,
        not_after: Option<SystemTime>,
    ) -> BundleArchive {
        self.built(revision, PERMIT_ALL, created, not_after)
    }

    /// Adds the signature.
    pub(crate) fn sign(&self, archive: &mut BundleArchive) {
        archive.sign(&self.key);
    }

    fn built(
        &self,
        revision: u64,
        text: &str,
        created: SystemTime,
        not_after: Option<SystemTime>,
    ) -> BundleArchive {
        let folder = Folder {
            sources: Sources {
                policies: vec![SourceFile::new("all.cedar", text)],
                ..Sources::default()
            },
            ..Folder::default()
        };
        let facts = ManifestFacts {
            revision,
            created,
            not_after,
            min_hub: None,
        };
        let mut archive = folder.build(facts).unwrap();
        self.sign(&mut archive);
        archive
    }

    /// The same as bytes.
    pub(crate) fn tar(&self, revision: u64, more: &str) -> Vec<u8> {
        self.archive(revision, more).to_tar().unwrap()
    }
}
