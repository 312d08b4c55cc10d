# shellcheck shell=bash
# Shared by the examples' run.sh: a folder that goes away, free ports, certificates, an issuer of
# tokens, and the shipped configuration with its ports and paths replaced by these.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
EXAMPLE="$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)"
NAME="$(basename "$EXAMPLE")"
BIN="${NOWCONNECT_BIN_DIR:-${CARGO_TARGET_DIR:-$ROOT/target}/debug}"
WORK="$(mktemp -d "${TMPDIR:-/tmp}/nc-$NAME.XXXXXX")"
export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"
# Variables of the caller's shell would override the configuration that is shown here.
unset "${!NC_@}" "${!OTEL_@}" LOG_LEVEL HTTPS_PROXY https_proxy ALL_PROXY all_proxy NO_PROXY no_proxy
PIDS=()
WAIT_SECONDS=60

cleanup() {
    local status=$?
    trap - EXIT
    local pid
    for pid in "${PIDS[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${PIDS[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    if [ "$status" -ne 0 ]; then
        echo "$NAME: failed; the logs follow" >&2
        tail -n 30 "$WORK"/*.log >&2 2>/dev/null || true
    fi
    rm -rf "$WORK"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() {
    echo "$NAME: $*" >&2
    exit 1
}

# need <program…>: ends the script where one is missing; that is a failure unless ALLOW_SKIP=1.
need() {
    local program missing=()
    for program in "$@"; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    [ "${#missing[@]}" -eq 0 ] && return
    echo "$NAME: missing: ${missing[*]}; \`make install-parts\` installs them" >&2
    [ "${ALLOW_SKIP:-0}" = 1 ] || exit 1
    [ -z "${NOWCONNECT_SKIP_LOG:-}" ] || echo "examples/$NAME: ${missing[*]} missing" >>"$NOWCONNECT_SKIP_LOG"
    exit 0
}

built() {
    [ -x "$BIN/nowconnect" ] && [ -x "$BIN/nowconnect-agent" ] && return
    (cd "$ROOT" && cargo build --workspace --bin nowconnect --bin nowconnect-agent)
}

# free_port: prints a port that nothing listens on. They are taken below the range that the
# system gives to outgoing connections, so that none is lost to a client meanwhile.
free_port() {
    local port
    while :; do
        port=$((12000 + RANDOM % 18000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

# start <name> <command…>: runs a server in the background, its output in $WORK/<name>.log.
start() {
    local name="$1"
    shift
    "$@" </dev/null >"$WORK/$name.log" 2>&1 &
    PIDS+=("$!")
}

# eventually <what> <command…>: until the command succeeds.
eventually() {
    local what="$1" end=$((SECONDS + WAIT_SECONDS))
    shift
    until "$@" 2>/dev/null; do
        [ "$SECONDS" -lt "$end" ] || fail "$what: not within $WAIT_SECONDS s"
        sleep 0.1
    done
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
wait_for_port() { eventually "port $1" listens "$1"; }
says_ready() { [ "$(exec 3<>"/dev/tcp/127.0.0.1/$1" && timeout 2 cat <&3)" = READY ]; }

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

# make_certificate <folder> <name>: <folder>/ca.pem, and <name>.pem and <name>.key issued by it
# for the name, localhost and 127.0.0.1.
make_certificate() {
    local folder="$1" name="$2"
    mkdir -p "$folder"
    if [ ! -e "$folder/ca.pem" ]; then
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=example authority" \
            -keyout "$folder/ca.key" -out "$folder/ca.pem" 2>/dev/null
    fi
    openssl req -new -newkey rsa:2048 -nodes -subj "/CN=$name" \
        -keyout "$folder/$name.key" -out "$folder/$name.csr" 2>/dev/null
    openssl x509 -req -in "$folder/$name.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" \
        -set_serial "0x$(openssl rand -hex 8)" -days 2 -out "$folder/$name.pem" \
        -extfile <(echo "subjectAltName=DNS:$name,DNS:localhost,IP:127.0.0.1") 2>/dev/null
}

# issue_token <agent id> <connector…>: $WORK/jwks.json and $WORK/agent.token, as your identity
# provider would.
issue_token() {
    local agent="$1" now scopes head body
    shift
    openssl genrsa -out "$WORK/issuer.key" 2048 2>/dev/null
    local modulus
    modulus="$(openssl rsa -in "$WORK/issuer.key" -noout -modulus | cut -d= -f2)"
    # shellcheck disable=SC2059
    modulus="$(printf "$(sed 's/../\\x&/g' <<<"$modulus")" | base64url)"
    printf '{"keys":[{"kty":"RSA","alg":"RS256","use":"sig","kid":"example","e":"AQAB","n":"%s"}]}' \
        "$modulus" >"$WORK/jwks.json"
    now="$(date +%s)"
    scopes="$(printf '"%s",' "$@")"
    head="$(printf '{"alg":"RS256","typ":"JWT","kid":"example"}' | base64url)"
    body="$(printf '{"iss":"https://login.corp.example","aud":"nowconnect","sub":"%s","agent_id":"%s","connectors":[%s],"iat":%d,"exp":%d}' \
        "$agent" "$agent" "${scopes%,}" "$now" $((now + 900)) | base64url)"
    printf '%s.%s.%s' "$head" "$body" \
        "$(printf '%s.%s' "$head" "$body" | openssl dgst -sha256 -sign "$WORK/issuer.key" -binary | base64url)" \
        >"$WORK/agent.token"
    chmod 600 "$WORK/agent.token"
}

# adapt <file> <from=to…>: a shipped file, with texts replaced, as $WORK/<file>.
adapt() {
    local file="$1" pair text
    shift
    text="$(cat "$EXAMPLE/$file")"
    for pair in "$@"; do
        [[ "$text" == *"${pair%%=*}"* ]] || fail "$file does not contain \`${pair%%=*}\`"
        text="${text//"${pair%%=*}"/"${pair#*=}"}"
    done
    printf '%s\n' "$text" >"$WORK/$file"
}

# run_gateway <listener=port…>: hub and agent with the example's cloud.yaml and premise.yaml.
# Expects $WORK/premise.yaml to be adapted to the targets, and listeners in $WORK/cloud.yaml.
run_gateway() {
    local tunnel metrics health
    tunnel="$(free_port)" metrics="$(free_port)" health="$(free_port)"
    make_certificate "$WORK/tls" hub.corp.example
    cp -r "$EXAMPLE/policies" "$WORK/"
    sed -i -e "s|port: 8765|port: $tunnel|" -e "s|0\.0\.0\.0|127.0.0.1|g" \
        -e "s|metrics_port: 8000|metrics_port: $metrics|" \
        -e "s|/etc/nowconnect/tls/cert.pem|tls/hub.corp.example.pem|" \
        -e "s|/etc/nowconnect/tls/key.pem|tls/hub.corp.example.key|" \
        -e "s|/etc/nowconnect/jwks.json|jwks.json|" \
        -e "s|/run/nowconnect/admin.sock|$WORK/admin.sock|" "$WORK/cloud.yaml"
    sed -i -e "s|wss://hub.corp.example:8765|wss://localhost:$tunnel|" \
        -e "s|/etc/nowconnect/ca.pem|$WORK/tls/ca.pem|" \
        -e "s|/etc/nowconnect/agent.token|$WORK/agent.token|" \
        -e "s|health_port: 8090|health_port: $health|" -e "s|0\.0\.0\.0|127.0.0.1|g" "$WORK/premise.yaml"
    built
    "$BIN/nowconnect" config check "$WORK/cloud.yaml" >"$WORK/check.log" || fail "cloud.yaml does not check"
    start hub "$BIN/nowconnect" run --config "$WORK/cloud.yaml"
    wait_for_port "$tunnel"
    start agent "$BIN/nowconnect-agent" run --config "$WORK/premise.yaml"
    eventually "the agent's READY" says_ready "$health"
}

ok() { echo "$NAME: $*"; }
