-- insert_task --
INSERT INTO pgretrieve.tasks (task_id, namespace_id, kind, subject, total, about, created_by)
VALUES (:task_id, :namespace_id, :kind, :subject, :total, CAST(:about AS jsonb), :created_by);

-- begin_task --
-- No row where it has ended, or is to end.
UPDATE pgretrieve.tasks SET status = 'IN_PROGRESS', started_at = coalesce(started_at, now())
WHERE task_id = :task_id AND status IN ('PENDING', 'IN_PROGRESS') AND NOT cancel_requested
RETURNING task_id;

-- task_is_open --
-- Whether whoever does it is to go on.
SELECT EXISTS (SELECT FROM pgretrieve.tasks
    WHERE task_id = :task_id AND status IN ('PENDING', 'IN_PROGRESS') AND NOT cancel_requested);

-- open_builds --
-- The vector indexes of a namespace that are being built, or will be, and the task of each.
SELECT subject, task_id FROM pgretrieve.tasks
WHERE namespace_id = :namespace_id AND kind IN ('build_index', 'rebuild_index') AND status IN ('PENDING', 'IN_PROGRESS');

-- advance_task --
-- Where it goes on after an interruption, and how far it is; no row where it is to end.
UPDATE pgretrieve.tasks SET state = state || CAST(:state AS jsonb), done = coalesce(:done, done),
    total = coalesce(:total, total)
WHERE task_id = :task_id AND status = 'IN_PROGRESS' AND NOT cancel_requested RETURNING task_id;

-- end_task --
-- What it was filling is told as such no longer.
WITH ended AS (
    UPDATE pgretrieve.tasks SET status = :status, error = CAST(:error AS jsonb), finished_at = now()
    WHERE task_id = :task_id AND status IN ('PENDING', 'IN_PROGRESS') RETURNING task_id),
filled AS (
    UPDATE pgretrieve.vector_configs c SET filled_by = NULL FROM ended WHERE c.filled_by = ended.task_id
    RETURNING c.namespace_id),
told AS (
    UPDATE pgretrieve.namespaces n SET version = version + 1, updated_at = now()
    FROM filled WHERE n.namespace_id = filled.namespace_id)
SELECT task_id FROM ended;

-- end_counted_tasks --
-- Tasks whose items were all queued, and of which none is open: counters may count an item twice that failed, came anew
-- and was done. What they filled is then whole.
WITH ended AS (
    UPDATE pgretrieve.tasks t SET finished_at = now(),
        status = CASE WHEN failed = 0 THEN 'COMPLETED' WHEN done = 0 THEN 'FAILED' ELSE 'COMPLETED_WITH_ERRORS' END
    WHERE task_id = ANY(CAST(:task_ids AS text[])) AND status = 'IN_PROGRESS' AND state ? 'queued'
        AND NOT EXISTS (SELECT FROM pgretrieve.work w WHERE w.task_id = t.task_id AND w.failed_at IS NULL)
        AND NOT EXISTS (SELECT FROM pgretrieve.awaited_work a JOIN pgretrieve.work w USING (work_id)
            WHERE a.task_id = t.task_id AND w.failed_at IS NULL)
    RETURNING task_id),
filled AS (
    UPDATE pgretrieve.vector_configs c SET filled_by = NULL FROM ended WHERE c.filled_by = ended.task_id
    RETURNING c.namespace_id)
UPDATE pgretrieve.namespaces n SET version = version + 1, updated_at = now()
FROM filled WHERE n.namespace_id = filled.namespace_id;

-- cancel_task --
-- What it was filling is told as such no longer.
WITH wanted AS (
    UPDATE pgretrieve.tasks SET cancel_requested = true, status = 'CANCELED', finished_at = now()
    WHERE task_id = :task_id AND status IN ('PENDING', 'IN_PROGRESS') RETURNING task_id),
filled AS (
    UPDATE pgretrieve.vector_configs c SET filled_by = NULL FROM wanted WHERE c.filled_by = wanted.task_id
    RETURNING c.namespace_id),
told AS (
    UPDATE pgretrieve.namespaces n SET version = version + 1, updated_at = now()
    FROM filled WHERE n.namespace_id = filled.namespace_id)
SELECT task_id FROM wanted;

-- forget_work_of_task --
-- What a cancelled task has queued goes, what runs ends by itself. A statement of its own, after the task's row is taken:
-- it sees what was queued by whoever had that before.
-- What batches wait for stays.
DELETE FROM pgretrieve.work w WHERE task_id = :task_id AND lease IS NULL
    AND NOT EXISTS (SELECT FROM pgretrieve.awaited_work a WHERE a.work_id = w.work_id);

-- forget_awaited_work --
-- What a cancelled batch has queued goes, unless another waits for it or a worker has begun it; the rest goes on without it.
WITH gone AS (
    DELETE FROM pgretrieve.work w USING pgretrieve.awaited_work a
    WHERE a.task_id = :task_id AND a.asked AND w.work_id = a.work_id AND w.lease IS NULL AND NOT EXISTS (
        SELECT FROM pgretrieve.awaited_work other WHERE other.work_id = w.work_id AND other.task_id <> :task_id))
DELETE FROM pgretrieve.awaited_work WHERE task_id = :task_id;

-- counted_tasks --
-- Tasks that end with the last of their items: also where that was deleted, with its object or its index.
SELECT task_id FROM pgretrieve.tasks WHERE status = 'IN_PROGRESS' AND state ? 'queued';
