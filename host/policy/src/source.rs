//! Where a bundle's texts come from.

/// One text with the name it is known by in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Path or other name, as it is shown in messages.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// The texts that a bundle is compiled from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Policies in Cedar.
    pub policies: Vec<SourceFile>,
    /// Groups and memberships as Cedar's entity JSON.
    pub entities: Option<SourceFile>,
}

impl Sources {
    /// Reads `*.cedar` and `entities.json` of a folder, without its sub-folders.
    ///
    /// # Errors
    /// Where the folder or a file cannot be read, is too big, or is not UTF-8.
    pub fn from_dir(_dir: &std::path::Path) -> Result<Self, crate::SourceError> {
        todo!()
    }
}

/// The policies that come with the hub, for a hub without a policy folder.
#[must_use]
pub fn shipped() -> Sources {
    todo!()
}

/// The text of the Cedar schema.
#[must_use]
pub fn schema_text() -> &'static str {
    todo!()
}
