#!/usr/bin/env bash
# Three OpenLDAP servers behind one agent; each is searched over LDAPS through its own listener.
. "$(dirname "$0")/../lib.sh"
need openssl slapd slapadd ldapsearch

issue_token site-1 ldaps_dc1 ldaps_dc2 ldaps_dc3
declare -A LISTEN TARGET
for dc in dc1 dc2 dc3; do
    LISTEN[$dc]="$(free_port)" TARGET[$dc]="$(free_port)"
    make_certificate "$WORK/$dc" "$dc.corp.local"
    mkdir -p "$WORK/$dc/db"
    cat >"$WORK/$dc/slapd.conf" <<CONF
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCACertificateFile $WORK/$dc/ca.pem
TLSCertificateFile $WORK/$dc/$dc.corp.local.pem
TLSCertificateKeyFile $WORK/$dc/$dc.corp.local.key
database mdb
suffix "dc=corp,dc=local"
directory $WORK/$dc/db
maxsize 8388608
CONF
    slapadd -q -f "$WORK/$dc/slapd.conf" <<LDIF
dn: dc=corp,dc=local
objectClass: dcObject
objectClass: organization
dc: corp
o: $dc
LDIF
    start "slapd-$dc" slapd -f "$WORK/$dc/slapd.conf" -h "ldaps://127.0.0.1:${TARGET[$dc]}" -d 0
    wait_for_port "${TARGET[$dc]}"
done

adapt cloud.yaml ":6361=:${LISTEN[dc1]}" ":6362=:${LISTEN[dc2]}" ":6363=:${LISTEN[dc3]}"
adapt premise.yaml "dc1.corp.local, port: 636=127.0.0.1, port: ${TARGET[dc1]}" \
    "dc2.corp.local, port: 636=127.0.0.1, port: ${TARGET[dc2]}" \
    "dc3.corp.local, port: 636=127.0.0.1, port: ${TARGET[dc3]}"
run_gateway

# search <listener> <whose authority>: prints which directory answered.
search() {
    LDAPRC=/dev/null LDAPTLS_CACERT="$WORK/$2/ca.pem" LDAPTLS_REQCERT=demand \
        ldapsearch -x -LLL -o nettimeout=5 -H "ldaps://127.0.0.1:${LISTEN[$1]}" \
        -b dc=corp,dc=local -s base o 2>/dev/null | sed -n 's/^o: //p'
}

for dc in dc1 dc2 dc3; do
    answer="$(search "$dc" "$dc")"
    [ "$answer" = "$dc" ] || fail "the listener of $dc was answered by \`$answer\`"
    ok "ldaps_$dc answered, with the directory's own certificate"
done
[ -z "$(search dc1 dc2)" ] || fail "a certificate of another authority was accepted"
ok "a client that trusts another authority is not connected: TLS is not ended on the way"
