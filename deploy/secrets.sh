#!/bin/sh
# Makes the secrets that docker-compose.yml names, each in a file; what is there already stays.
set -eu
folder=${1:-deploy/secrets}
mkdir -p "$folder"
# The folder keeps other users of this machine out. The files are readable, because containers read them as users of their own.
chmod 700 "$folder"
umask 022

keep() {
    if [ ! -s "$folder/$1" ]; then
        printf '%s\n' "$2" > "$folder/$1"
        echo "made $folder/$1"
    fi
}

random() {
    head -c 32 /dev/urandom | od -A n -t x1 | tr -d ' \n'
}

for name in pepper admin-token metrics-token database-password grafana-database-password grafana-admin-password; do
    keep "$name" "$(random)"
done
keep database-url "postgresql://meter:$(cat "$folder/database-password")@postgres/meter"
if [ -n "${ROUTERHUB_API_KEY:-}" ]; then
    keep provider-key "$ROUTERHUB_API_KEY"
fi
if [ ! -s "$folder/provider-key" ]; then
    echo "missing: put the provider's API key into $folder/provider-key"
fi
