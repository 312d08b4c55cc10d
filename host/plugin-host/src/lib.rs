//! Sandboxed WebAssembly plugins: the only crate that imports wasmtime.
