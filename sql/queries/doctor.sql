-- server_facts --
-- What `pgretrieve doctor` wants to know of a server that it may not have met before; true of any PostgreSQL.
SELECT current_setting('server_version') AS server,
    (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector') AS installed,
    (SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'vector') AS available,
    current_database() AS database, pg_postmaster_start_time() AS started,
    CAST(current_setting('max_connections') AS integer)
        - CAST(current_setting('superuser_reserved_connections') AS integer)
        - CAST(coalesce(current_setting('reserved_connections', true), '0') AS integer) AS connections,
    CAST(extract(epoch FROM CAST(current_setting('deadlock_timeout') AS interval)) * 1000 AS integer) AS deadlock_timeout_ms,
    (SELECT nullif(rolconnlimit, -1) FROM pg_catalog.pg_roles WHERE rolname = current_user) AS role_limit,
    (SELECT nullif(datconnlimit, -1) FROM pg_catalog.pg_database WHERE datname = current_database()) AS database_limit,
    (SELECT count(*) FROM pg_catalog.pg_stat_activity
        WHERE backend_type = 'client backend' AND application_name NOT LIKE 'pgretrieve%') AS others;

-- root_key_in_force --
SELECT key_hash FROM pgretrieve.api_keys WHERE key_id = 'root';

-- queue_state --
-- What waits, what failed, who works. Workers tell every ten seconds that they live.
SELECT count(*) FILTER (WHERE j.status = 'failed') AS failed,
    count(*) FILTER (WHERE j.status = 'todo' AND coalesce(j.scheduled_at, now()) <= now()) AS waiting,
    count(*) FILTER (WHERE j.status = 'doing'
        AND coalesce(w.last_heartbeat, '-infinity') < now() - interval '1 minute') AS stalled,
    CAST(extract(epoch FROM now() - min(e.at) FILTER (WHERE j.status = 'todo'
        AND coalesce(j.scheduled_at, now()) <= now())) AS double precision) AS oldest_s,
    (SELECT count(*) FROM pgretrieve_queue.procrastinate_workers
        WHERE last_heartbeat > now() - interval '1 minute') AS workers
FROM pgretrieve_queue.procrastinate_jobs j
LEFT JOIN pgretrieve_queue.procrastinate_workers w ON w.id = j.worker_id
LEFT JOIN pgretrieve_queue.procrastinate_events e ON e.job_id = j.id AND e.type = 'deferred';

-- failed_jobs --
-- The latest that failed.
SELECT j.id, j.task_name, j.args ->> 'namespace_id' AS namespace_id, max(e.at) AS failed_at
FROM pgretrieve_queue.procrastinate_jobs j
LEFT JOIN pgretrieve_queue.procrastinate_events e ON e.job_id = j.id AND e.type = 'failed'
WHERE j.status = 'failed' GROUP BY j.id ORDER BY max(e.at) DESC NULLS LAST, j.id DESC LIMIT 5;

-- troubled_indexes --
-- Vector indexes that queries do not use: not ready in the catalog, or ready there but not valid in the database; and
-- whether a job is going to build them.
SELECT * FROM (
    SELECT c.namespace_id, c.name, c.index_state AS state, coalesce(i.indisvalid, false) AS valid,
        EXISTS (SELECT 1 FROM pgretrieve_queue.procrastinate_jobs j
            WHERE j.task_name = 'build_index' AND j.status IN ('todo', 'doing')
                AND j.args ->> 'namespace_id' = c.namespace_id AND j.args ->> 'name' = c.name) AS awaited
    FROM pgretrieve.vector_configs c JOIN pgretrieve.namespaces n USING (namespace_id)
    LEFT JOIN pg_catalog.pg_namespace s ON s.nspname = n.schema_name
    LEFT JOIN pg_catalog.pg_class a ON a.oid = n.adopted_from
    LEFT JOIN pg_catalog.pg_class x ON x.relnamespace = coalesce(a.relnamespace, s.oid) AND x.relname = c.index_name
    LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = x.oid
    WHERE c.index_method <> 'exact') found
WHERE state <> 'ready' OR NOT valid ORDER BY namespace_id, name;

-- services_in_use --
SELECT inference_service AS name, array_agg(DISTINCT namespace_id ORDER BY namespace_id) AS namespaces
FROM pgretrieve.vector_inference_map GROUP BY inference_service ORDER BY inference_service;
