//! What a command works on: a folder of sources, an archive, or what is built in.

use std::path::Path;

use nowconnect_policy::{BundleArchive, Folder, Refusal, SourceError};

use super::bundle::material_of;

/// Texts with their tests and assertions.
pub(super) struct Material {
    pub(super) folder: Folder,
    /// Whether it is a plain folder, whose test cases may name files beside them.
    pub(super) from_folder: bool,
}

/// What is there cannot be worked with.
pub(super) enum Unusable {
    Sources(SourceError),
    Archive(Refusal),
}

impl Material {
    /// Reads what is at a path: a tar, a folder with a manifest, or a folder of sources. Nobody
    /// vouches for an archive here; `policy verify` is for that.
    pub(super) fn open(path: &Path) -> Result<Self, Unusable> {
        if path.is_file() || BundleArchive::is_in(path) {
            return BundleArchive::read(path)
                .and_then(|archive| material_of(&archive))
                .map_err(Unusable::Archive);
        }
        Ok(Self {
            folder: Folder::read(path).map_err(Unusable::Sources)?,
            from_folder: true,
        })
    }
}
