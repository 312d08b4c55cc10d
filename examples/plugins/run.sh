#!/usr/bin/env bash
# Builds and tries the plugin in each language that is named, or in all of them if TEST_ALL=1.
set -euo pipefail
cd "$(dirname "$0")"
languages=("$@")
if [ "${#languages[@]}" -eq 0 ] && [ "${TEST_ALL:-0}" = 1 ]; then
    languages=(c go javascript python)
fi
if [ "${#languages[@]}" -eq 0 ]; then
    echo "the toolchains are slow: name languages (c go javascript python), or set TEST_ALL=1"
    exit 0
fi
if [ -z "${NOWCONNECT:-}" ] && [ -n "${NOWCONNECT_BIN_DIR:-}" ]; then
    export NOWCONNECT="$NOWCONNECT_BIN_DIR/nowconnect"
fi
for language in "${languages[@]}"; do
    echo "== $language"
    "./$language/run.sh"
done
