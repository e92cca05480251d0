#!/usr/bin/env bash
# Copies the primary once, and follows it from then on.
set -euo pipefail
export PGDATA=/var/lib/postgresql/replica
PGPASSWORD=$(cat /run/secrets/replication_password)
export PGPASSWORD
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    rm -rf "$PGDATA"
    pg_basebackup -h postgres -U replicator -D "$PGDATA" -X stream -S replica -R -c fast
    chmod 700 "$PGDATA"
fi
exec postgres -c hot_standby_feedback=on -c listen_addresses='*'
