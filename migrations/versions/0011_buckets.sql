-- Buckets and objects: what collections are made from. Bytes lie in the blob store; here is what refers to them.
CREATE TABLE pgretrieve.buckets (
    bucket_id text PRIMARY KEY,
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    bucket_name text NOT NULL,
    description text,
    bucket_schema jsonb NOT NULL,
    unique_fields text[],
    default_policy text CHECK (default_policy IN ('insert', 'update', 'upsert')),
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT buckets_name UNIQUE (namespace_id, bucket_name)
);
COMMENT ON TABLE pgretrieve.buckets IS 'Sets of objects of one schema, from which collections are made.';
COMMENT ON COLUMN pgretrieve.buckets.bucket_id IS 'bkt_ and random characters.';
COMMENT ON COLUMN pgretrieve.buckets.namespace_id IS 'The namespace that it belongs to, and goes with.';
COMMENT ON COLUMN pgretrieve.buckets.bucket_name IS 'Its name, unique in the namespace.';
COMMENT ON COLUMN pgretrieve.buckets.description IS 'What its user says of it.';
COMMENT ON COLUMN pgretrieve.buckets.bucket_schema IS 'What its objects consist of: {"properties": {name: {"type", "required", ...}}}.';
COMMENT ON COLUMN pgretrieve.buckets.unique_fields IS 'The fields, in alphabetic order, whose values together no two objects share; null is none.';
COMMENT ON COLUMN pgretrieve.buckets.default_policy IS 'What a new object with a known key does where its request does not say: insert (refuse), update, upsert.';
COMMENT ON COLUMN pgretrieve.buckets.metadata IS 'Whatever its user keeps with it.';
COMMENT ON COLUMN pgretrieve.buckets.created_at IS 'When it was made.';
COMMENT ON COLUMN pgretrieve.buckets.updated_at IS 'When its own row was last changed.';

CREATE TABLE pgretrieve.blobs (
    sha256 text PRIMARY KEY CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    store_key text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgretrieve.blobs IS 'Bytes in the blob store, once for each content, however many objects have it.';
COMMENT ON COLUMN pgretrieve.blobs.sha256 IS 'SHA-256 of the bytes, in hexadecimal digits: their address.';
COMMENT ON COLUMN pgretrieve.blobs.size_bytes IS 'How many they are.';
COMMENT ON COLUMN pgretrieve.blobs.store_key IS 'Where the store has them. A key is written once and never used again, so that no deletion meets a new writer.';
COMMENT ON COLUMN pgretrieve.blobs.created_at IS 'When they were first stored.';
COMMENT ON COLUMN pgretrieve.blobs.used_at IS 'When somebody last brought or found them; what is unused for long and referred to by nothing is swept.';
CREATE INDEX blobs_used ON pgretrieve.blobs (used_at);
COMMENT ON INDEX pgretrieve.blobs_used IS 'Serves sweep_blobs.';

CREATE TABLE pgretrieve.objects (
    object_id text PRIMARY KEY,
    bucket_id text NOT NULL REFERENCES pgretrieve.buckets ON DELETE CASCADE,
    key_prefix text,
    fields jsonb NOT NULL DEFAULT '{}',
    content_hash text NOT NULL,
    unique_key text,
    idempotency_key text,
    size_bytes bigint NOT NULL DEFAULT 0,
    status text NOT NULL DEFAULT 'PENDING',
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT objects_unique_key UNIQUE (bucket_id, unique_key),
    CONSTRAINT objects_idempotency_key UNIQUE (bucket_id, idempotency_key)
);
COMMENT ON TABLE pgretrieve.objects IS 'Objects of buckets: fields, and blobs in object_blobs.';
COMMENT ON COLUMN pgretrieve.objects.object_id IS 'obj_ and random characters.';
COMMENT ON COLUMN pgretrieve.objects.bucket_id IS 'The bucket that it belongs to, and goes with.';
COMMENT ON COLUMN pgretrieve.objects.key_prefix IS 'A path that its user gave it; nothing here reads it.';
COMMENT ON COLUMN pgretrieve.objects.fields IS 'Its fields, as they were sent, with the defaults of the schema.';
COMMENT ON COLUMN pgretrieve.objects.content_hash IS 'SHA-256 of its fields and of what its blobs are: the same where nothing needs to be processed again.';
COMMENT ON COLUMN pgretrieve.objects.unique_key IS 'SHA-256 of the values of the unique fields of its bucket; null where that has none.';
COMMENT ON COLUMN pgretrieve.objects.idempotency_key IS 'The key of the request that made it, if it had one.';
COMMENT ON COLUMN pgretrieve.objects.size_bytes IS 'Bytes of its blobs that are stored here.';
COMMENT ON COLUMN pgretrieve.objects.status IS 'PENDING until it is processed, then COMPLETED or FAILED; PENDING again when its content changes.';
COMMENT ON COLUMN pgretrieve.objects.error IS 'Why it is FAILED.';
COMMENT ON COLUMN pgretrieve.objects.created_at IS 'When it was made.';
COMMENT ON COLUMN pgretrieve.objects.updated_at IS 'When it was last changed.';
CREATE INDEX objects_listed ON pgretrieve.objects (bucket_id, created_at, object_id) INCLUDE (size_bytes);
COMMENT ON INDEX pgretrieve.objects_listed IS 'Serves lists of objects, and the counts of buckets without their rows.';
CREATE INDEX objects_failed ON pgretrieve.objects (bucket_id) WHERE status = 'FAILED';
COMMENT ON INDEX pgretrieve.objects_failed IS 'Serves the count of failed objects of a bucket.';
CREATE INDEX objects_content ON pgretrieve.objects (bucket_id, content_hash);
COMMENT ON INDEX pgretrieve.objects_content IS 'Serves find_same_object.';

CREATE TABLE pgretrieve.object_blobs (
    blob_id text PRIMARY KEY,
    object_id text NOT NULL REFERENCES pgretrieve.objects ON DELETE CASCADE,
    position integer NOT NULL,
    property text NOT NULL,
    type text NOT NULL,
    sha256 text REFERENCES pgretrieve.blobs,
    url text,
    content_hash text NOT NULL,
    size_bytes bigint,
    mime_type text,
    filename text,
    key_prefix text,
    metadata jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT object_blobs_position UNIQUE (object_id, position),
    CONSTRAINT object_blobs_source CHECK ((sha256 IS NULL) <> (url IS NULL))
);
COMMENT ON TABLE pgretrieve.object_blobs IS 'The blobs of objects: bytes in the blob store, or a URL that is fetched when it is processed.';
COMMENT ON COLUMN pgretrieve.object_blobs.blob_id IS 'blob_ and random characters.';
COMMENT ON COLUMN pgretrieve.object_blobs.object_id IS 'The object that it belongs to, and goes with.';
COMMENT ON COLUMN pgretrieve.object_blobs.position IS 'Its place among the blobs of the object, from 0.';
COMMENT ON COLUMN pgretrieve.object_blobs.property IS 'The property of the schema that it is a value of.';
COMMENT ON COLUMN pgretrieve.object_blobs.type IS 'The type of that property: text, image, pdf and so on.';
COMMENT ON COLUMN pgretrieve.object_blobs.sha256 IS 'The bytes; null where it is a URL.';
COMMENT ON COLUMN pgretrieve.object_blobs.url IS 'The URL; null where the bytes are here.';
COMMENT ON COLUMN pgretrieve.object_blobs.content_hash IS 'SHA-256 of the bytes, or of the URL: the same where nothing needs to be processed again.';
COMMENT ON COLUMN pgretrieve.object_blobs.size_bytes IS 'Bytes; null for a URL.';
COMMENT ON COLUMN pgretrieve.object_blobs.mime_type IS 'What kind of bytes its sender said that they are; null where nobody did.';
COMMENT ON COLUMN pgretrieve.object_blobs.filename IS 'The name of the file that it was, if it had one.';
COMMENT ON COLUMN pgretrieve.object_blobs.key_prefix IS 'A path that its user gave it; nothing here reads it.';
COMMENT ON COLUMN pgretrieve.object_blobs.metadata IS 'Whatever its user keeps with it.';
CREATE INDEX object_blobs_sha256 ON pgretrieve.object_blobs (sha256);
COMMENT ON INDEX pgretrieve.object_blobs_sha256 IS 'Serves sweep_blobs and the check of the foreign key.';

CREATE TABLE pgretrieve.uploads (
    upload_id text PRIMARY KEY,
    bucket_id text NOT NULL REFERENCES pgretrieve.buckets ON DELETE CASCADE,
    signature_hash bytea NOT NULL,
    filename text NOT NULL,
    content_type text NOT NULL,
    file_size_bytes bigint,
    file_hash text,
    seconds integer NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    create_object boolean NOT NULL,
    object_fields jsonb NOT NULL DEFAULT '{}',
    blob_property text,
    blob_type text,
    skip_duplicates boolean NOT NULL,
    status text NOT NULL DEFAULT 'PENDING',
    sha256 text REFERENCES pgretrieve.blobs,
    object_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    received_at timestamptz,
    completed_at timestamptz
);
COMMENT ON TABLE pgretrieve.uploads IS 'Files on their way: announced, sent to an address of their own, confirmed.';
COMMENT ON COLUMN pgretrieve.uploads.upload_id IS 'upl_ and random characters.';
COMMENT ON COLUMN pgretrieve.uploads.bucket_id IS 'The bucket that it is for, and goes with.';
COMMENT ON COLUMN pgretrieve.uploads.signature_hash IS 'SHA-256 of the secret in the address that the bytes are sent to.';
COMMENT ON COLUMN pgretrieve.uploads.filename IS 'The name of the file.';
COMMENT ON COLUMN pgretrieve.uploads.content_type IS 'What kind of file it is said to be.';
COMMENT ON COLUMN pgretrieve.uploads.file_size_bytes IS 'The bytes that were announced, then those that came.';
COMMENT ON COLUMN pgretrieve.uploads.file_hash IS 'The SHA-256 that was announced, then that of what came.';
COMMENT ON COLUMN pgretrieve.uploads.seconds IS 'How long its address was made to hold.';
COMMENT ON COLUMN pgretrieve.uploads.metadata IS 'Whatever its user keeps with it.';
COMMENT ON COLUMN pgretrieve.uploads.create_object IS 'Whether confirming it makes an object.';
COMMENT ON COLUMN pgretrieve.uploads.object_fields IS 'The fields of that object.';
COMMENT ON COLUMN pgretrieve.uploads.blob_property IS 'The property of the schema that the file is a value of.';
COMMENT ON COLUMN pgretrieve.uploads.blob_type IS 'The type of that property.';
COMMENT ON COLUMN pgretrieve.uploads.skip_duplicates IS 'Whether a file that is here already need not be sent.';
COMMENT ON COLUMN pgretrieve.uploads.status IS 'PENDING, PROCESSING once the bytes are here, COMPLETED once confirmed.';
COMMENT ON COLUMN pgretrieve.uploads.sha256 IS 'The bytes that came; null until then.';
COMMENT ON COLUMN pgretrieve.uploads.object_id IS 'The object that was made of it; it may be gone.';
COMMENT ON COLUMN pgretrieve.uploads.created_at IS 'When it was announced.';
COMMENT ON COLUMN pgretrieve.uploads.expires_at IS 'When its address ends; some time later its row does.';
COMMENT ON COLUMN pgretrieve.uploads.received_at IS 'When the bytes were stored.';
COMMENT ON COLUMN pgretrieve.uploads.completed_at IS 'When it was confirmed.';
CREATE INDEX uploads_listed ON pgretrieve.uploads (bucket_id, created_at, upload_id);
COMMENT ON INDEX pgretrieve.uploads_listed IS 'Serves lists of uploads.';
CREATE INDEX uploads_sha256 ON pgretrieve.uploads (sha256);
COMMENT ON INDEX pgretrieve.uploads_sha256 IS 'Serves sweep_blobs and the check of the foreign key.';
CREATE INDEX uploads_expired ON pgretrieve.uploads (expires_at);
COMMENT ON INDEX pgretrieve.uploads_expired IS 'Serves sweep_uploads.';
