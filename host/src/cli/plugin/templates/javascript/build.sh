#!/usr/bin/env bash
# Builds {{name}}.wasm with componentize-qjs, which npm brings.
set -euo pipefail
cd "$(dirname "$0")"
nowconnect=${NOWCONNECT:-nowconnect}
missing() { echo "missing: $*" >&2; exit 1; }

command -v "$nowconnect" >/dev/null || missing "nowconnect; set NOWCONNECT to its path"
command -v node >/dev/null || missing "node; install Node.js 20 or newer"
command -v npm >/dev/null || missing "npm; it comes with Node.js"

if [ ! -x node_modules/.bin/componentize-qjs ]; then
    npm install --no-audit --no-fund --loglevel=error
fi
node_modules/.bin/componentize-qjs --wit wit -n plugin --js plugin.js \
    --stub-wasi --opt-size --sync -o {{name}}.wasm
