-- workers_alive --
-- Workers that have shown a sign of life lately.
SELECT count(*) FROM pgretrieve_queue.procrastinate_workers
WHERE last_heartbeat > now() - make_interval(secs => :seconds);

-- vitals --
-- What waits, runs and has failed, and how long the oldest of what is due has waited: each a gauge of /metrics.
SELECT j.*, w.*, (SELECT count(*) FROM pgretrieve_queue.procrastinate_workers
        WHERE last_heartbeat > now() - make_interval(secs => :seconds)) AS workers_alive
FROM (
    SELECT count(*) FILTER (WHERE j.status = 'todo') AS jobs_waiting,
        count(*) FILTER (WHERE j.status = 'doing') AS jobs_running,
        count(*) FILTER (WHERE j.status = 'failed') AS jobs_failed,
        coalesce(extract(epoch FROM now() - min(coalesce(j.scheduled_at, (
            SELECT min(e.at) FROM pgretrieve_queue.procrastinate_events e WHERE e.job_id = j.id AND e.type = 'deferred')))
            FILTER (WHERE j.status = 'todo' AND coalesce(j.scheduled_at, now()) <= now())), 0) AS jobs_oldest_seconds
    FROM pgretrieve_queue.procrastinate_jobs j WHERE j.status IN ('todo', 'doing', 'failed')
) j, (
    SELECT count(*) FILTER (WHERE failed_at IS NULL) AS work_waiting,
        count(*) FILTER (WHERE failed_at IS NOT NULL) AS work_dead,
        coalesce(extract(epoch FROM now() - min(due_at) FILTER (WHERE failed_at IS NULL AND due_at <= now())), 0)
            AS work_oldest_seconds
    FROM pgretrieve.work
) w;

-- written_until --
-- Where the next record of the write-ahead log goes: all that is committed lies before it.
SELECT CAST(pg_current_wal_insert_lsn() AS text);

-- flushed_until --
-- How much of the write-ahead log is written, and can be at a replica.
SELECT CAST(pg_current_wal_lsn() AS text);

-- replayed_until --
-- How far a replica has come; null of a server that is none.
SELECT CAST(pg_last_wal_replay_lsn() AS text) WHERE pg_is_in_recovery();
