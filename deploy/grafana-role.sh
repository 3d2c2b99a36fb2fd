#!/bin/sh
# Makes the role that Grafana reads the database with, or gives it the password of now. PG* say where the database is.
set -eu
password=$(cat "$1")
PGPASSWORD=$(cat "$2")
export PGPASSWORD
if [ "$(psql -qAt -c "SELECT count(*) FROM pg_roles WHERE rolname = 'meter_grafana'")" = 0 ]; then
    psql -q -v ON_ERROR_STOP=1 -f "$3"
fi
echo "ALTER ROLE meter_grafana PASSWORD :'password'" | psql -q -v ON_ERROR_STOP=1 -v password="$password"
