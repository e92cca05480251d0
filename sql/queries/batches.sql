-- find_batch --
-- A batch with its task, where it has been submitted.
SELECT b.batch_id, b.namespace_id, b.bucket_id, b.batch_name, b.collection_ids, b.dedup, b.metadata::text AS metadata,
    b.task_id, b.created_by, b.created_at, b.submitted_at,
    (SELECT count(*) FROM pgretrieve.batch_objects o WHERE o.batch_id = b.batch_id) AS object_count,
    coalesce(t.status, 'DRAFT') AS status, t.error ->> 'message' AS error, t.total, coalesce(t.done, 0) AS done,
    coalesce(t.failed, 0) AS failed, t.started_at, t.finished_at
FROM pgretrieve.batches b LEFT JOIN pgretrieve.tasks t USING (task_id)
WHERE b.batch_id = :batch_id AND b.namespace_id = :namespace_id
    AND (CAST(:bucket_id AS text) IS NULL OR b.bucket_id = :bucket_id);

-- list_batches --
-- Those of a namespace, of a bucket, or of all namespaces that are :visible, as find_batch has them.
SELECT b.batch_id, b.namespace_id, b.bucket_id, b.batch_name, b.collection_ids, b.dedup, b.metadata::text AS metadata,
    b.task_id, b.created_by, b.created_at, b.submitted_at,
    (SELECT count(*) FROM pgretrieve.batch_objects o WHERE o.batch_id = b.batch_id) AS object_count,
    coalesce(t.status, 'DRAFT') AS status, t.error ->> 'message' AS error, t.total, coalesce(t.done, 0) AS done,
    coalesce(t.failed, 0) AS failed, t.started_at, t.finished_at
FROM pgretrieve.batches b LEFT JOIN pgretrieve.tasks t USING (task_id)
WHERE (CAST(:namespace_id AS text) IS NULL OR b.namespace_id = :namespace_id)
    AND (CAST(:visible AS text[]) IS NULL OR b.namespace_id = ANY(CAST(:visible AS text[])))
    AND (CAST(:bucket_id AS text) IS NULL OR b.bucket_id = :bucket_id)
    AND (CAST(:status AS text) IS NULL OR coalesce(t.status, 'DRAFT') = :status)
    AND (CAST(:collection_id AS text) IS NULL OR :collection_id = ANY(b.collection_ids));

-- namespace_of_batch --
SELECT namespace_id FROM pgretrieve.batches WHERE batch_id = :batch_id
    AND (CAST(:visible AS text[]) IS NULL OR namespace_id = ANY(CAST(:visible AS text[])));

-- insert_batch --
INSERT INTO pgretrieve.batches
    (batch_id, namespace_id, bucket_id, batch_name, collection_ids, dedup, metadata, created_by)
VALUES (:batch_id, :namespace_id, :bucket_id, :batch_name, CAST(:collection_ids AS text[]), :dedup,
    CAST(:metadata AS jsonb), :created_by);

-- insert_trigger_batch --
-- One that is submitted with the trigger that makes it.
INSERT INTO pgretrieve.batches (batch_id, namespace_id, bucket_id, collection_ids, dedup, task_id, created_by, submitted_at)
VALUES (:batch_id, :namespace_id, :bucket_id, CAST(:collection_ids AS text[]), :dedup, :task_id, :created_by, now());

-- batches_of_task --
SELECT batch_id, bucket_id, dedup, collection_ids FROM pgretrieve.batches WHERE task_id = :task_id ORDER BY batch_id;

-- lock_batch --
SELECT batch_id FROM pgretrieve.batches WHERE batch_id = :batch_id FOR UPDATE;

-- submit_batch --
UPDATE pgretrieve.batches SET task_id = :task_id, submitted_at = now() WHERE batch_id = :batch_id;

-- change_batch --
UPDATE pgretrieve.batches SET metadata = CAST(:metadata AS jsonb) WHERE batch_id = :batch_id;

-- delete_batch --
DELETE FROM pgretrieve.batches WHERE batch_id = :batch_id;

-- objects_of_bucket --
-- Which of these are there.
SELECT object_id FROM pgretrieve.objects
WHERE bucket_id = :bucket_id AND object_id = ANY(CAST(:object_ids AS text[]));

-- add_batch_objects --
-- These objects of the bucket, or all of it.
INSERT INTO pgretrieve.batch_objects (batch_id, object_id)
SELECT :batch_id, object_id FROM pgretrieve.objects WHERE bucket_id = :bucket_id
    AND (CAST(:object_ids AS text[]) IS NULL OR object_id = ANY(CAST(:object_ids AS text[])))
ON CONFLICT DO NOTHING;

-- batch_object_ids --
SELECT object_id FROM pgretrieve.batch_objects WHERE batch_id = :batch_id ORDER BY object_id LIMIT :most;

-- count_objects --
SELECT count(*) FROM pgretrieve.objects WHERE object_id = ANY(CAST(:object_ids AS text[]));

-- account_of_batch --
-- For each of some collections how many sources a batch gives it, of these how many were made, failed, and wait; and the
-- rest: not queued yet, or not any more.
WITH RECURSIVE given AS (
    SELECT s.collection_id, b.object_id AS source_id FROM pgretrieve.batch_objects b
    JOIN pgretrieve.collection_sources s ON s.bucket_id = :bucket_id AND s.collection_id = ANY(CAST(:collection_ids AS text[]))
    WHERE b.batch_id = :batch_id
    UNION
    SELECT s.collection_id, d.document_id FROM given
    JOIN pgretrieve.extractions e ON e.collection_id = given.collection_id AND e.source_id = given.source_id
    CROSS JOIN unnest(e.document_ids) AS d (document_id)
    JOIN pgretrieve.collection_sources s ON s.parent_id = given.collection_id
        AND s.collection_id = ANY(CAST(:collection_ids AS text[])))
SELECT g.collection_id, bool_and(c.enabled) AS enabled, count(*) AS submitted,
    count(*) FILTER (WHERE w.work_id IS NULL AND e.source_id IS NOT NULL) AS succeeded,
    count(*) FILTER (WHERE w.failed_at IS NOT NULL) AS failed,
    count(*) FILTER (WHERE w.work_id IS NOT NULL AND w.failed_at IS NULL) AS pending,
    coalesce(array_agg(g.source_id) FILTER (WHERE w.work_id IS NULL AND e.source_id IS NULL), '{}') AS rest
FROM given g JOIN pgretrieve.collections c USING (collection_id)
LEFT JOIN pgretrieve.extractions e ON e.collection_id = g.collection_id AND e.source_id = g.source_id
LEFT JOIN pgretrieve.work w ON w.namespace_id = :namespace_id AND w.kind = 'extract' AND w.target = g.collection_id
    AND w.subject = g.source_id
GROUP BY g.collection_id;

-- batch_failures --
-- Work that a batch's task waits for and that was given up, and rows of its objects that gave no document.
SELECT * FROM (
    SELECT CASE w.kind WHEN 'extract' THEN w.target END AS collection_id, w.subject AS source_id, NULL AS key, w.kind,
        w.error ->> 'code' AS code, w.error ->> 'message' AS message, coalesce((w.error -> 'transient')::boolean, true) AS transient,
        w.attempts, w.failed_at
    FROM pgretrieve.awaited_work a JOIN pgretrieve.work w USING (work_id)
    WHERE a.task_id = :task_id AND w.failed_at IS NOT NULL
    UNION ALL
    SELECT e.collection_id, e.source_id, r.key, 'row', r.code, r.message, false, 1, e.extracted_at
    FROM pgretrieve.batch_objects o JOIN pgretrieve.batches b USING (batch_id)
    JOIN pgretrieve.collection_sources s ON s.bucket_id = b.bucket_id
        AND (b.collection_ids IS NULL OR s.collection_id = ANY(b.collection_ids))
    JOIN pgretrieve.extractions e ON e.collection_id = s.collection_id AND e.source_id = o.object_id
    CROSS JOIN jsonb_to_recordset(e.rejected) AS r (key text, code text, message text)
    WHERE b.batch_id = :batch_id AND e.rejected_count > 0) f
WHERE CAST(:collection_ids AS text[]) IS NULL OR f.collection_id = ANY(CAST(:collection_ids AS text[]))
ORDER BY f.failed_at, f.source_id, f.key LIMIT :limit OFFSET :offset;

-- count_batch_failures --
SELECT (SELECT count(*) FROM pgretrieve.awaited_work a JOIN pgretrieve.work w USING (work_id)
        WHERE a.task_id = :task_id AND w.failed_at IS NOT NULL
            AND (CAST(:collection_ids AS text[]) IS NULL OR w.target = ANY(CAST(:collection_ids AS text[]))))
    + coalesce((SELECT sum(e.rejected_count)
        FROM pgretrieve.batch_objects o JOIN pgretrieve.batches b USING (batch_id)
        JOIN pgretrieve.collection_sources s ON s.bucket_id = b.bucket_id
            AND (b.collection_ids IS NULL OR s.collection_id = ANY(b.collection_ids))
        JOIN pgretrieve.extractions e ON e.collection_id = s.collection_id AND e.source_id = o.object_id
        WHERE b.batch_id = :batch_id
            AND (CAST(:collection_ids AS text[]) IS NULL OR e.collection_id = ANY(CAST(:collection_ids AS text[])))), 0)::bigint;

-- count_failed_objects --
SELECT count(DISTINCT w.subject) FROM pgretrieve.awaited_work a JOIN pgretrieve.work w USING (work_id)
WHERE a.task_id = :task_id AND w.kind = 'extract' AND w.failed_at IS NOT NULL;
