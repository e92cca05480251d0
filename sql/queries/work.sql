-- claim_work --
-- What is due first, of one kind, target and priority, leased for a while. Rows that another worker is claiming are passed over.
WITH first AS (
    SELECT kind, target, priority FROM pgretrieve.work
    WHERE namespace_id = :namespace_id AND failed_at IS NULL AND due_at <= now()
        AND (leased_until IS NULL OR leased_until < now()) AND target <> ALL(CAST(:without AS text[]))
        AND (CAST(:subjects AS text[]) IS NULL OR kind = 'embed' AND subject = ANY(CAST(:subjects AS text[])))
    ORDER BY priority DESC, work_id LIMIT 1 FOR UPDATE SKIP LOCKED),
chosen AS (
    SELECT w.work_id FROM pgretrieve.work w JOIN first f ON f.kind = w.kind AND f.target = w.target AND f.priority = w.priority
    WHERE w.namespace_id = :namespace_id AND w.failed_at IS NULL AND w.due_at <= now()
        AND (w.leased_until IS NULL OR w.leased_until < now())
        AND (CAST(:subjects AS text[]) IS NULL OR w.subject = ANY(CAST(:subjects AS text[])))
    ORDER BY w.work_id LIMIT :size FOR UPDATE OF w SKIP LOCKED)
UPDATE pgretrieve.work w SET lease = gen_random_uuid(), leased_until = now() + CAST(:lease AS interval),
    attempts = w.attempts + 1
FROM chosen WHERE w.work_id = chosen.work_id
RETURNING w.work_id, w.kind, w.target, w.subject, w.attempts, w.lease, w.priority;

-- pending_work --
-- Of these documents, what is to be embedded into some columns: not yet, or (with a message) not ever; and the seconds
-- until it may be tried.
SELECT subject, target, failed_at IS NOT NULL AS failed, error ->> 'message' AS message,
    greatest(extract(epoch FROM due_at - now()), 0)::float8 AS pause
FROM pgretrieve.work
WHERE namespace_id = :namespace_id AND kind = 'embed' AND target = ANY(CAST(:targets AS text[]))
    AND subject = ANY(CAST(:subjects AS text[]))
ORDER BY work_id;

-- renew_work --
-- The time of leases that are still held begins anew.
UPDATE pgretrieve.work w SET leased_until = now() + CAST(:lease AS interval)
FROM unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[])) AS held (work_id, lease)
WHERE w.work_id = held.work_id AND w.lease = held.lease;

-- finish_work --
-- What is made goes, and is counted for its task; what came anew meanwhile has lost its lease, and stays.
WITH gone AS (
    DELETE FROM pgretrieve.work w USING unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[])) AS held (work_id, lease)
    WHERE w.work_id = held.work_id AND w.lease = held.lease RETURNING w.work_id, w.task_id),
counted AS (
    SELECT task_id, count(*) AS n FROM (
        SELECT task_id FROM gone WHERE task_id IS NOT NULL
        UNION ALL SELECT a.task_id FROM gone JOIN pgretrieve.awaited_work a USING (work_id)) t GROUP BY task_id)
UPDATE pgretrieve.tasks t SET done = t.done + counted.n FROM counted WHERE t.task_id = counted.task_id
RETURNING t.task_id;

-- postpone_work --
-- Another try after a while.
UPDATE pgretrieve.work w SET lease = NULL, leased_until = NULL, error = CAST(:error AS jsonb),
    due_at = now() + CAST(:pause AS interval)
FROM unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[])) AS held (work_id, lease)
WHERE w.work_id = held.work_id AND w.lease = held.lease;

-- fail_work --
-- No further try: a dead letter, counted for its task.
WITH dead AS (
    UPDATE pgretrieve.work w SET lease = NULL, leased_until = NULL, error = CAST(:error AS jsonb), failed_at = now()
    FROM unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[])) AS held (work_id, lease)
    WHERE w.work_id = held.work_id AND w.lease = held.lease RETURNING w.work_id, w.task_id),
counted AS (
    SELECT task_id, count(*) AS n FROM (
        SELECT task_id FROM dead WHERE task_id IS NOT NULL
        UNION ALL SELECT a.task_id FROM dead JOIN pgretrieve.awaited_work a USING (work_id)) t GROUP BY task_id)
UPDATE pgretrieve.tasks t SET failed = t.failed + counted.n FROM counted WHERE t.task_id = counted.task_id
RETURNING t.task_id;

-- bury_lost_work --
-- What workers have begun too often without ending it: it may be what ends them.
WITH dead AS (
    UPDATE pgretrieve.work SET lease = NULL, leased_until = NULL, failed_at = now(), error = CAST(:error AS jsonb)
    WHERE failed_at IS NULL AND attempts >= :attempts AND leased_until < now() RETURNING work_id, task_id),
counted AS (
    SELECT task_id, count(*) AS n FROM (
        SELECT task_id FROM dead WHERE task_id IS NOT NULL
        UNION ALL SELECT a.task_id FROM dead JOIN pgretrieve.awaited_work a USING (work_id)) t GROUP BY task_id)
UPDATE pgretrieve.tasks t SET failed = t.failed + counted.n FROM counted WHERE t.task_id = counted.task_id
RETURNING t.task_id;

-- namespaces_with_work --
-- Where something is due that nobody has.
SELECT n.namespace_id FROM pgretrieve.namespaces n WHERE EXISTS (
    SELECT FROM pgretrieve.work w WHERE w.namespace_id = n.namespace_id AND w.failed_at IS NULL AND w.due_at <= now()
        AND (w.leased_until IS NULL OR w.leased_until < now()));

-- redrive_work --
-- Dead letters live again; their tasks go on.
WITH alive AS (
    UPDATE pgretrieve.work SET failed_at = NULL, attempts = 0, due_at = now(), error = NULL
    WHERE namespace_id = :namespace_id AND failed_at IS NOT NULL
        AND (CAST(:targets AS text[]) IS NULL OR target = ANY(CAST(:targets AS text[])))
        AND (CAST(:task_id AS text) IS NULL OR task_id = :task_id OR EXISTS (
            SELECT FROM pgretrieve.awaited_work a WHERE a.work_id = work.work_id AND a.task_id = :task_id))
        AND (NOT CAST(:transient AS boolean) OR coalesce((error -> 'transient')::boolean, true))
    RETURNING work_id, task_id),
counted AS (
    SELECT task_id, count(*) AS n FROM (
        SELECT task_id FROM alive WHERE task_id IS NOT NULL
        UNION ALL SELECT a.task_id FROM alive JOIN pgretrieve.awaited_work a USING (work_id)) t GROUP BY task_id),
tasks AS (
    UPDATE pgretrieve.tasks t SET failed = greatest(t.failed - counted.n, 0), status = 'IN_PROGRESS', finished_at = NULL
    FROM counted WHERE t.task_id = counted.task_id AND t.status <> 'CANCELED')
SELECT count(*) FROM alive;

-- count_dead_work --
SELECT count(*) FROM pgretrieve.work WHERE namespace_id = :namespace_id AND failed_at IS NOT NULL;

-- list_dead_work --
SELECT work_id, kind, target, subject, attempts, failed_at, error, task_id, created_at FROM pgretrieve.work
WHERE namespace_id = :namespace_id AND failed_at IS NOT NULL AND work_id > :after ORDER BY work_id LIMIT :size;

-- defer_work --
SELECT pgretrieve.defer_work(:namespace_id);

-- columns_with_work --
-- Which of these vector columns documents wait for.
SELECT c FROM unnest(CAST(:columns AS text[])) c WHERE EXISTS (
    SELECT FROM pgretrieve.work w WHERE w.namespace_id = :namespace_id AND w.kind = 'embed' AND w.target = c
        AND w.failed_at IS NULL);
