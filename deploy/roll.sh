#!/bin/sh
# Replaces one meter server after the other while requests go on: nginx stops sending requests to it, it finishes those that it
# has, its successor starts and is ready, and nginx sends requests again.
set -eu
folder=${NGINX_FOLDER:-deploy/nginx}
reload=${RELOAD:-docker compose exec -T nginx nginx -c /etc/nginx/meter/nginx.conf -s reload}
replace=${REPLACE:-docker compose up --detach --build --no-deps --force-recreate --wait}
servers=$folder/servers.conf
original=$(cat "$servers")

restore() {
    printf '%s\n' "$original" > "$servers"
}
trap restore EXIT

for server in ${SERVERS:-meter-1 meter-2}; do
    echo "replacing $server"
    printf '%s\n' "$original" | sed "s/server $server:[0-9]*/& down/" > "$servers"
    $reload
    $replace "$server"
    restore
    $reload
done
