#!/usr/bin/env bash
# `make test`: everything that must hold before a change lands, cheapest first. Each phase says
# its name and its time; a failed phase does not stop the next one. The last line is
# `N passed, N failed, N skipped`.
#
#   test.sh              all phases
#   test.sh --only lint  formatting, clippy, documentation
#
# A test whose server is missing writes a line to $NOWCONNECT_SKIP_LOG and passes if ALLOW_SKIP=1;
# otherwise it fails. TEST_ALL=1 adds the tests that are marked as slow.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

export ALLOW_SKIP="${ALLOW_SKIP:-0}"
LOGS="$TARGET_DIR/test-logs"
rm -rf "$LOGS"
mkdir -p "$LOGS"
export NOWCONNECT_SKIP_LOG="$LOGS/skipped.txt"
: >"$NOWCONNECT_SKIP_LOG"
export NOWCONNECT_BIN_DIR="$TARGET_DIR/debug"

BEGAN="$SECONDS"
PASSED=0
FAILED=0
SLOW=0
BROKEN=()
TIMES=()

# record <title> <status> <seconds>
record() {
    TIMES+=("$(printf '%6d s  %s' "$3" "$1")")
    if [ "$2" -ne 0 ]; then
        BROKEN+=("$1")
    fi
}

# check <title> <command…>: one phase that passes or fails as a whole.
check() {
    local title="$1" began="$SECONDS" status=0
    shift
    timed "$title" "$@" || status=$?
    if [ "$status" -eq 0 ]; then PASSED=$((PASSED + 1)); else FAILED=$((FAILED + 1)); fi
    record "$title" "$status" $((SECONDS - began))
}

# Cargo prints its progress on stderr, which stays on the terminal; the tests print theirs on
# stdout, of which only what is not "ok" is worth a line.
only_news() {
    awk '/^test .* \.\.\. ok$/ || /^running [0-9]+ tests?$/ || /^$/ { next } { print; fflush() }'
}

# tests <title> <command…>: one phase of cargo tests, counted one by one.
tests() {
    local title="$1" began="$SECONDS" status=0 log
    log="$LOGS/$(tr -c 'a-z0-9\n' '-' <<<"$title").log"
    shift
    run_logged() { set -o pipefail; "$@" | tee "$log" | only_news; }
    timed "$title" run_logged "$@" || status=$?
    local passed failed slow
    read -r passed failed slow < <(awk '/^test result:/ {
        for (i = 1; i <= NF; i++) {
            if ($i == "passed;") p += $(i - 1)
            if ($i == "failed;") f += $(i - 1)
            if ($i == "ignored;") s += $(i - 1)
        } } END { print p + 0, f + 0, s + 0 }' "$log")
    # A test binary that does not build or crashes fails the phase without a count of its own.
    [ "$status" -ne 0 ] && [ "$failed" -eq 0 ] && failed=1
    PASSED=$((PASSED + passed))
    FAILED=$((FAILED + failed))
    SLOW=$((SLOW + slow))
    record "$title" "$status" $((SECONDS - began))
}

summary() {
    local skipped
    skipped="$(sort -u "$NOWCONNECT_SKIP_LOG" | grep -c . || true)"
    say
    say "${BOLD}phases${PLAIN}"
    printf '%s\n' "${TIMES[@]}" >&2
    say "    total $((SECONDS - BEGAN)) s"
    [ "$SLOW" -gt 0 ] && say "$SLOW tests are marked as slow: \`make test-all\` runs them"
    if [ "$skipped" -gt 0 ]; then
        say "skipped, because something is missing (\`make install-parts\` installs it):"
        sort -u "$NOWCONNECT_SKIP_LOG" | sed 's/^/    /' >&2
    fi
    if [ "${#BROKEN[@]}" -gt 0 ]; then
        say "${RED}failed:${PLAIN}"
        printf '    %s\n' "${BROKEN[@]}" >&2
    fi
    echo "$PASSED passed, $FAILED failed, $skipped skipped"
    [ "$FAILED" -eq 0 ] && { [ "$skipped" -eq 0 ] || [ "$ALLOW_SKIP" = 1 ]; }
}

shell_scripts() {
    local script
    while read -r script; do
        bash -n "$script" || return 1
    done < <(git ls-files --cached --others --exclude-standard '*.sh' .ci/run)
}

documentation() {
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
}

lint() {
    check "formatting" cargo fmt --all --check
    check "shell scripts parse" shell_scripts
    check "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
    check "documentation" documentation
}

plugins_workspace() {
    [ -f plugins/Cargo.toml ] || return 0
    check "plugins: formatting" cargo fmt --manifest-path plugins/Cargo.toml --all --check
    check "plugins: clippy" cargo clippy --manifest-path plugins/Cargo.toml \
        --target-dir "$TARGET_DIR/plugins-host" --workspace --all-targets --locked -- -D warnings
    tests "plugins: unit tests" cargo test --manifest-path plugins/Cargo.toml \
        --target-dir "$TARGET_DIR/plugins-host" --workspace --locked --no-fail-fast
}

# It shares the folder of the hub's build, for what both depend on, and stands beside the hub
# then, which looks for it there.
prover() {
    check "prover: formatting" cargo fmt --manifest-path prove/Cargo.toml --check
    check "prover: clippy" cargo clippy --manifest-path prove/Cargo.toml \
        --target-dir "$TARGET_DIR" --all-targets --locked -- -D warnings
    check "prover: build" cargo build --manifest-path prove/Cargo.toml \
        --target-dir "$TARGET_DIR" --locked
}

shipped_files() {
    local nowconnect="$NOWCONNECT_BIN_DIR/nowconnect"
    check "config/cloud.yaml" "$nowconnect" config check config/cloud.yaml
    check "policies validate" "$nowconnect" policy check policies
    check "policy cases" "$nowconnect" policy test policies
}

# The story that `make demo` tells, to its end.
demo() {
    local log="$LOGS/demo.log"
    "$NOWCONNECT_BIN_DIR/nowconnect-demo" --once >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        return 1
    }
}

examples() {
    local script
    for script in examples/*/run.sh; do
        [ -e "$script" ] || continue
        check "$(dirname "$script")" "$script"
    done
}

everything() {
    local ignored=()
    [ "${TEST_ALL:-0}" = 1 ] && ignored=(--include-ignored)
    lint
    check "guests" scripts/build-guests.sh
    tests "architecture" cargo test --workspace --locked --test checks -- architecture::
    # All targets at once, so that the features of the dependencies are settled once.
    check "build" cargo build --workspace --all-targets --locked
    prover
    tests "unit tests" cargo test --workspace --locked --no-fail-fast --lib --bins -- "${ignored[@]}"
    tests "integration, simulation, corpus replay, end to end" cargo test --workspace --locked \
        --no-fail-fast --test '*' -- --skip architecture:: "${ignored[@]}"
    tests "documentation tests" cargo test --workspace --locked --no-fail-fast --doc
    plugins_workspace
    shipped_files
    check "demo" demo
    examples
}

need() {
    scripts/need.sh rust guests || exit 1
    local group
    local groups=(parts node)
    [ "${TEST_ALL:-0}" = 1 ] && groups+=(web cedar)
    for group in "${groups[@]}"; do
        if ! scripts/need.sh "$group"; then
            [ "$ALLOW_SKIP" = 1 ] || exit 1
            echo "some of the group \`$group\`" >>"$NOWCONNECT_SKIP_LOG"
        fi
    done
}

if [ "${1:-}" = "--only" ] && [ "${2:-}" = "lint" ]; then
    scripts/need.sh rust
    lint
else
    need
    everything
fi
summary
