#!/usr/bin/env bash
# `make fuzz`: coverage-guided search for inputs that break the wire, FUZZ_SECONDS for each
# target. An input that breaks something is kept in the committed corpus, which `make test`
# replays; those that only reach new code stay in the target folder for the next run.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT/protocol/fuzz" 2>/dev/null || die "protocol/fuzz is not here"

"$ROOT/scripts/need.sh" rust
host="$(rustc -vV | sed -n 's/^host: //p')"
# What `cargo fuzz` passes, so that the pinned stable toolchain is enough.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address"
timed "building the fuzz targets" cargo build --release --target "$host" --target-dir "$TARGET_DIR/fuzz"
for source in fuzz_targets/*.rs; do
    name="$(basename "$source" .rs)"
    found="$TARGET_DIR/fuzz/corpora/$name"
    mkdir -p "$found"
    timed "$name, ${FUZZ_SECONDS:-60} s" "$TARGET_DIR/fuzz/$host/release/$name" "$found" "corpora/$name" \
        -max_total_time="${FUZZ_SECONDS:-60}" -rss_limit_mb=2048 -artifact_prefix="corpora/$name/crash-"
done
