#!/usr/bin/env bash
# `make bench`: measures this tree beside the rivals that are installed. See bench/README.md.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

scripts/need.sh rust guests
[ -x bench/run.sh ] || die "bench/run.sh is not here"
exec bench/run.sh "$@"
