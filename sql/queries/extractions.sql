-- sources_of --
-- A page of the objects of some buckets, each with the hash of its content.
SELECT object_id, content_hash FROM pgretrieve.objects
WHERE bucket_id = ANY(CAST(:bucket_ids AS text[])) AND object_id > :after ORDER BY object_id LIMIT :size;

-- sources_of_batches --
-- The same of the objects of some batches that are there.
SELECT b.object_id, o.content_hash FROM pgretrieve.batch_objects b JOIN pgretrieve.objects o USING (object_id)
WHERE b.batch_id = ANY(CAST(:batch_ids AS text[])) AND o.bucket_id = ANY(CAST(:bucket_ids AS text[])) AND b.object_id > :after
ORDER BY b.object_id LIMIT :size;

-- queue_gathering --
-- A worker is to make work of a collection's sources; a task may wait for that.
WITH new AS (
    INSERT INTO pgretrieve.work AS w (namespace_id, kind, target, subject)
    VALUES (:namespace_id, 'gather', :collection_id, coalesce(:task_id, ''))
    ON CONFLICT (namespace_id, kind, target, subject) DO UPDATE SET attempts = 0, due_at = now(), lease = NULL,
        leased_until = NULL, failed_at = NULL, error = NULL
    RETURNING w.work_id),
awaited AS (
    INSERT INTO pgretrieve.awaited_work (work_id, task_id, asked)
    SELECT work_id, :task_id, true FROM new WHERE CAST(:task_id AS text) IS NOT NULL)
SELECT pgretrieve.defer_work(:namespace_id);

-- open_task --
-- What a task is about, where it is to go on.
SELECT kind, about FROM pgretrieve.tasks
WHERE task_id = :task_id AND status IN ('PENDING', 'IN_PROGRESS') AND NOT cancel_requested;

-- grow_task --
-- It waits for so many more; no row where it has ended. After its work is queued: workers lock that first, too.
UPDATE pgretrieve.tasks SET total = total + :more
WHERE task_id = :task_id AND status IN ('PENDING', 'IN_PROGRESS') AND NOT cancel_requested RETURNING task_id;

-- queue_sources --
-- Sources of a collection, each with the hash of its content, become its work: those that it has not made yet, or (:again)
-- all. What is open already stays as it is, what was given up lives again; a task may wait for all of it. With :again,
-- whoever is at it now loses the lease: he may be about to find that there is nothing to make.
WITH wanted AS MATERIALIZED (
    SELECT g.source_id, pgretrieve.input_hash(g.content_hash, c.fingerprint) AS input_hash
    FROM pgretrieve.collections c
    CROSS JOIN unnest(CAST(:source_ids AS text[]), CAST(:hashes AS text[])) AS g (source_id, content_hash)
    WHERE c.collection_id = :collection_id AND c.enabled),
again AS (
    UPDATE pgretrieve.extractions e SET input_hash = '' FROM wanted
    WHERE :again AND e.collection_id = :collection_id AND e.source_id = wanted.source_id),
new AS (
    INSERT INTO pgretrieve.work AS w (namespace_id, kind, target, subject, priority)
    SELECT :namespace_id, 'extract', :collection_id, wanted.source_id, :priority FROM wanted
    WHERE :again OR NOT EXISTS (
        SELECT FROM pgretrieve.extractions e WHERE e.collection_id = :collection_id
            AND e.source_id = wanted.source_id AND e.input_hash = wanted.input_hash)
    ORDER BY wanted.source_id
    ON CONFLICT (namespace_id, kind, target, subject) DO UPDATE SET priority = greatest(w.priority, EXCLUDED.priority),
        attempts = CASE WHEN w.failed_at IS NULL THEN w.attempts ELSE 0 END,
        due_at = CASE WHEN w.failed_at IS NULL THEN w.due_at ELSE now() END,
        error = CASE WHEN w.failed_at IS NULL THEN w.error END, failed_at = NULL,
        lease = CASE WHEN NOT :again THEN w.lease END, leased_until = CASE WHEN NOT :again THEN w.leased_until END
    RETURNING w.work_id, w.xmax = 0 AS made),
awaited AS (
    INSERT INTO pgretrieve.awaited_work (work_id, task_id, asked)
    SELECT work_id, :task_id, made FROM new WHERE CAST(:task_id AS text) IS NOT NULL
    ON CONFLICT DO NOTHING RETURNING work_id)
SELECT count(*) FROM awaited;

-- queue_further --
-- What a collection has made of these sources is a source of the collections over it: of those among :collection_ids that
-- are not automatic, or (:again) of all, it becomes work. Triggers have seen to the others; what was made of the same
-- content is found out by who does the work.
WITH RECURSIVE made AS (
    SELECT e.collection_id, d.document_id FROM pgretrieve.extractions e CROSS JOIN unnest(e.document_ids) AS d (document_id)
    WHERE e.collection_id = :collection_id AND e.source_id = ANY(CAST(:source_ids AS text[]))
    UNION
    SELECT e.collection_id, d.document_id FROM made
    JOIN pgretrieve.extractions e ON e.source_id = made.document_id AND e.collection_id = ANY(CAST(:collection_ids AS text[]))
    CROSS JOIN unnest(e.document_ids) AS d (document_id)),
wanted AS MATERIALIZED (
    SELECT DISTINCT c.collection_id, made.document_id FROM made
    JOIN pgretrieve.collection_sources s ON s.parent_id = made.collection_id
    JOIN pgretrieve.collections c ON c.collection_id = s.collection_id AND c.collection_id = ANY(CAST(:collection_ids AS text[]))
        AND c.enabled AND (:again OR NOT c.auto)),
again AS (
    UPDATE pgretrieve.extractions e SET input_hash = '' FROM wanted
    WHERE :again AND e.collection_id = wanted.collection_id AND e.source_id = wanted.document_id)
INSERT INTO pgretrieve.work AS w (namespace_id, kind, target, subject, priority)
SELECT :namespace_id, 'extract', collection_id, document_id, :priority FROM wanted ORDER BY collection_id, document_id
ON CONFLICT (namespace_id, kind, target, subject) DO UPDATE SET priority = greatest(w.priority, EXCLUDED.priority),
    attempts = 0, due_at = now(), error = NULL, failed_at = NULL, lease = NULL, leased_until = NULL;

-- await_made --
-- A task waits for what is open of all that was made already of these sources, as queue_further has them: to be embedded,
-- or extracted further. What was given up lives again.
WITH RECURSIVE made AS (
    SELECT e.collection_id, d.document_id FROM pgretrieve.extractions e CROSS JOIN unnest(e.document_ids) AS d (document_id)
    WHERE e.collection_id = :collection_id AND e.source_id = ANY(CAST(:source_ids AS text[]))
    UNION
    SELECT e.collection_id, d.document_id FROM made
    JOIN pgretrieve.extractions e ON e.source_id = made.document_id AND e.collection_id = ANY(CAST(:collection_ids AS text[]))
    CROSS JOIN unnest(e.document_ids) AS d (document_id)),
open AS MATERIALIZED (
    SELECT w.work_id, w.failed_at IS NOT NULL AS failed FROM pgretrieve.work w
    WHERE w.namespace_id = :namespace_id AND w.subject IN (SELECT document_id FROM made)
        AND (w.kind = 'embed' OR w.kind = 'extract' AND w.target = ANY(CAST(:collection_ids AS text[])))
    ORDER BY w.work_id FOR NO KEY UPDATE),
alive AS (
    UPDATE pgretrieve.work w SET failed_at = NULL, attempts = 0, due_at = now(), error = NULL
    FROM open WHERE w.work_id = open.work_id AND open.failed)
INSERT INTO pgretrieve.awaited_work (work_id, task_id, asked)
SELECT work_id, :task_id, false FROM open ON CONFLICT DO NOTHING;

-- count_awaited --
-- All that a task waits for stands in the work table now.
UPDATE pgretrieve.tasks t SET state = state || '{"queued": true}', status = 'IN_PROGRESS',
    started_at = coalesce(started_at, now()),
    total = (SELECT count(*) FROM pgretrieve.awaited_work a WHERE a.task_id = t.task_id)
WHERE task_id = :task_id RETURNING total;

-- forget_extractions_of --
-- What is yet to be extracted for a collection, and nobody has begun.
DELETE FROM pgretrieve.work
WHERE namespace_id = :namespace_id AND kind <> 'embed' AND target = :collection_id AND lease IS NULL;

-- find_recipe --
-- What a worker needs of a collection.
SELECT c.collection_id, c.collection_name, c.enabled, c.source ->> 'type' AS source_type, c.feature_extractor, c.paths,
    c.fingerprint,
    coalesce((SELECT jsonb_object_agg(i.output, i.index_name) FROM pgretrieve.collection_indexes i
        WHERE i.collection_id = c.collection_id), '{}') AS indexes
FROM pgretrieve.collections c WHERE c.namespace_id = :namespace_id AND c.collection_id = :collection_id;

-- extraction_inputs --
-- For each source what was made of it before.
SELECT source_id, input_hash, document_ids FROM pgretrieve.extractions
WHERE collection_id = :collection_id AND source_id = ANY(CAST(:source_ids AS text[]));

-- objects_to_extract --
-- Objects with their blobs in their order.
SELECT o.object_id, o.bucket_id, o.key_prefix, o.fields::text AS fields, o.content_hash, o.size_bytes, o.status, o.error,
    o.created_at, o.updated_at, 0 AS document_count,
    coalesce((SELECT jsonb_agg(to_jsonb(b) - 'object_id' ORDER BY b.position)
        FROM pgretrieve.object_blobs b WHERE b.object_id = o.object_id), '[]')::text AS blobs
FROM pgretrieve.objects o WHERE o.object_id = ANY(CAST(:object_ids AS text[]));

-- lock_objects --
-- Before their work, in the order in which writers of objects take them.
SELECT object_id, content_hash FROM pgretrieve.objects WHERE object_id = ANY(CAST(:object_ids AS text[]))
ORDER BY object_id FOR NO KEY UPDATE;

-- hold_work --
-- Which leases are still held: what came anew or is gone has taken its own away. Nobody takes these until the end of the
-- transaction.
SELECT w.work_id FROM pgretrieve.work w
JOIN unnest(CAST(:ids AS bigint[]), CAST(:leases AS uuid[])) AS held (work_id, lease) USING (work_id)
WHERE w.lease = held.lease ORDER BY w.work_id FOR UPDATE OF w;

-- keep_extraction --
-- What a source gave, in place of what it gave before; answers those documents that it gives no more.
WITH before AS (
    SELECT document_ids FROM pgretrieve.extractions WHERE collection_id = :collection_id AND source_id = :source_id),
kept AS (
    INSERT INTO pgretrieve.extractions AS e
        (collection_id, source_id, input_hash, document_ids, rejected, rejected_count)
    VALUES (:collection_id, :source_id, :input_hash, CAST(:document_ids AS text[]), CAST(:rejected AS jsonb), :rejected_count)
    ON CONFLICT (collection_id, source_id) DO UPDATE SET input_hash = EXCLUDED.input_hash,
        document_ids = EXCLUDED.document_ids, rejected = EXCLUDED.rejected, rejected_count = EXCLUDED.rejected_count,
        extracted_at = now())
SELECT d.document_id FROM before CROSS JOIN unnest(before.document_ids) AS d (document_id)
WHERE d.document_id <> ALL(CAST(:document_ids AS text[]));

-- keep_extracted_blobs --
-- The files that documents of a source name now.
WITH gone AS (
    DELETE FROM pgretrieve.extracted_blobs WHERE collection_id = :collection_id AND source_id = :source_id
        AND sha256 <> ALL(CAST(:sha256 AS text[])))
INSERT INTO pgretrieve.extracted_blobs (collection_id, source_id, sha256)
SELECT :collection_id, :source_id, s FROM unnest(CAST(:sha256 AS text[])) s ON CONFLICT DO NOTHING;

-- awaited_of --
-- Which of this work tasks wait for.
SELECT DISTINCT work_id FROM pgretrieve.awaited_work WHERE work_id = ANY(CAST(:work_ids AS bigint[]));

-- await_made_of --
-- Tasks that wait for this work wait for what it has queued, too: embeddings of the documents, and extractions from them.
WITH waiting AS MATERIALIZED (
    SELECT task_id FROM pgretrieve.awaited_work WHERE work_id = :work_id),
new AS (
    INSERT INTO pgretrieve.awaited_work (work_id, task_id, asked)
    SELECT w.work_id, waiting.task_id, false FROM waiting CROSS JOIN pgretrieve.work w
    WHERE w.namespace_id = :namespace_id AND w.failed_at IS NULL AND w.subject = ANY(CAST(:document_ids AS text[]))
        AND w.kind = 'embed' AND w.target = ANY(CAST(:columns AS text[]))
    UNION ALL
    SELECT w.work_id, waiting.task_id, false FROM waiting CROSS JOIN pgretrieve.work w
    WHERE w.namespace_id = :namespace_id AND w.failed_at IS NULL AND w.subject = ANY(CAST(:document_ids AS text[]))
        AND w.kind = 'extract' AND w.target = ANY(CAST(:children AS text[]))
    ON CONFLICT DO NOTHING RETURNING task_id)
UPDATE pgretrieve.tasks t SET total = t.total + counted.n
FROM (SELECT task_id, count(*) AS n FROM new GROUP BY task_id) counted WHERE t.task_id = counted.task_id;

-- queue_children --
-- Documents of a parent become work of a collection over it that is not automatic, since a batch that is for it has made
-- them.
INSERT INTO pgretrieve.work AS w (namespace_id, kind, target, subject)
SELECT DISTINCT :namespace_id, 'extract', c.collection_id, d.document_id
FROM pgretrieve.awaited_work a
JOIN pgretrieve.batches b ON b.task_id = a.task_id
JOIN pgretrieve.collections c ON c.collection_id = ANY(CAST(:children AS text[])) AND c.enabled AND NOT c.auto
    AND (b.collection_ids IS NULL OR c.collection_id = ANY(b.collection_ids))
CROSS JOIN unnest(CAST(:document_ids AS text[])) AS d (document_id)
WHERE a.work_id = :work_id
ON CONFLICT (namespace_id, kind, target, subject) DO NOTHING;

-- settle_objects --
-- How it stands with objects of which a collection has just made something, or nothing. Their rows are locked before.
UPDATE pgretrieve.objects o SET
    status = CASE WHEN s.failed THEN 'FAILED' WHEN s.open THEN 'PENDING' ELSE 'COMPLETED' END, error = s.error
FROM (
    SELECT i.object_id, coalesce(bool_or(w.failed_at IS NOT NULL), false) AS failed,
        coalesce(bool_or(w.failed_at IS NULL AND w.work_id IS NOT NULL), false) AS open,
        max(w.error ->> 'message') FILTER (WHERE w.failed_at IS NOT NULL) AS error
    FROM unnest(CAST(:object_ids AS text[])) AS i (object_id)
    JOIN pgretrieve.objects USING (object_id)
    LEFT JOIN pgretrieve.collection_sources c USING (bucket_id)
    LEFT JOIN pgretrieve.work w ON w.namespace_id = :namespace_id AND w.kind = 'extract' AND w.subject = i.object_id
        AND w.target = c.collection_id
    GROUP BY i.object_id) s
WHERE o.object_id = s.object_id;

-- blob_of_namespace --
-- A content that an object or a document of this namespace refers to.
SELECT b.sha256, b.size_bytes, b.store_key FROM pgretrieve.blobs b
WHERE b.sha256 = :sha256 AND (
    EXISTS (SELECT FROM pgretrieve.extracted_blobs e JOIN pgretrieve.collections c USING (collection_id)
        WHERE e.sha256 = b.sha256 AND c.namespace_id = :namespace_id)
    OR EXISTS (SELECT FROM pgretrieve.object_blobs o JOIN pgretrieve.objects USING (object_id)
        JOIN pgretrieve.buckets k USING (bucket_id) WHERE o.sha256 = b.sha256 AND k.namespace_id = :namespace_id));
