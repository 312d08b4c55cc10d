#!/usr/bin/env bash
# Builds {{name}}.wasm with componentize-py, which pip brings into a folder of its own.
set -euo pipefail
cd "$(dirname "$0")"
nowconnect=${NOWCONNECT:-nowconnect}
missing() { echo "missing: $*" >&2; exit 1; }

command -v "$nowconnect" >/dev/null || missing "nowconnect; set NOWCONNECT to its path"
command -v python3 >/dev/null || missing "python3; install Python 3.10 or newer"
python3 -c 'import venv, ensurepip' 2>/dev/null || missing "Python's venv; on Debian: apt-get install python3-venv"

if [ ! -x .venv/bin/componentize-py ]; then
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
fi
.venv/bin/componentize-py -d wit -w plugin componentize --stub-wasi app -o {{name}}.wasm
