#!/usr/bin/env bash
# Measures this tree beside its rivals and writes bench/results/<date>.md and .json.
# `bench/run.sh --quick` takes about eight minutes, without it about an hour; other
# options go on to `nowconnect-bench run` (see its --help).
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${XDG_CACHE_HOME:-$HOME/.cache}/nowconnect-bench"
target="${CARGO_TARGET_DIR:-target}"
work="$(mktemp -d "${TMPDIR:-/tmp}/nowconnect-bench.XXXXXX")"
trap 'rm -rf "$work"' EXIT

install_rivals() {
    local missing=()
    for part in haproxy:haproxy sshd:openssh-server ssh:openssh-client slapd:slapd \
        ldapsearch:ldap-utils openssl:openssl nginx:nginx wrk:wrk h2load:nghttp2-client; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "${part%%:*}" >/dev/null || missing+=("${part##*:}")
    done
    if [ "${#missing[@]}" -gt 0 ]; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            echo "installing ${missing[*]}"
            DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y \
                --no-install-recommends "${missing[@]}" >"$work/apt.log" 2>&1 \
                || { tail -5 "$work/apt.log"; echo "not installed: ${missing[*]}"; }
        else
            echo "not installed, left out: ${missing[*]}"
        fi
    fi
    # Without --locked: the lock file of rathole 0.5.0 holds a crate that today's compiler
    # does not take.
    for rival in rathole:rathole@0.5.0 bore:bore-cli@0.6.0; do
        [ -x "$cache/bin/${rival%%:*}" ] && continue
        echo "building ${rival##*:} (once, into $cache)"
        CARGO_TARGET_DIR="$cache/target" cargo install --quiet --root "$cache" "${rival##*:}" \
            >"$work/rival.log" 2>&1 || { tail -5 "$work/rival.log"; echo "left out: ${rival%%:*}"; }
    done
    rm -rf "$cache/target"
}

install_rivals
if [ -x scripts/build-guests.sh ]; then
    scripts/build-guests.sh
fi
echo "building the product and the bench with optimisation"
cargo build --release -p nowconnect -p nowconnect-agent -p nowconnect-bench

mkdir -p bench/results
out="bench/results/$(date -u +%Y-%m-%dT%H%M%SZ)"
"$target/release/nowconnect-bench" run --root . --bin-dir "$target/release" \
    --rivals-dir "$cache/bin" --work-dir "$work/peers" --out "$out" "$@"
sed -n '/^## Figures to reach/,/^## /p' "$out.md" | sed '$d'
