#!/usr/bin/env bash
# Builds the plugin with componentize-py, which pip brings, and tries it.
set -euo pipefail
# shellcheck source=examples/plugins/lib.sh
. "$(dirname "$0")/../lib.sh"

venv componentize-py==0.25.1
contract "$tools/wit"
cp "$here/app.py" "$tools/"
(cd "$tools" && venv/bin/componentize-py -d wit -w plugin componentize --stub-wasi app -o watch-list.wasm)
try "$tools/watch-list.wasm"
