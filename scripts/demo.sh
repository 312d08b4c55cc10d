#!/usr/bin/env bash
# `make demo`: builds what the demo needs and starts it. ONCE=1 shows everything and ends.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

scripts/need.sh rust guests
timed "building the plugins" scripts/build-guests.sh
say "    ${DIM}the first build takes about ten minutes on two cores; later ones take seconds${PLAIN}"
timed "building hub, agent and demo" cargo build --workspace --locked \
    --bin nowconnect --bin nowconnect-agent --bin nowconnect-demo
if [ "${ONCE:-0}" = 1 ]; then
    exec "$TARGET_DIR/debug/nowconnect-demo" --once
fi
exec "$TARGET_DIR/debug/nowconnect-demo"
