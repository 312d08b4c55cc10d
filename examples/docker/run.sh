#!/usr/bin/env bash
# Building images needs a container runtime, which tests do not have; what can be checked without
# one is that each path and program that the Dockerfile names is still there.
. "$(dirname "$0")/../lib.sh"

for package in $(grep -o -- '-p [a-z-]*' "$EXAMPLE/Dockerfile" | cut -d' ' -f2); do
    grep -qrx "name = \"$package\"" "$ROOT"/*/Cargo.toml || fail "no package \`$package\`"
done
[ -x "$ROOT/scripts/build-guests.sh" ] || fail "scripts/build-guests.sh is gone"
toolchain="$(sed -n 's/^channel = "\([0-9]*\.[0-9]*\).*/\1/p' "$ROOT/rust-toolchain.toml")"
grep -q "^FROM rust:$toolchain-" "$EXAMPLE/Dockerfile" || fail "the Dockerfile builds with another Rust than $toolchain"
ok "the Dockerfile names what is there; it was not built"
