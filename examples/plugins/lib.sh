# shellcheck shell=bash
# Shared by the scripts here: the program, a folder for what is built, the contract in it.
here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
nowconnect=${NOWCONNECT:-nowconnect}
# What is installed and built; keep the folder to be faster the next time.
tools=${NOWCONNECT_EXAMPLE_DIR:-$root/target/examples}/$(basename "$here")
missing() { echo "missing: $*" >&2; exit 1; }

command -v "$nowconnect" >/dev/null || missing "nowconnect; set NOWCONNECT to its path"
mkdir -p "$tools"

# contract <folder>: the plugin's world and, in deps, the contract.
contract() {
    rm -rf "$1"
    mkdir -p "$1/deps"
    cp "$here/world.wit" "$1/"
    cp -r "$root/wit/0.2" "$1/deps/nowconnect-plugin"
}

# venv <package…>: Python packages in a folder of their own.
venv() {
    command -v python3 >/dev/null || missing "python3; install Python 3.10 or newer"
    if [ ! -e "$tools/venv/.done" ]; then
        python3 -m venv "$tools/venv"
        "$tools/venv/bin/pip" install --quiet --disable-pip-version-check "$@"
        touch "$tools/venv/.done"
    fi
}

# try <component>: what every example ends with.
try() {
    cp "$here/plugin.toml" "$(dirname "$1")/"
    "$nowconnect" plugin inspect "$1"
    "$nowconnect" plugin test "$1" "$here/cases"
    "$nowconnect" plugin conformance "$1"
}
