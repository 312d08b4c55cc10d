#!/usr/bin/env bash
# nginx reads the shipped file. The end-to-end tests run a tunnel through it.
. "$(dirname "$0")/../lib.sh"
need nginx openssl

make_certificate "$WORK/tls" hub.corp.example
mkdir -p "$WORK/body" "$WORK/proxy"
adapt nginx.conf "/etc/nowconnect/tls/cert.pem=$WORK/tls/hub.corp.example.pem" \
    "/etc/nowconnect/tls/key.pem=$WORK/tls/hub.corp.example.key" "listen 443=listen 127.0.0.1:$(free_port)"
nginx -t -q -p "$WORK" -e error.log -c "$WORK/nginx.conf" || fail "nginx refuses nginx.conf"
ok "nginx accepts nginx.conf"
