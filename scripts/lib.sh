# shellcheck shell=bash
# Shared by the scripts here: where things are, how progress is said, how a phase is timed.
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
TARGET_DIR="${CARGO_TARGET_DIR:-$ROOT/target}"
# Programs that are built for the tests alone.
TOOLS_DIR="$TARGET_DIR/tools"
export PATH="$TOOLS_DIR/bin:$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
    BOLD='' DIM='' RED='' GREEN='' YELLOW='' PLAIN=''
fi

say() { printf '%s\n' "$*" >&2; }
step() { say "${BOLD}==> $*${PLAIN}"; }
warn() { say "${YELLOW}warning:${PLAIN} $*"; }
die() {
    say "${RED}error:${PLAIN} $*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# timed <title> <command…>: runs it and says how long it took; the exit status is the command's.
timed() {
    local title="$1" began="$SECONDS" status=0
    shift
    step "$title"
    "$@" || status=$?
    local took=$((SECONDS - began))
    if [ "$status" -eq 0 ]; then
        say "${GREEN}    done${PLAIN} ${DIM}$title, ${took} s${PLAIN}"
    else
        say "${RED}    failed${PLAIN} $title, ${took} s, exit status $status"
    fi
    return "$status"
}
