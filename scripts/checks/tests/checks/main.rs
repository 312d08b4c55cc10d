//! Checks on the project itself, in three groups: the arrows between the crates, the documents,
//! and the examples. The first reads only the tree; the other two run the built binaries.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod architecture;
mod repository;
