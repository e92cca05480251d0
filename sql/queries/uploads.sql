-- insert_upload --
INSERT INTO pgretrieve.uploads (upload_id, bucket_id, signature_hash, filename, content_type, file_size_bytes, file_hash, seconds,
    metadata, create_object, object_fields, blob_property, blob_type, skip_duplicates, expires_at)
VALUES (:upload_id, :bucket_id, :signature_hash, :filename, :content_type, :file_size_bytes, :file_hash, :seconds,
    CAST(:metadata AS jsonb), :create_object, CAST(:object_fields AS jsonb), :blob_property, :blob_type, :skip_duplicates,
    now() + make_interval(secs => :seconds));

-- find_upload --
-- One upload of a bucket. One whose time is over without a confirmation has FAILED, without anybody writing that.
SELECT upload_id, bucket_id, filename, content_type, file_size_bytes, file_hash, seconds, metadata::text AS metadata,
    create_object, object_fields::text AS object_fields, blob_property, blob_type, skip_duplicates,
    CASE WHEN status <> 'COMPLETED' AND expires_at <= now() THEN 'FAILED' ELSE status END AS status,
    sha256, object_id, created_at, expires_at, received_at, completed_at
FROM pgretrieve.uploads WHERE bucket_id = :bucket_id AND upload_id = :upload_id;

-- lock_upload --
-- The same, for its confirmation or its end.
SELECT upload_id, bucket_id, filename, content_type, file_size_bytes, file_hash, seconds, metadata::text AS metadata,
    create_object, object_fields::text AS object_fields, blob_property, blob_type, skip_duplicates,
    CASE WHEN status <> 'COMPLETED' AND expires_at <= now() THEN 'FAILED' ELSE status END AS status,
    sha256, object_id, created_at, expires_at, received_at, completed_at
FROM pgretrieve.uploads WHERE bucket_id = :bucket_id AND upload_id = :upload_id FOR UPDATE;

-- list_uploads --
-- Those of a bucket, as find_upload has them.
SELECT upload_id, bucket_id, filename, content_type, file_size_bytes, file_hash, seconds, metadata::text AS metadata,
    create_object, object_fields::text AS object_fields, blob_property, blob_type, skip_duplicates,
    CASE WHEN status <> 'COMPLETED' AND expires_at <= now() THEN 'FAILED' ELSE status END AS status,
    sha256, object_id, created_at, expires_at, received_at, completed_at
FROM pgretrieve.uploads WHERE bucket_id = :bucket_id;

-- find_same_upload --
-- A file of this hash that was confirmed in this bucket before.
SELECT upload_id FROM pgretrieve.uploads
WHERE bucket_id = :bucket_id AND sha256 = :sha256 AND status = 'COMPLETED' ORDER BY created_at LIMIT 1;

-- open_upload --
-- The upload that waits for bytes at this address.
SELECT upload_id, file_size_bytes, file_hash FROM pgretrieve.uploads
WHERE upload_id = :upload_id AND signature_hash = :signature_hash AND status IN ('PENDING', 'PROCESSING') AND expires_at > now();

-- receive_upload --
-- The bytes are here. Sent once more, the last ones count, until they are confirmed.
UPDATE pgretrieve.uploads SET status = 'PROCESSING', sha256 = :sha256, file_hash = :sha256, file_size_bytes = :size_bytes,
    received_at = now()
WHERE upload_id = :upload_id AND status IN ('PENDING', 'PROCESSING') RETURNING upload_id;

-- complete_upload --
UPDATE pgretrieve.uploads SET status = 'COMPLETED', object_id = :object_id, completed_at = now() WHERE upload_id = :upload_id;

-- delete_upload --
DELETE FROM pgretrieve.uploads WHERE upload_id = :upload_id;

-- uploaded --
-- What these uploads of a bucket have brought.
SELECT upload_id, sha256, file_size_bytes, content_type, filename FROM pgretrieve.uploads
WHERE bucket_id = :bucket_id AND upload_id = ANY(CAST(:upload_ids AS text[])) AND sha256 IS NOT NULL;
