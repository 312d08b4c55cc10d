#!/usr/bin/env bash
# Real clients and servers of the protocols that install cheaply, each through its own listener;
# the others are checked as configuration.
. "$(dirname "$0")/../lib.sh"
need openssl curl sshd ssh ssh-keygen slapd slapadd ldapsearch nginx

ALL=(ssh telnet krb ldap ldaps mssql oracle gc gcssl mysql postgres http https)
issue_token site-1 "${ALL[@]}"
declare -A LISTEN TARGET SHIPPED=(
    [ssh]=22 [telnet]=23 [krb]=88 [ldap]=389 [ldaps]=636 [mssql]=1433 [oracle]=1521
    [gc]=3268 [gcssl]=3269 [mysql]=3306 [postgres]=5432 [http]=18080 [https]=18443
)
for name in "${ALL[@]}"; do
    LISTEN[$name]="$(free_port)" TARGET[$name]="$(free_port)"
done

# --- servers ---
mkdir -p "$WORK/ssh" "$WORK/ldap/db" "$WORK/web"
ssh-keygen -q -t ed25519 -N '' -f "$WORK/ssh/host"
ssh-keygen -q -t ed25519 -N '' -f "$WORK/ssh/client"
cp "$WORK/ssh/client.pub" "$WORK/ssh/authorized_keys"
# sshd wants this folder for its unprivileged half when it is started by root.
[ "$(id -u)" -ne 0 ] || mkdir -p /run/sshd
start sshd "$(command -v sshd)" -D -e -f /dev/null -p "${TARGET[ssh]}" -h "$WORK/ssh/host" \
    -o ListenAddress=127.0.0.1 -o PidFile=none -o UsePAM=no -o StrictModes=no \
    -o PasswordAuthentication=no -o AuthorizedKeysFile="$WORK/ssh/authorized_keys" -o ForceCommand='echo from-sshd'

make_certificate "$WORK/ldap" ldaps.corp.local
cat >"$WORK/ldap/slapd.conf" <<CONF
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCACertificateFile $WORK/ldap/ca.pem
TLSCertificateFile $WORK/ldap/ldaps.corp.local.pem
TLSCertificateKeyFile $WORK/ldap/ldaps.corp.local.key
database mdb
suffix "dc=corp,dc=local"
directory $WORK/ldap/db
maxsize 8388608
CONF
printf 'dn: dc=corp,dc=local\nobjectClass: dcObject\nobjectClass: organization\ndc: corp\no: corp\n' |
    slapadd -q -f "$WORK/ldap/slapd.conf"
start slapd slapd -f "$WORK/ldap/slapd.conf" -d 0 \
    -h "ldap://127.0.0.1:${TARGET[ldap]} ldaps://127.0.0.1:${TARGET[ldaps]}"

make_certificate "$WORK/web" https.corp.local
cat >"$WORK/web/nginx.conf" <<CONF
error_log stderr error;
pid $WORK/web/nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path $WORK/web/t; proxy_temp_path $WORK/web/t; fastcgi_temp_path $WORK/web/t;
    uwsgi_temp_path $WORK/web/t; scgi_temp_path $WORK/web/t;
    server { listen 127.0.0.1:${TARGET[http]}; location / { return 200 "from-http\n"; } }
    server {
        listen 127.0.0.1:${TARGET[https]} ssl;
        ssl_certificate $WORK/web/https.corp.local.pem;
        ssl_certificate_key $WORK/web/https.corp.local.key;
        location / { return 200 "from-https\n"; }
    }
}
CONF
start nginx nginx -p "$WORK/web" -e error.log -c "$WORK/web/nginx.conf" -g 'daemon off; master_process off;'
for name in ssh ldap ldaps http https; do
    wait_for_port "${TARGET[$name]}"
done

POSTGRES=""
if command -v initdb >/dev/null && command -v postgres >/dev/null; then
    POSTGRES="$(dirname "$(command -v initdb)")"
else
    POSTGRES="$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n1 || true)"
fi
if [ -n "$POSTGRES" ] && [ -x "$POSTGRES/initdb" ] && command -v psql >/dev/null; then
    # The server refuses to run as root.
    as_postgres() { if [ "$(id -u)" -eq 0 ]; then setpriv --reuid nobody --regid nogroup --clear-groups "$@"; else "$@"; fi; }
    mkdir "$WORK/pg"
    chmod 755 "$WORK"
    [ "$(id -u)" -ne 0 ] || chown nobody:nogroup "$WORK/pg"
    if as_postgres "$POSTGRES/initdb" -D "$WORK/pg/data" -U site -A trust -N >"$WORK/initdb.log" 2>&1; then
        start postgres as_postgres "$POSTGRES/postgres" -D "$WORK/pg/data" -p "${TARGET[postgres]}" \
            -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off
        wait_for_port "${TARGET[postgres]}"
    else
        POSTGRES=""
    fi
fi

# --- the gateway ---
listeners=() targets=()
for name in "${ALL[@]}"; do
    listeners+=("name: $name, bind: \"0.0.0.0:${SHIPPED[$name]}\"=name: $name, bind: \"0.0.0.0:${LISTEN[$name]}\"")
    host="$(sed -n "s/^  $name: {host: \([a-z.]*\),.*/\1/p" "$EXAMPLE/premise.yaml")"
    targets+=("$host, port: ${SHIPPED[$name]}=127.0.0.1, port: ${TARGET[$name]}")
done
adapt cloud.yaml "${listeners[@]}"
adapt premise.yaml "${targets[@]}"
run_gateway
ok "the configuration with ${#ALL[@]} protocols is in force"

# --- clients ---
expect() {
    local name="$1" wanted="$2" got
    shift 2
    got="$("$@" 2>"$WORK/client-$name.log" || true)"
    [[ "$got" == *"$wanted"* ]] || fail "$name answered \`$got\`, not \`$wanted\`"
    ok "$name works"
}
expect ssh from-sshd ssh -F /dev/null -p "${LISTEN[ssh]}" -i "$WORK/ssh/client" -o BatchMode=yes \
    -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=10 "$(id -un)@127.0.0.1" x
expect ldap "o: corp" env LDAPRC=/dev/null ldapsearch -x -LLL -H "ldap://127.0.0.1:${LISTEN[ldap]}" \
    -b dc=corp,dc=local -s base o
expect ldaps "o: corp" env LDAPRC=/dev/null LDAPTLS_CACERT="$WORK/ldap/ca.pem" LDAPTLS_REQCERT=demand \
    ldapsearch -x -LLL -H "ldaps://127.0.0.1:${LISTEN[ldaps]}" -b dc=corp,dc=local -s base o
expect http from-http curl -sS --noproxy '*' --max-time 10 "http://127.0.0.1:${LISTEN[http]}/"
expect https from-https curl -sS --noproxy '*' --max-time 10 --cacert "$WORK/web/ca.pem" \
    --resolve "https.corp.local:${LISTEN[https]}:127.0.0.1" "https://https.corp.local:${LISTEN[https]}/"
if [ -n "$POSTGRES" ]; then
    expect postgres from-postgres psql -X -At -h 127.0.0.1 -p "${LISTEN[postgres]}" -U site -d postgres \
        -c "select 'from-' || 'postgres'"
fi
