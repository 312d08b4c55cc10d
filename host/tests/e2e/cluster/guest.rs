//! Plugins: those that are shipped, and those that a test writes itself in WebAssembly text.

use std::path::PathBuf;

/// A plugin that allows every flow, with these limits; 0 is none.
pub(crate) fn limiter(max_bytes: u64, max_seconds: u32) -> Vec<u8> {
    let text = include_str!("../guests/limiter.wat")
        .replace("i64.const 1111", &format!("i64.const {max_bytes}"))
        .replace("i32.const 2222", &format!("i32.const {max_seconds}"));
    wat::parse_str(text).unwrap()
}

/// A plugin that passes every check and traps at every flow.
pub(crate) fn trapping() -> Vec<u8> {
    let text = include_str!("../guests/limiter.wat");
    let begin = "i32.const 88\n      i64.const 1111";
    assert!(text.contains(begin), "`on-open` begins otherwise");
    wat::parse_str(text.replace(begin, &format!("unreachable\n      {begin}"))).unwrap()
}

/// The component of a plugin that is shipped.
pub(crate) fn component(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../plugins/target/components")
        .join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is not there; run scripts/build-guests.sh first",
        path.display()
    );
    path
}
