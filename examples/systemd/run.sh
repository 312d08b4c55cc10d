#!/usr/bin/env bash
# The units hold what a service that must come back needs, and systemd itself reads them where it
# is installed.
. "$(dirname "$0")/../lib.sh"

for unit in nowconnect nowconnect-agent; do
    file="$EXAMPLE/$unit.service"
    for line in Restart=always RestartSec=2 EnvironmentFile=; do
        grep -q "^$line" "$file" || fail "$unit.service has no $line"
    done
done
for file in "$EXAMPLE"/*.env; do
    while IFS= read -r line; do
        [[ "$line" =~ ^(#.*|[A-Z][A-Z0-9_]*=.*|)$ ]] || fail "$(basename "$file"): \`$line\` is not NAME=value"
    done <"$file"
done
ok "units and environment files are complete"

if command -v systemd-analyze >/dev/null; then
    built
    mkdir "$WORK/units"
    for unit in nowconnect nowconnect-agent; do
        # `verify` wants the program and the environment file to exist.
        sed -e "s|/usr/local/bin/|$BIN/|" -e "s|/etc/nowconnect/\(hub\|agent\).env|$EXAMPLE/\1.env|" \
            "$EXAMPLE/$unit.service" >"$WORK/units/$unit.service"
        report="$(systemd-analyze verify "$WORK/units/$unit.service" 2>&1 || true)"
        ! grep -F "$unit.service" <<<"$report" | grep -v "Failed to create .*/start" | grep -q . \
            || fail "systemd-analyze: $report"
    done
    ok "systemd-analyze verify finds nothing"
fi
