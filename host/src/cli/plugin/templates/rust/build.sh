#!/usr/bin/env bash
# Builds {{name}}.wasm with cargo, and makes a component of it.
set -euo pipefail
cd "$(dirname "$0")"
nowconnect=${NOWCONNECT:-nowconnect}
target=wasm32-unknown-unknown
missing() { echo "missing: $*" >&2; exit 1; }

command -v "$nowconnect" >/dev/null || missing "nowconnect; set NOWCONNECT to its path"
command -v cargo >/dev/null || missing "cargo; install rustup, or Debian's rustc-web, cargo-web, rust-web-src and lld"

# The plugin is built for one target only, so an outer setting must not lead elsewhere.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
build=(cargo build --release --target "$target")
if [ -d "$(rustc --print target-libdir --target "$target")" ]; then
    "${build[@]}"
elif command -v rustup >/dev/null; then
    missing "the target $target; run: rustup target add $target"
elif [ -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library" ] && compgen -G '/usr/bin/wasm-ld*' >/dev/null; then
    # Debian packages no standard library for the target, so it is built from its sources.
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$(printf '%s\n' /usr/bin/wasm-ld* | sort -V | tail -n 1)
    RUSTC_BOOTSTRAP=1 "${build[@]}" -Z build-std=std,panic_abort
else
    missing "a Rust for $target; install rustup, or Debian's rustc-web, cargo-web, rust-web-src and lld"
fi
"$nowconnect" plugin componentize "$CARGO_TARGET_DIR/$target/release/{{module}}.wasm" {{name}}.wasm
