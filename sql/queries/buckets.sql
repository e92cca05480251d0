-- find_bucket --
-- By id or name, within its namespace; with the counts of its objects, which an index answers alone.
SELECT b.bucket_id, b.namespace_id, b.bucket_name, b.description, b.bucket_schema::text AS bucket_schema, b.unique_fields,
    b.default_policy, b.metadata::text AS metadata, b.created_at, b.updated_at, o.*, f.*
FROM pgretrieve.buckets b
CROSS JOIN LATERAL (
    SELECT count(*) AS object_count, coalesce(sum(size_bytes), 0)::bigint AS total_size_bytes,
        max(created_at) AS last_upload_at
    FROM pgretrieve.objects WHERE bucket_id = b.bucket_id) o
CROSS JOIN LATERAL (
    SELECT count(*) AS failed_object_count
    FROM pgretrieve.objects WHERE bucket_id = b.bucket_id AND status = 'FAILED') f
WHERE b.namespace_id = :namespace_id AND (b.bucket_id = :identifier OR b.bucket_name = :identifier)
ORDER BY b.bucket_id = :identifier DESC LIMIT 1;

-- list_buckets --
-- Those of a namespace, as find_bucket has them.
SELECT b.bucket_id, b.namespace_id, b.bucket_name, b.description, b.bucket_schema::text AS bucket_schema, b.unique_fields,
    b.default_policy, b.metadata::text AS metadata, b.created_at, b.updated_at, o.*, f.*
FROM pgretrieve.buckets b
CROSS JOIN LATERAL (
    SELECT count(*) AS object_count, coalesce(sum(size_bytes), 0)::bigint AS total_size_bytes,
        max(created_at) AS last_upload_at
    FROM pgretrieve.objects WHERE bucket_id = b.bucket_id) o
CROSS JOIN LATERAL (
    SELECT count(*) AS failed_object_count
    FROM pgretrieve.objects WHERE bucket_id = b.bucket_id AND status = 'FAILED') f
WHERE b.namespace_id = :namespace_id;

-- resolve_bucket --
-- Its id, for those who read.
SELECT bucket_id FROM pgretrieve.buckets
WHERE namespace_id = :namespace_id AND (bucket_id = :identifier OR bucket_name = :identifier)
ORDER BY bucket_id = :identifier DESC LIMIT 1;

-- lock_bucket --
-- What writing objects needs to know, kept from changing until the transaction ends; nobody else waits.
SELECT bucket_id, bucket_schema::text AS bucket_schema, unique_fields, default_policy
FROM pgretrieve.buckets
WHERE namespace_id = :namespace_id AND (bucket_id = :identifier OR bucket_name = :identifier)
ORDER BY bucket_id = :identifier DESC LIMIT 1 FOR SHARE;

-- lock_bucket_alone --
-- The same for a change of the bucket: those who write objects wait.
SELECT bucket_id, bucket_schema::text AS bucket_schema, unique_fields, default_policy
FROM pgretrieve.buckets
WHERE namespace_id = :namespace_id AND (bucket_id = :identifier OR bucket_name = :identifier)
ORDER BY bucket_id = :identifier DESC LIMIT 1 FOR UPDATE;

-- insert_bucket --
INSERT INTO pgretrieve.buckets
    (bucket_id, namespace_id, bucket_name, description, bucket_schema, unique_fields, default_policy, metadata)
VALUES (:bucket_id, :namespace_id, :bucket_name, :description, CAST(:bucket_schema AS jsonb),
    CAST(:unique_fields AS text[]), :default_policy, CAST(:metadata AS jsonb));

-- change_bucket --
-- Sets what :changes names.
UPDATE pgretrieve.buckets SET
    bucket_name = CASE WHEN c ? 'bucket_name' THEN c ->> 'bucket_name' ELSE bucket_name END,
    description = CASE WHEN c ? 'description' THEN c ->> 'description' ELSE description END,
    bucket_schema = CASE WHEN c ? 'bucket_schema' THEN c -> 'bucket_schema' ELSE bucket_schema END,
    default_policy = CASE WHEN c ? 'default_policy' THEN c ->> 'default_policy' ELSE default_policy END,
    metadata = CASE WHEN c ? 'metadata' THEN c -> 'metadata' ELSE metadata END,
    updated_at = now()
FROM CAST(:changes AS jsonb) AS c WHERE bucket_id = :bucket_id;

-- delete_bucket --
-- Objects and uploads go with it; their blobs are left to be swept.
DELETE FROM pgretrieve.buckets WHERE bucket_id = :bucket_id;
