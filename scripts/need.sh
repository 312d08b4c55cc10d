#!/usr/bin/env bash
# Makes sure that the tools of the named groups are here:
#
#   need.sh rust      cargo at the version of rust-toolchain.toml, and a C compiler
#   need.sh guests    a Rust toolchain that can build WebAssembly
#   need.sh parts     the servers that the end-to-end tests run against
#   need.sh prover    the solver that nowconnect-prove asks
#   need.sh node      Node.js and the packages of scripts/parts
#   need.sh web       a browser, a load generator, suites of WebSocket cases and of API calls, for
#                     the slow tests
#   need.sh cedar     the stock `cedar` program at the engine's version, for the slow tests
#
# What is missing is named first. As root it is then installed with apt, rustup and npm, each
# with its own settings; otherwise the exact command is printed and nothing is changed. The end
# is always one of two: everything is here (exit 0), or a message says what is not (exit 1).
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

APT_LOCK_TIMEOUT_SECONDS=900
APT_TRIES=3
APT_UPDATED=0

# A server that can be reached sends the target in a few seconds; one that cannot must not hold
# up a first build, because the distribution has a toolchain too.
RUSTUP_TIMEOUT_SECONDS=60

# program:package. A program in sbin counts: lib.sh puts it on PATH.
PARTS=(
    slapd:slapd ldapsearch:ldap-utils slapadd:slapd
    nginx:nginx haproxy:haproxy
    tinyproxy:tinyproxy microsocks:microsocks
    promtool:prometheus
    openssl:openssl curl:curl
    sshd:openssh-server ssh:openssh-client
    redis-server:redis-server redis-cli:redis-tools
    cvc5:cvc5
    pebble:pebble pebble-challtestsrv:pebble
)

apt_retry() {
    local try
    for try in $(seq 1 "$APT_TRIES"); do
        if DEBIAN_FRONTEND=noninteractive apt-get -o "DPkg::Lock::Timeout=$APT_LOCK_TIMEOUT_SECONDS" \
            -o Acquire::Retries=3 "$@" </dev/null >&2; then
            return 0
        fi
        [ "$try" -lt "$APT_TRIES" ] && { warn "apt-get $1 failed, trying again"; sleep $((try * 3)); }
    done
    return 1
}

# apt_install <why> <package…>
apt_install() {
    local why="$1"
    shift
    local command="apt-get install -y --no-install-recommends $*"
    if ! have apt-get; then
        die "$why: install the equivalents of these Debian packages and try again: $*"
    fi
    if [ "$(id -u)" -ne 0 ]; then
        die "$why. Run this, then try again:
    sudo apt-get update && sudo $command"
    fi
    step "installing: $*"
    if [ "$APT_UPDATED" -eq 0 ]; then
        apt_retry update -qq || warn "apt-get update failed, trying with the lists that are here"
        APT_UPDATED=1
    fi
    apt_retry install -y -qq --no-install-recommends "$@" || die "$why, and this failed: $command"
}

# need_programs <why> <program:package…>: installs the packages of the absent programs, then
# looks again.
need_programs() {
    local why="$1" pair missing=() packages=()
    shift
    for pair in "$@"; do
        have "${pair%%:*}" || { missing+=("${pair%%:*}"); packages+=("${pair##*:}"); }
    done
    [ "${#missing[@]}" -eq 0 ] && return 0
    say "missing: ${missing[*]}"
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    apt_install "$why" "${packages[@]}"
    hash -r
    for pair in "$@"; do
        have "${pair%%:*}" || die "\`${pair%%:*}\` is still missing after installing ${pair##*:}"
    done
}

need_rust() {
    if ! have cargo; then
        die "cargo is missing: install rustup as the Rust project's site describes, open a new shell, and try again"
    fi
    # With rustup the first call here fetches the toolchain that rust-toolchain.toml names.
    (cd "$ROOT" && cargo --version >/dev/null) \
        || die "cargo does not start in this folder; \`rustup toolchain install\` here says why"
    local wanted found
    wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")"
    found="$(cd "$ROOT" && cargo --version | cut -d' ' -f2)"
    if [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n1)" != "$wanted" ]; then
        die "cargo $found is older than $wanted: run \`rustup update\`, or install rustup"
    fi
    need_programs "a C compiler is needed for the cryptography library" cc:gcc make:make
    if ! printf 'int main(void){return 0;}\n' | cc -x c -o /dev/null - 2>/dev/null; then
        apt_install "the C compiler cannot link a program" libc6-dev
    fi
}

rustup_has_wasm() {
    have rustup && (cd "$ROOT" && rustup target list --installed 2>/dev/null) | grep -qx wasm32-unknown-unknown
}

debian_has_wasm() {
    [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && compgen -G '/usr/bin/wasm-ld*' >/dev/null \
        && [ -d "$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library" ]
}

need_guests() {
    rustup_has_wasm && return 0
    debian_has_wasm && return 0
    say "missing: a Rust toolchain for wasm32-unknown-unknown"
    if have rustup; then
        step "rustup target add wasm32-unknown-unknown ${DIM}(waits at most $RUSTUP_TIMEOUT_SECONDS s for the server)${PLAIN}"
        if (cd "$ROOT" && timeout "$RUSTUP_TIMEOUT_SECONDS" rustup target add wasm32-unknown-unknown >&2); then
            rustup_has_wasm && return 0
        fi
        warn "rustup could not add the target within $RUSTUP_TIMEOUT_SECONDS s; using the distribution's toolchain"
        # build-guests.sh need not wait for the same again.
        mkdir -p "$ROOT/plugins/target" && touch "$ROOT/plugins/target/.rustup-tried"
    fi
    local linker
    linker="$(apt-cache search --names-only '^lld-[0-9]+$' 2>/dev/null | awk '{print $1}' | sort -V | tail -n1)"
    apt_install "plugins need a Rust toolchain for wasm32-unknown-unknown" \
        rustc-web cargo-web rust-web-src "${linker:-lld}"
    debian_has_wasm || die "no toolchain for wasm32-unknown-unknown: \`rustup target add wasm32-unknown-unknown\` and the packages rustc-web, cargo-web, rust-web-src and lld were tried"
}

need_parts() {
    need_programs "the end-to-end tests run against real servers" "${PARTS[@]}"
}

need_prover() {
    need_programs "proofs need a solver" cvc5:cvc5
}

need_node() {
    if ! have node || ! have npm; then
        need_programs "the OpenID provider and the trace receiver of the tests run on Node.js" node:nodejs npm:npm
    fi
    local dir="$ROOT/scripts/parts"
    # npm writes this file last, so it is there only after a complete installation.
    if [ "$dir/node_modules/.package-lock.json" -nt "$dir/package-lock.json" ]; then
        return 0
    fi
    step "npm ci in scripts/parts"
    local try
    for try in 1 2 3; do
        if (cd "$dir" && npm ci --no-audit --no-fund --loglevel=error </dev/null >&2); then
            touch "$dir/node_modules/.package-lock.json"
            return 0
        fi
        rm -rf "$dir/node_modules"
        [ "$try" -lt 3 ] && { warn "npm ci failed, trying again"; sleep "$try"; }
    done
    die "\`npm ci\` in scripts/parts failed"
}

# Programs of Python packages stand in an environment of their own.
need_python() {
    have python3 && python3 -c 'import ensurepip' 2>/dev/null \
        || apt_install "some suites of the slow tests are Python packages" python3 python3-venv
    local venv="$TOOLS_DIR/python" wanted="$ROOT/scripts/parts/requirements.txt"
    if [ "$venv/.installed" -nt "$wanted" ]; then
        return 0
    fi
    step "pip install -r scripts/parts/requirements.txt"
    python3 -m venv --clear "$venv" \
        && "$venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 -r "$wanted" >&2 \
        || die "\`pip install -r scripts/parts/requirements.txt\` failed"
    touch "$venv/.installed"
}

need_web() {
    need_programs "the slow tests ask as browsers and load generators do" \
        chromium:chromium h2load:nghttp2-client
    need_python
    mkdir -p "$TOOLS_DIR/bin"
    local name
    for name in kosoku schemathesis; do
        ln -sf "$TOOLS_DIR/python/bin/$name" "$TOOLS_DIR/bin/$name"
    done
}

need_cedar() {
    local version
    version="$(awk '$0 == "name = \"cedar-policy\"" { getline; gsub(/"/, "", $3); print $3; exit }' "$ROOT/Cargo.lock")"
    [ "$(cedar --version 2>/dev/null)" = "cedar-policy-cli $version" ] && return 0
    step "cargo install cedar-policy-cli $version ${DIM}(some minutes, once)${PLAIN}"
    # Without optimisation, which takes three times as long and saves a second of running.
    cargo install cedar-policy-cli --version "=$version" --locked --debug --quiet \
        --root "$TOOLS_DIR" --target-dir "$TOOLS_DIR/build" \
        || die "\`cargo install cedar-policy-cli\` failed"
}

[ "$#" -gt 0 ] || die "name one or more of: rust, guests, parts, prover, node, web, cedar"
for group in "$@"; do
    case "$group" in
        rust) need_rust ;;
        guests) need_guests ;;
        parts) need_parts ;;
        prover) need_prover ;;
        node) need_node ;;
        web) need_web ;;
        cedar) need_cedar ;;
        *) die "unknown group \`$group\`: name one or more of rust, guests, parts, prover, node, web, cedar" ;;
    esac
done
