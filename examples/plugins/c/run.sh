#!/usr/bin/env bash
# Builds the plugin with zig's C compiler, which pip brings, and tries it.
set -euo pipefail
# shellcheck source=examples/plugins/lib.sh
. "$(dirname "$0")/../lib.sh"

venv ziglang==0.17.0
contract "$tools/wit"
export ZIG_GLOBAL_CACHE_DIR=$tools/cache ZIG_LOCAL_CACHE_DIR=$tools/cache
"$tools/venv/bin/python" -m ziglang cc -target wasm32-freestanding -Os -Wall -Wextra -Werror \
    -nostdlib -fno-builtin -Wl,--no-entry -Wl,--stack,16384 -o "$tools/core.wasm" "$here/plugin.c"
"$nowconnect" plugin componentize "$tools/core.wasm" "$tools/byte-budget.wasm" --wit "$tools/wit"
try "$tools/byte-budget.wasm"
