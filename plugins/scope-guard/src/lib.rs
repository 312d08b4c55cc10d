//! Naming rules that a Cedar policy cannot express, because Cedar does not read an entity's id
//! as text: an agent's name must look like this, its connectors must begin with its own name, a
//! token's scope may be a pattern, and a listener leads only to connectors with certain names.
//!
//! [`rules`] decides and knows nothing of WebAssembly; `plugin` connects it to the contract.

pub mod rules;

#[cfg(target_family = "wasm")]
mod plugin;
