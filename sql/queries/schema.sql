-- has_catalog --
-- Whether any migration has run: its version table exists.
SELECT to_regclass('pgretrieve.alembic_version') IS NOT NULL;

-- schema_revision --
-- The revision that the database's schema is at.
SELECT version_num FROM pgretrieve.alembic_version;

-- set_time_limits --
-- Bounds every wait of the transaction that runs it, and says in pg_stat_activity which request or job it belongs to.
-- SET LOCAL, so that poolers in transaction mode work.
SELECT set_config('statement_timeout', :statement, true), set_config('lock_timeout', :lock, true),
    set_config('application_name', coalesce(CAST(:origin AS text), current_setting('application_name')), true);

-- ping --
-- Whether the database answers.
SELECT 1;

-- swap_search_path --
-- Sets the search_path for the rest of the transaction and answers the one before; procrastinate's SQL is unqualified.
WITH before AS MATERIALIZED (SELECT current_setting('search_path') AS path)
SELECT before.path, set_config('search_path', :path, true) FROM before;

-- own_backend --
-- The server's process behind this connection, whatever a pooler says of it.
SELECT pg_backend_pid();

-- blockers --
-- Who keeps a backend waiting for a lock, and whom those wait for in turn. What they run is not told: its text may hold
-- values of other people's documents.
WITH RECURSIVE blocker (pid) AS (
    SELECT unnest(pg_blocking_pids(:pid)) UNION SELECT unnest(pg_blocking_pids(b.pid)) FROM blocker b)
SELECT DISTINCT b.pid, a.application_name, a.state, a.xact_start,
    CAST(extract(epoch FROM clock_timestamp() - a.xact_start) AS double precision) AS transaction_s,
    coalesce(a.wait_event_type = 'Lock', false) AS waiting
FROM blocker b LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
WHERE b.pid <> :pid ORDER BY waiting, a.xact_start NULLS FIRST, b.pid LIMIT 10;

-- own_locks --
-- The locks that this transaction holds on tables of a namespace and of the catalog, and its turn at the namespace.
SELECT DISTINCT CASE l.locktype WHEN 'advisory' THEN 'the namespace' ELSE s.nspname || '.' || c.relname END AS target,
    l.mode
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_class c ON l.locktype = 'relation' AND c.oid = l.relation AND c.relkind IN ('r', 'p')
LEFT JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace AND s.nspname IN (:schema, 'pgretrieve', 'pgretrieve_queue')
WHERE l.pid = pg_backend_pid() AND l.granted AND (l.locktype = 'advisory' OR s.oid IS NOT NULL);

-- own_changes --
-- What this transaction has done to each table of a namespace and of the catalog so far: the rows that its backend
-- counts (with those of transactions before it, to be subtracted), and the file that the rows lie in.
SELECT s.nspname || '.' || c.relname AS relation, pg_relation_filenode(c.oid) AS file,
    pg_stat_get_xact_tuples_inserted(c.oid) AS inserted, pg_stat_get_xact_tuples_updated(c.oid) AS updated,
    pg_stat_get_xact_tuples_deleted(c.oid) AS deleted, pg_stat_get_xact_tuples_returned(c.oid) AS read
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND s.nspname IN (:schema, 'pgretrieve', 'pgretrieve_queue');

-- documents_size --
-- How many documents a namespace has, by PostgreSQL's statistics (those of the last ANALYZE, for the pages that there are
-- now), and the bytes that reading them all takes. The table itself is not opened, which would take a lock on it.
SELECT CAST(CASE WHEN c.reltuples > 0 AND c.relpages > 0
        THEN c.reltuples / c.relpages * (pg_relation_size(c.oid) / CAST(current_setting('block_size') AS integer))
        ELSE pg_stat_get_live_tuples(c.oid) END AS bigint) AS documents,
    pg_table_size(c.oid) AS bytes
FROM pg_catalog.pg_class c
WHERE c.oid = (SELECT coalesce(CAST(n.adopted_from AS oid), d.oid)
    FROM pg_catalog.pg_class d JOIN pg_catalog.pg_namespace s ON s.oid = d.relnamespace
    LEFT JOIN pgretrieve.namespaces n ON n.schema_name = s.nspname
    WHERE s.nspname = :schema AND d.relname = 'documents');
