#!/usr/bin/env bash
# `make demo`: builds what the demo needs and starts it. ONCE=1 shows everything and ends.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

scripts/need.sh rust guests
timed "building the plugins" scripts/build-guests.sh
say "    ${DIM}the first build takes about a quarter of an hour on two cores; later ones take seconds${PLAIN}"
# Hub and agent are inside the demo; the programs are for the operator's commands and for the
# address of the last scene.
timed "building the demo and the command line" cargo build --workspace --locked \
    --bin nowconnect --bin nowconnect-agent --bin nowconnect-demo
# The issuer of tokens is on loopback, where no proxy leads.
export NO_PROXY="127.0.0.1,localhost${NO_PROXY:+,$NO_PROXY}"
export no_proxy="$NO_PROXY"
if [ "${ONCE:-0}" = 1 ]; then
    exec "$TARGET_DIR/debug/nowconnect-demo" --once
fi
exec "$TARGET_DIR/debug/nowconnect-demo"
