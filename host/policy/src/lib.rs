//! Cedar policies as immutable bundles: the only crate that imports cedar-policy.
