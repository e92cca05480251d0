-- find_object --
-- One object of a bucket, with its blobs in their order.
SELECT o.object_id, o.bucket_id, o.key_prefix, o.fields::text AS fields, o.content_hash, o.size_bytes, o.status, o.error,
    o.created_at, o.updated_at,
    coalesce((SELECT sum(cardinality(e.document_ids)) FROM pgretrieve.collection_sources s
        JOIN pgretrieve.extractions e ON e.collection_id = s.collection_id AND e.source_id = o.object_id
        WHERE s.bucket_id = o.bucket_id), 0)::bigint AS document_count,
    coalesce((SELECT jsonb_agg(to_jsonb(b) - 'object_id' ORDER BY b.position)
        FROM pgretrieve.object_blobs b WHERE b.object_id = o.object_id), '[]')::text AS blobs
FROM pgretrieve.objects o
WHERE o.object_id = :object_id AND (CAST(:bucket_id AS text) IS NULL OR o.bucket_id = :bucket_id);

-- list_objects --
-- Those of a bucket, as find_object has them.
SELECT o.object_id, o.bucket_id, o.key_prefix, o.fields::text AS fields, o.content_hash, o.size_bytes, o.status, o.error,
    o.created_at, o.updated_at,
    coalesce((SELECT sum(cardinality(e.document_ids)) FROM pgretrieve.collection_sources s
        JOIN pgretrieve.extractions e ON e.collection_id = s.collection_id AND e.source_id = o.object_id
        WHERE s.bucket_id = o.bucket_id), 0)::bigint AS document_count,
    coalesce((SELECT jsonb_agg(to_jsonb(b) - 'object_id' ORDER BY b.position)
        FROM pgretrieve.object_blobs b WHERE b.object_id = o.object_id), '[]')::text AS blobs
FROM pgretrieve.objects o WHERE o.bucket_id = :bucket_id;

-- find_idempotent_object --
SELECT object_id FROM pgretrieve.objects WHERE bucket_id = :bucket_id AND idempotency_key = :idempotency_key;

-- find_same_object --
-- An object of this very content.
SELECT object_id FROM pgretrieve.objects
WHERE bucket_id = :bucket_id AND content_hash = :content_hash ORDER BY created_at, object_id LIMIT 1;

-- take_turn --
-- Those who look for an object of the same content take turns. A statement of its own, so that the next one sees what was
-- committed meanwhile.
SELECT pg_advisory_xact_lock(hashtextextended(:bucket_id || :content_hash, 1));

-- lock_object --
-- One object, for a change.
SELECT object_id, key_prefix, fields::text AS fields, content_hash, unique_key FROM pgretrieve.objects
WHERE bucket_id = :bucket_id AND object_id = :object_id FOR UPDATE;

-- lock_object_by_key --
-- The object of a unique key, for a change.
SELECT object_id, content_hash FROM pgretrieve.objects
WHERE bucket_id = :bucket_id AND unique_key = :unique_key FOR UPDATE;

-- insert_object --
-- Nothing where its unique key or its idempotency key is taken; two who come at once wait for each other here.
INSERT INTO pgretrieve.objects
    (object_id, bucket_id, key_prefix, fields, content_hash, unique_key, idempotency_key, size_bytes)
VALUES (:object_id, :bucket_id, :key_prefix, CAST(:fields AS jsonb), :content_hash, :unique_key, :idempotency_key, :size_bytes)
ON CONFLICT DO NOTHING RETURNING object_id;

-- replace_object --
-- The content of an object; what is new has to be processed.
UPDATE pgretrieve.objects SET
    key_prefix = :key_prefix, fields = CAST(:fields AS jsonb), unique_key = :unique_key, size_bytes = :size_bytes,
    content_hash = :content_hash, updated_at = now(),
    status = CASE WHEN content_hash = :content_hash THEN status ELSE 'PENDING' END,
    error = CASE WHEN content_hash = :content_hash THEN error END
WHERE object_id = :object_id;

-- change_object --
-- Fields of an object, which then has to be processed; its blobs stay.
UPDATE pgretrieve.objects SET
    key_prefix = :key_prefix, fields = CAST(:fields AS jsonb), unique_key = :unique_key,
    content_hash = :content_hash, updated_at = now(),
    status = CASE WHEN content_hash = :content_hash THEN status ELSE 'PENDING' END,
    error = CASE WHEN content_hash = :content_hash THEN error END
WHERE object_id = :object_id;

-- delete_object_blobs --
DELETE FROM pgretrieve.object_blobs WHERE object_id = :object_id;

-- insert_object_blobs --
-- Rows from one JSON array, in its order.
INSERT INTO pgretrieve.object_blobs
    (blob_id, object_id, position, property, type, sha256, url, content_hash, size_bytes, mime_type, filename, key_prefix, metadata)
SELECT b.blob_id, :object_id, b.ordinality - 1, b.property, b.type, b.sha256, b.url, b.content_hash, b.size_bytes, b.mime_type,
    b.filename, b.key_prefix, b.metadata
FROM ROWS FROM (jsonb_to_recordset(CAST(:blobs AS jsonb)) AS (
    blob_id text, property text, type text, sha256 text, url text, content_hash text, size_bytes bigint, mime_type text,
    filename text, key_prefix text, metadata jsonb
)) WITH ORDINALITY AS b;

-- delete_object --
-- Its blobs' bytes are left to be swept.
DELETE FROM pgretrieve.objects WHERE bucket_id = :bucket_id AND object_id = :object_id RETURNING object_id;

-- find_object_blob --
-- One blob of an object.
SELECT b.blob_id, b.sha256, b.url, b.mime_type, b.filename, b.size_bytes FROM pgretrieve.object_blobs b
JOIN pgretrieve.objects o USING (object_id)
WHERE o.bucket_id = :bucket_id AND o.object_id = :object_id AND b.blob_id = :blob_id;
