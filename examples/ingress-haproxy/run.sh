#!/usr/bin/env bash
# HAProxy reads the shipped file. The end-to-end tests run a tunnel through it.
. "$(dirname "$0")/../lib.sh"
need haproxy openssl

make_certificate "$WORK/tls" hub.corp.example
cat "$WORK/tls/hub.corp.example.pem" "$WORK/tls/hub.corp.example.key" >"$WORK/both.pem"
adapt haproxy.cfg "/etc/nowconnect/tls/both.pem=$WORK/both.pem" "bind :443=bind 127.0.0.1:$(free_port)"
haproxy -c -q -f "$WORK/haproxy.cfg" || fail "HAProxy refuses haproxy.cfg"
ok "HAProxy accepts haproxy.cfg"
