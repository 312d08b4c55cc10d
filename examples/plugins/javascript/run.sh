#!/usr/bin/env bash
# Builds the plugin with componentize-qjs, which npm brings, and tries it.
set -euo pipefail
# shellcheck source=examples/plugins/lib.sh
. "$(dirname "$0")/../lib.sh"

command -v npm >/dev/null || missing "npm; install Node.js 20 or newer"
if [ ! -x "$tools/node_modules/.bin/componentize-qjs" ]; then
    npm install --prefix "$tools" --no-audit --no-fund --loglevel=error componentize-qjs@0.4.5
fi
contract "$tools/wit"
"$tools/node_modules/.bin/componentize-qjs" --wit "$tools/wit" -n plugin --js "$here/plugin.js" \
    --stub-wasi --opt-size --sync -o "$tools/maintenance.wasm"
try "$tools/maintenance.wasm"
