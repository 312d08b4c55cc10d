#!/usr/bin/env bash
# `make prover`: builds nowconnect-prove and says where it is.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

timed "building nowconnect-prove" cargo build --release --locked \
    --manifest-path prove/Cargo.toml --target-dir "$TARGET_DIR"
say "put $TARGET_DIR/release/nowconnect-prove beside \`nowconnect\`"
