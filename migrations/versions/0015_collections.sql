-- Collections: what is made of the objects of buckets, or of the documents of other collections.
CREATE TABLE pgretrieve.collections (
    collection_id text PRIMARY KEY,
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    collection_name text NOT NULL,
    description text,
    source jsonb NOT NULL,
    feature_extractor jsonb NOT NULL,
    paths jsonb NOT NULL,
    fields jsonb NOT NULL,
    fingerprint text NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    auto boolean NOT NULL DEFAULT true,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT collections_name UNIQUE (namespace_id, collection_name)
);
COMMENT ON TABLE pgretrieve.collections IS 'What is made of objects or of other collections'' documents, by one extractor.';
COMMENT ON COLUMN pgretrieve.collections.collection_id IS 'col_ and random characters: the collection_id of its documents.';
COMMENT ON COLUMN pgretrieve.collections.namespace_id IS 'The namespace that it belongs to, and goes with.';
COMMENT ON COLUMN pgretrieve.collections.collection_name IS 'Its name, unique in the namespace.';
COMMENT ON COLUMN pgretrieve.collections.description IS 'What its user says of it.';
COMMENT ON COLUMN pgretrieve.collections.source IS 'What it is made from: {"type", "bucket_ids" or "collection_ids", "source_filters"}.';
COMMENT ON COLUMN pgretrieve.collections.feature_extractor IS 'The extractor with its parameters, input mappings and fields that are passed through.';
COMMENT ON COLUMN pgretrieve.collections.paths IS 'For each input of the extractor, the fields of the sources that feed it.';
COMMENT ON COLUMN pgretrieve.collections.fields IS 'The fields of its documents with their types: {"properties", "open"}, open where there may be others.';
COMMENT ON COLUMN pgretrieve.collections.fingerprint IS 'SHA-256 of what its documents depend on beside their sources: the same where nothing needs to be made again.';
COMMENT ON COLUMN pgretrieve.collections.enabled IS 'Whether anything is made; what is there stays.';
COMMENT ON COLUMN pgretrieve.collections.auto IS 'Whether what comes or changes is processed by itself, without a batch.';
COMMENT ON COLUMN pgretrieve.collections.metadata IS 'Whatever its user keeps with it.';
COMMENT ON COLUMN pgretrieve.collections.created_at IS 'When it was made.';
COMMENT ON COLUMN pgretrieve.collections.updated_at IS 'When it was last changed.';

CREATE TABLE pgretrieve.collection_sources (
    collection_id text NOT NULL REFERENCES pgretrieve.collections ON DELETE CASCADE,
    bucket_id text REFERENCES pgretrieve.buckets ON DELETE CASCADE,
    parent_id text REFERENCES pgretrieve.collections ON DELETE CASCADE,
    CONSTRAINT collection_sources_one UNIQUE NULLS NOT DISTINCT (collection_id, bucket_id, parent_id),
    CHECK ((bucket_id IS NULL) <> (parent_id IS NULL))
);
-- Serve the triggers below, and the checks of the foreign keys.
CREATE INDEX collection_sources_bucket ON pgretrieve.collection_sources (bucket_id);
CREATE INDEX collection_sources_parent ON pgretrieve.collection_sources (parent_id);
COMMENT ON TABLE pgretrieve.collection_sources IS 'What each collection is made from: buckets, or other collections.';
COMMENT ON COLUMN pgretrieve.collection_sources.collection_id IS 'The collection.';
COMMENT ON COLUMN pgretrieve.collection_sources.bucket_id IS 'A bucket whose objects it reads.';
COMMENT ON COLUMN pgretrieve.collection_sources.parent_id IS 'A collection whose documents it reads.';

CREATE TABLE pgretrieve.collection_indexes (
    collection_id text NOT NULL REFERENCES pgretrieve.collections ON DELETE CASCADE,
    output text NOT NULL,
    index_name text NOT NULL,
    PRIMARY KEY (collection_id, output)
);
COMMENT ON TABLE pgretrieve.collection_indexes IS 'The vector indexes that collections fill.';
COMMENT ON COLUMN pgretrieve.collection_indexes.collection_id IS 'The collection.';
COMMENT ON COLUMN pgretrieve.collection_indexes.output IS 'The output of its extractor; of a vector that rows bring, its field.';
COMMENT ON COLUMN pgretrieve.collection_indexes.index_name IS 'The vector config of the namespace.';

ALTER TABLE pgretrieve.vector_configs ADD COLUMN made_for text;
COMMENT ON COLUMN pgretrieve.vector_configs.made_for IS 'The extractor for whose collections it was made; they share it, and it may go with the last of them. Null: its user made it.';

-- What was made of what: the ledger that decides what is made anew, and what goes with its source.
CREATE TABLE pgretrieve.extractions (
    collection_id text NOT NULL REFERENCES pgretrieve.collections ON DELETE CASCADE,
    source_id text NOT NULL,
    input_hash text NOT NULL,
    document_ids text[] NOT NULL,
    rejected jsonb NOT NULL DEFAULT '[]',
    rejected_count bigint NOT NULL DEFAULT 0,
    extracted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (collection_id, source_id)
);
COMMENT ON TABLE pgretrieve.extractions IS 'What each collection made of each object or document.';
COMMENT ON COLUMN pgretrieve.extractions.collection_id IS 'The collection.';
COMMENT ON COLUMN pgretrieve.extractions.source_id IS 'The object, or the document of another collection.';
COMMENT ON COLUMN pgretrieve.extractions.input_hash IS 'SHA-256 of the source''s content and the collection''s fingerprint: the same is not extracted again. Empty: it is to be.';
COMMENT ON COLUMN pgretrieve.extractions.document_ids IS 'The documents that it gave.';
COMMENT ON COLUMN pgretrieve.extractions.rejected IS 'Rows that gave none, the first of them, each with its reason: {key, code, message}.';
COMMENT ON COLUMN pgretrieve.extractions.rejected_count IS 'How many such rows there are.';
COMMENT ON COLUMN pgretrieve.extractions.extracted_at IS 'When.';

CREATE TABLE pgretrieve.extracted_blobs (
    collection_id text NOT NULL,
    source_id text NOT NULL,
    sha256 text NOT NULL REFERENCES pgretrieve.blobs,
    PRIMARY KEY (collection_id, source_id, sha256),
    FOREIGN KEY (collection_id, source_id) REFERENCES pgretrieve.extractions ON DELETE CASCADE
);
CREATE INDEX extracted_blobs_sha256 ON pgretrieve.extracted_blobs (sha256);
COMMENT ON INDEX pgretrieve.extracted_blobs_sha256 IS 'Serves sweep_blobs and the check of the foreign key.';
COMMENT ON TABLE pgretrieve.extracted_blobs IS 'Files that extractors made and documents name: images to embed, thumbnails.';
COMMENT ON COLUMN pgretrieve.extracted_blobs.collection_id IS 'The collection.';
COMMENT ON COLUMN pgretrieve.extracted_blobs.source_id IS 'What the file was made of.';
COMMENT ON COLUMN pgretrieve.extracted_blobs.sha256 IS 'The bytes.';

-- Batches, and which tasks wait for which work.
CREATE TABLE pgretrieve.batches (
    batch_id text PRIMARY KEY,
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    bucket_id text NOT NULL REFERENCES pgretrieve.buckets ON DELETE CASCADE,
    batch_name text,
    collection_ids text[],
    dedup text NOT NULL CHECK (dedup IN ('skip', 'replace', 'force')),
    metadata jsonb NOT NULL DEFAULT '{}',
    task_id text REFERENCES pgretrieve.tasks ON DELETE SET NULL,
    created_by text,
    created_at timestamptz NOT NULL DEFAULT now(),
    submitted_at timestamptz
);
CREATE INDEX batches_listed ON pgretrieve.batches (namespace_id, created_at DESC, batch_id DESC);
CREATE INDEX batches_bucket ON pgretrieve.batches (bucket_id, created_at DESC, batch_id DESC);
CREATE INDEX batches_task ON pgretrieve.batches (task_id);
COMMENT ON TABLE pgretrieve.batches IS 'Objects of a bucket that are processed together.';
COMMENT ON COLUMN pgretrieve.batches.batch_id IS 'btch_ and random characters.';
COMMENT ON COLUMN pgretrieve.batches.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.batches.bucket_id IS 'The bucket that its objects are of.';
COMMENT ON COLUMN pgretrieve.batches.batch_name IS 'What its user calls it.';
COMMENT ON COLUMN pgretrieve.batches.collection_ids IS 'The collections that it is for; null: all that are made from the bucket, and from those.';
COMMENT ON COLUMN pgretrieve.batches.dedup IS 'skip: what is made already is not made again; replace and force: it is.';
COMMENT ON COLUMN pgretrieve.batches.metadata IS 'Whatever its user keeps with it.';
COMMENT ON COLUMN pgretrieve.batches.task_id IS 'The task that counts it; null until it is submitted.';
COMMENT ON COLUMN pgretrieve.batches.created_by IS 'The API key (its id, never the key) that made it.';
COMMENT ON COLUMN pgretrieve.batches.created_at IS 'When it was made.';
COMMENT ON COLUMN pgretrieve.batches.submitted_at IS 'When it was submitted.';

CREATE TABLE pgretrieve.batch_objects (
    batch_id text NOT NULL REFERENCES pgretrieve.batches ON DELETE CASCADE,
    object_id text NOT NULL,
    PRIMARY KEY (batch_id, object_id)
);
COMMENT ON TABLE pgretrieve.batch_objects IS 'The objects of batches; one may be gone since.';
COMMENT ON COLUMN pgretrieve.batch_objects.batch_id IS 'The batch.';
COMMENT ON COLUMN pgretrieve.batch_objects.object_id IS 'The object.';

CREATE TABLE pgretrieve.awaited_work (
    work_id bigint NOT NULL REFERENCES pgretrieve.work ON DELETE CASCADE,
    task_id text NOT NULL REFERENCES pgretrieve.tasks ON DELETE CASCADE,
    asked boolean NOT NULL,
    PRIMARY KEY (work_id, task_id)
);
CREATE INDEX awaited_work_task ON pgretrieve.awaited_work (task_id);
COMMENT ON TABLE pgretrieve.awaited_work IS 'Work that tasks wait for, whoever queued it: several tasks may wait for one row.';
COMMENT ON COLUMN pgretrieve.awaited_work.work_id IS 'The work.';
COMMENT ON COLUMN pgretrieve.awaited_work.task_id IS 'The task that counts it.';
COMMENT ON COLUMN pgretrieve.awaited_work.asked IS 'Whether the task''s batch queued it, so that cancelling takes it away.';

CREATE FUNCTION pgretrieve.input_hash(content_hash text, fingerprint text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT encode(sha256(convert_to(content_hash || ':' || fingerprint, 'UTF8')), 'hex')
$$;
COMMENT ON FUNCTION pgretrieve.input_hash IS 'What an extraction depends on: its source''s content, and what its collection makes of it.';

-- Sources (objects or documents) with what holds each (a bucket or a collection) become work of the collections over that.
CREATE FUNCTION pgretrieve.queue_extractions(source_ids text[], holders text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    queued text[];
BEGIN
    WITH new AS (
        INSERT INTO pgretrieve.work AS w (namespace_id, kind, target, subject)
        SELECT DISTINCT c.namespace_id, 'extract', c.collection_id, a.source_id
        FROM unnest(source_ids, holders) AS a (source_id, holder)
        JOIN pgretrieve.collection_sources s ON s.bucket_id = a.holder OR s.parent_id = a.holder
        JOIN pgretrieve.collections c ON c.collection_id = s.collection_id AND c.enabled AND c.auto
        ORDER BY c.collection_id, a.source_id
        ON CONFLICT (namespace_id, kind, target, subject) DO UPDATE SET priority = greatest(w.priority, 0), attempts = 0,
            due_at = now(), lease = NULL, leased_until = NULL, failed_at = NULL, error = NULL
        RETURNING w.namespace_id)
    SELECT array_agg(DISTINCT namespace_id) INTO queued FROM new;
    PERFORM pgretrieve.defer_work(n) FROM unnest(queued) n;
END $$;
COMMENT ON FUNCTION pgretrieve.queue_extractions IS 'Queues what came or changed for the collections that are made from it, in the writer''s transaction.';

-- What was made of a source goes with it. The work first: a worker that is about to store holds its row, and is waited for.
CREATE FUNCTION pgretrieve.forget_sources(source_ids text[], holders text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place record;
BEGIN
    DELETE FROM pgretrieve.work w USING pgretrieve.collections c, pgretrieve.collection_sources s,
        unnest(source_ids, holders) AS g (source_id, holder)
    WHERE (s.bucket_id = g.holder OR s.parent_id = g.holder) AND c.collection_id = s.collection_id
        AND w.namespace_id = c.namespace_id AND w.kind = 'extract' AND w.target = c.collection_id AND w.subject = g.source_id;
    FOR place IN
        SELECT n.schema_name, e.collection_id, array_agg(DISTINCT d.document_id) AS ids
        FROM unnest(source_ids, holders) AS g (source_id, holder)
        JOIN pgretrieve.collection_sources s ON s.bucket_id = g.holder OR s.parent_id = g.holder
        JOIN pgretrieve.extractions e ON e.collection_id = s.collection_id AND e.source_id = g.source_id
        JOIN pgretrieve.collections c ON c.collection_id = e.collection_id
        JOIN pgretrieve.namespaces n USING (namespace_id)
        CROSS JOIN LATERAL unnest(e.document_ids) AS d (document_id)
        WHERE to_regclass(format('%I.documents', n.schema_name)) IS NOT NULL
        GROUP BY n.schema_name, e.collection_id ORDER BY e.collection_id
    LOOP
        EXECUTE format('DELETE FROM %I.documents WHERE document_id = ANY($1) AND collection_id = $2', place.schema_name)
        USING place.ids, place.collection_id;
    END LOOP;
    DELETE FROM pgretrieve.extractions e USING pgretrieve.collection_sources s,
        unnest(source_ids, holders) AS g (source_id, holder)
    WHERE (s.bucket_id = g.holder OR s.parent_id = g.holder) AND e.collection_id = s.collection_id
        AND e.source_id = g.source_id;
END $$;
COMMENT ON FUNCTION pgretrieve.forget_sources IS 'Takes away what collections made of these objects or documents, and the work on them.';

CREATE FUNCTION pgretrieve.objects_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM pgretrieve.queue_extractions(array_agg(object_id), array_agg(bucket_id)) FROM added HAVING count(*) > 0;
    ELSIF TG_OP = 'UPDATE' THEN
        PERFORM pgretrieve.queue_extractions(array_agg(a.object_id), array_agg(a.bucket_id))
        FROM added a JOIN before b ON b.object_id = a.object_id AND b.content_hash <> a.content_hash HAVING count(*) > 0;
    ELSE
        PERFORM pgretrieve.forget_sources(array_agg(object_id), array_agg(bucket_id)) FROM gone HAVING count(*) > 0;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION pgretrieve.objects_changed() IS 'Queues objects that came or changed, and takes away what was made of deleted ones, in their writer''s transaction.';

CREATE TRIGGER objects_insert AFTER INSERT ON pgretrieve.objects REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION pgretrieve.objects_changed();
CREATE TRIGGER objects_update AFTER UPDATE ON pgretrieve.objects REFERENCING OLD TABLE AS before NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION pgretrieve.objects_changed();
CREATE TRIGGER objects_delete AFTER DELETE ON pgretrieve.objects REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION pgretrieve.objects_changed();

-- The same for documents of collections that others are made from; these triggers stand where there are such.
CREATE FUNCTION pgretrieve.parents_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM pgretrieve.queue_extractions(array_agg(document_id), array_agg(collection_id))
        FROM added HAVING count(*) > 0;
    ELSIF TG_OP = 'UPDATE' THEN
        PERFORM pgretrieve.queue_extractions(array_agg(a.document_id), array_agg(a.collection_id))
        FROM added a JOIN before b ON b.document_id = a.document_id AND b.payload IS DISTINCT FROM a.payload
        HAVING count(*) > 0;
    ELSE
        PERFORM pgretrieve.forget_sources(array_agg(document_id), array_agg(collection_id)) FROM gone HAVING count(*) > 0;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION pgretrieve.parents_changed() IS 'Queues documents that came or changed, and takes away what was made of deleted ones, in their writer''s transaction.';

CREATE FUNCTION pgretrieve.watch_parents(schema name, watched boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS parents_insert ON %1$I.documents', schema);
    EXECUTE format('DROP TRIGGER IF EXISTS parents_update ON %1$I.documents', schema);
    EXECUTE format('DROP TRIGGER IF EXISTS parents_delete ON %1$I.documents', schema);
    IF watched THEN
        EXECUTE format('CREATE TRIGGER parents_insert AFTER INSERT ON %1$I.documents REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION pgretrieve.parents_changed()', schema);
        EXECUTE format('CREATE TRIGGER parents_update AFTER UPDATE ON %1$I.documents
            REFERENCING OLD TABLE AS before NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION pgretrieve.parents_changed()', schema);
        EXECUTE format('CREATE TRIGGER parents_delete AFTER DELETE ON %1$I.documents REFERENCING OLD TABLE AS gone
            FOR EACH STATEMENT EXECUTE FUNCTION pgretrieve.parents_changed()', schema);
    END IF;
END $$;
COMMENT ON FUNCTION pgretrieve.watch_parents IS 'Watches a namespace''s documents for input of collections over collections, or no longer.';
