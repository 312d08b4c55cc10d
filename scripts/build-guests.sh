#!/usr/bin/env bash
# Builds the plugins for wasm32 and makes components of them: plugins/target/components/*.wasm.
#
# Uses rustup's toolchain where the target wasm32-unknown-unknown is installed or can be added,
# else Debian's (rustc-web, cargo-web, rust-web-src, lld), which it installs when run as root.
# Does nothing when nothing changed. GUESTS_TOOLCHAIN=rustup|debian forces one.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
plugins=$root/plugins
target=wasm32-unknown-unknown
out=$plugins/target/components
stamp=$out/.built
guests=(authzen-pdp geo-signal header-inject jwt-claims-header log-mask pii-mask rate-limit scope-guard)

say() { printf 'guests: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

is_current() {
    [[ -e $stamp ]] || return 1
    local guest
    for guest in "${guests[@]}"; do
        [[ -e $out/$guest.wasm ]] || return 1
    done
    local newer
    newer=$(find "$plugins" "$root/wit" "${BASH_SOURCE[0]}" -path "$plugins/target" -prune \
        -o -type f -newer "$stamp" -print -quit)
    [[ -z $newer ]]
}

has_rustup_target() {
    command -v rustup >/dev/null || return 1
    (cd "$root" && rustup target list --installed 2>/dev/null | grep -qx "$target") && return 0
    # Tried once only: where there is no network, each try costs its full time.
    local tried=$plugins/target/.rustup-tried
    [[ -e $tried ]] && return 1
    mkdir -p "$plugins/target" && touch "$tried"
    say "adding the target $target to rustup's toolchain (up to 60 s, once)"
    (cd "$root" && timeout 60 rustup target add "$target" >/dev/null 2>&1) && return 0
    say "rustup could not add it; using Debian's toolchain"
    return 1
}

newest_wasm_ld() {
    { ls /usr/bin/wasm-ld /usr/bin/wasm-ld-* 2>/dev/null || true; } | sort -V | tail -n 1
}

debian_missing() {
    # Debian's rustc-web and rustc both install /usr/bin/rustc; either is good if the sources
    # of the standard library are there, because it is built with the guests.
    [[ -x /usr/bin/rustc ]] || echo rustc-web
    [[ -x /usr/bin/cargo ]] || echo cargo-web
    local sysroot
    sysroot=$( [[ -x /usr/bin/rustc ]] && /usr/bin/rustc --print sysroot || echo /usr)
    [[ -e $sysroot/lib/rustlib/src/rust/library/Cargo.lock ]] || echo rust-web-src
    [[ -n $(newest_wasm_ld) ]] || echo lld
}

install_debian() {
    local missing=("$@")
    command -v apt-get >/dev/null || fail "needed and not here: ${missing[*]}, and this system has no apt-get; install rustup and run: rustup target add $target"
    [[ $(id -u) == 0 ]] || fail "needed and not here; run as root: apt-get install ${missing[*]}   (or: rustup target add $target)"
    say "installing Debian's WebAssembly toolchain: ${missing[*]}"
    local log
    log=$(mktemp)
    # An unreachable mirror is no reason to stop: what is needed may be in the local lists.
    apt-get update >"$log" 2>&1 || tail -n 5 "$log" >&2
    # `lld` alone may be older than the compiler's LLVM; the newest one reads what it writes.
    local packages=() package
    for package in "${missing[@]}"; do
        if [[ $package == lld ]]; then
            package=$(apt-cache pkgnames lld- | grep -E '^lld-[0-9]+$' | sort -V | tail -n 1)
            [[ -n $package ]] || package=lld
        fi
        apt-cache show "$package" >/dev/null 2>&1 ||
            fail "Debian has no package $package here; install rustup and run: rustup target add $target"
        packages+=("$package")
    done
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y \
        --no-install-recommends "${packages[@]}" >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        fail "apt-get could not install ${packages[*]}"
    }
    rm -f "$log"
}

choose_toolchain() {
    case ${GUESTS_TOOLCHAIN:-} in
    rustup | debian) echo "$GUESTS_TOOLCHAIN"; return ;;
    "") ;;
    *) fail "GUESTS_TOOLCHAIN is \`$GUESTS_TOOLCHAIN\`; possible are rustup and debian" ;;
    esac
    if has_rustup_target; then echo rustup; else echo debian; fi
}

build_with_rustup() {
    say "building ${guests[*]} with $(cd "$root" && rustc --version)"
    (cd "$plugins" && cargo build --locked --release --target "$target" "${selected[@]}")
    (cd "$plugins" && cargo build --locked -p componentize)
}

build_with_debian() {
    local missing
    mapfile -t missing < <(debian_missing)
    ((${#missing[@]})) && install_debian "${missing[@]}"
    mapfile -t missing < <(debian_missing)
    ((${#missing[@]})) && fail "still not here after installing: ${missing[*]}"
    say "building ${guests[*]} with Debian's $(/usr/bin/rustc --version) and $(newest_wasm_ld)"
    # The standard library for wasm32 is not packaged; it is built from its sources, which
    # takes a nightly option. Debian's compiler is named in full because rustup's comes first
    # on most search paths.
    (
        cd "$plugins"
        export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
        export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$(newest_wasm_ld)
        /usr/bin/cargo build --locked --release --target "$target" -Z build-std=std,panic_abort \
            "${selected[@]}"
        /usr/bin/cargo build --locked -p componentize
    )
}

if is_current; then
    say "up to date in ${out#"$root"/}"
    exit 0
fi

# Whoever shares a target folder between projects must not get guests in it: hub and tests look
# for them here.
export CARGO_TARGET_DIR=$plugins/target
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
selected=()
for guest in "${guests[@]}"; do selected+=(-p "$guest"); done

mkdir -p "$out"
touch "$out/.started"
case $(choose_toolchain) in
rustup) build_with_rustup ;;
debian) build_with_debian ;;
esac
for guest in "${guests[@]}"; do
    core=$plugins/target/$target/release/${guest//-/_}.wasm
    "$plugins/target/debug/componentize" "$core" "$out/$guest.wasm"
    say "$guest: $(wc -c <"$out/$guest.wasm") bytes"
done
(cd "$out" && sha256sum ./*.wasm >SHA256SUMS)
mv "$out/.started" "$stamp"
