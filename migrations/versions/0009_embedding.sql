-- Who made a vector stands beside it, in the document's own row: one UPDATE writes both, an upsert replaces both.
DO $$
DECLARE
    place record;
BEGIN
    FOR place IN SELECT schema_name FROM pgretrieve.namespaces ORDER BY schema_name LOOP
        EXECUTE format('ALTER TABLE %I.documents ADD COLUMN provenance jsonb NOT NULL DEFAULT ''{}''', place.schema_name);
        EXECUTE format('COMMENT ON COLUMN %I.documents.provenance IS %L', place.schema_name,
            'Who made each vector, by its column: {service, model, revision, input (SHA-256), at}. A vector that is not here is its caller''s.');
    END LOOP;
END $$;

-- Tasks: everything that takes longer than a request, with how far it is.
CREATE TABLE pgretrieve.tasks (
    task_id text PRIMARY KEY,
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    kind text NOT NULL,
    subject text,
    status text NOT NULL DEFAULT 'PENDING' CHECK (status IN (
        'PENDING', 'IN_PROGRESS', 'COMPLETED', 'COMPLETED_WITH_ERRORS', 'FAILED', 'CANCELED')),
    total bigint,
    done bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    about jsonb NOT NULL DEFAULT '{}',
    state jsonb NOT NULL DEFAULT '{}',
    error jsonb,
    cancel_requested boolean NOT NULL DEFAULT false,
    created_by text,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz
);
-- Serves lists of a namespace's tasks, the newest first.
CREATE INDEX tasks_namespace ON pgretrieve.tasks (namespace_id, created_at DESC, task_id DESC);
COMMENT ON TABLE pgretrieve.tasks IS 'What takes longer than a request: index builds, back-fills, batches, migrations of models.';
COMMENT ON COLUMN pgretrieve.tasks.task_id IS 'Its id, task_….';
COMMENT ON COLUMN pgretrieve.tasks.namespace_id IS 'The namespace that it works on.';
COMMENT ON COLUMN pgretrieve.tasks.kind IS 'What it does: build_index, backfill, ….';
COMMENT ON COLUMN pgretrieve.tasks.subject IS 'What it does it to: the vector config, the collection, ….';
COMMENT ON COLUMN pgretrieve.tasks.status IS 'PENDING, IN_PROGRESS, and how it ended.';
COMMENT ON COLUMN pgretrieve.tasks.total IS 'Items that there are to do, where that is known.';
COMMENT ON COLUMN pgretrieve.tasks.done IS 'Items that are done.';
COMMENT ON COLUMN pgretrieve.tasks.failed IS 'Items that could not be done.';
COMMENT ON COLUMN pgretrieve.tasks.about IS 'What its starter asked for and was told: shown in answers.';
COMMENT ON COLUMN pgretrieve.tasks.state IS 'Where it goes on after an interruption.';
COMMENT ON COLUMN pgretrieve.tasks.error IS 'Why it failed: {code, message}.';
COMMENT ON COLUMN pgretrieve.tasks.cancel_requested IS 'Whether it is to end before it is done.';
COMMENT ON COLUMN pgretrieve.tasks.created_by IS 'The API key (its id, never the key) that started it.';
COMMENT ON COLUMN pgretrieve.tasks.created_at IS 'When it was asked for.';
COMMENT ON COLUMN pgretrieve.tasks.started_at IS 'When it first ran.';
COMMENT ON COLUMN pgretrieve.tasks.finished_at IS 'When it ended.';

-- The work table: one row for each thing that a worker has yet to make.
CREATE TABLE pgretrieve.work (
    work_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN (
        'embed',   -- the vector in the column `target` of the document `subject`
        'extract'  -- the documents of the collection `target` from the object `subject`
    )),
    target text NOT NULL,
    subject text NOT NULL,
    priority smallint NOT NULL DEFAULT 0,
    task_id text REFERENCES pgretrieve.tasks ON DELETE SET NULL,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    lease uuid,
    leased_until timestamptz,
    failed_at timestamptz,
    error jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (namespace_id, kind, target, subject)
);
-- Serves claims: what is due first, by priority.
CREATE INDEX work_due ON pgretrieve.work (namespace_id, priority DESC, work_id) WHERE failed_at IS NULL;
-- Serves the counts of a task's open and failed items.
CREATE INDEX work_task ON pgretrieve.work (task_id) WHERE task_id IS NOT NULL;
COMMENT ON TABLE pgretrieve.work IS 'What workers have yet to make, one row each; what is made is deleted, what failed for good stays until it is redriven.';
COMMENT ON COLUMN pgretrieve.work.work_id IS 'Its number.';
COMMENT ON COLUMN pgretrieve.work.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.work.kind IS 'embed or extract.';
COMMENT ON COLUMN pgretrieve.work.target IS 'What it is made for: a vector column, a collection.';
COMMENT ON COLUMN pgretrieve.work.subject IS 'What it is made from: a document, an object.';
COMMENT ON COLUMN pgretrieve.work.priority IS 'Higher is sooner: 0 for what is written now, below for back-fills.';
COMMENT ON COLUMN pgretrieve.work.task_id IS 'The task that counts it.';
COMMENT ON COLUMN pgretrieve.work.attempts IS 'How often a worker has begun it.';
COMMENT ON COLUMN pgretrieve.work.due_at IS 'Not before this time.';
COMMENT ON COLUMN pgretrieve.work.lease IS 'Who has it; null: nobody. A new version of the subject takes it away.';
COMMENT ON COLUMN pgretrieve.work.leased_until IS 'When that ends by itself, should the worker be gone.';
COMMENT ON COLUMN pgretrieve.work.failed_at IS 'When it failed for good: a dead letter.';
COMMENT ON COLUMN pgretrieve.work.error IS 'Why it last failed: {code, message}.';
COMMENT ON COLUMN pgretrieve.work.created_at IS 'When it came.';

-- A shadow is a second column of a vector index, made by another service: it is written like the first, and not searched.
ALTER TABLE pgretrieve.vector_configs ADD COLUMN shadow_of text;
ALTER TABLE pgretrieve.vector_configs ADD COLUMN m integer CHECK (m BETWEEN 2 AND 100);
ALTER TABLE pgretrieve.vector_configs ADD COLUMN ef_construction integer CHECK (ef_construction BETWEEN 4 AND 1000);
ALTER TABLE pgretrieve.vector_configs ADD COLUMN filled_by text REFERENCES pgretrieve.tasks ON DELETE SET NULL;
COMMENT ON COLUMN pgretrieve.vector_configs.shadow_of IS 'The vector config that it shadows during a migration of models; null: it is searched.';
COMMENT ON COLUMN pgretrieve.vector_configs.m IS 'HNSW: links of an element in each layer; null: the deployment''s setting.';
COMMENT ON COLUMN pgretrieve.vector_configs.ef_construction IS 'HNSW: candidate list while building; null: the deployment''s setting.';
COMMENT ON COLUMN pgretrieve.vector_configs.filled_by IS 'The back-fill that has not ended yet: documents are missing in the index.';

-- Every later change of a managed namespace's vector indexes and mappings, as `promotions` has the promotion.
CREATE TABLE pgretrieve.vector_changes (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace_id text NOT NULL,
    operation text NOT NULL,
    changed_by text NOT NULL,
    request jsonb NOT NULL,
    before jsonb NOT NULL,
    after jsonb NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
-- Serves the look-up of a namespace's history.
CREATE INDEX vector_changes_namespace ON pgretrieve.vector_changes (namespace_id);
COMMENT ON TABLE pgretrieve.vector_changes IS 'An audit row for every change of vector indexes and mappings beside promotions; outlives its namespace.';
COMMENT ON COLUMN pgretrieve.vector_changes.change_id IS 'Its number.';
COMMENT ON COLUMN pgretrieve.vector_changes.namespace_id IS 'The namespace that was changed.';
COMMENT ON COLUMN pgretrieve.vector_changes.operation IS 'add_vector, drop_vector, map, unmap, rebuild, cut_over, roll_back, ….';
COMMENT ON COLUMN pgretrieve.vector_changes.changed_by IS 'The API key (its id, never the key) or the command that did it.';
COMMENT ON COLUMN pgretrieve.vector_changes.request IS 'What was asked for.';
COMMENT ON COLUMN pgretrieve.vector_changes.before IS 'Mode, version, vector configs and mappings before.';
COMMENT ON COLUMN pgretrieve.vector_changes.after IS 'The same after.';
COMMENT ON COLUMN pgretrieve.vector_changes.changed_at IS 'When.';

-- The text (or URL) at a dotted path that a service embeds; null where there is no string, or nothing but blanks.
CREATE FUNCTION pgretrieve.source_text(payload jsonb, field text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT CASE WHEN jsonb_typeof(payload #> string_to_array(field, '.')) = 'string'
    AND payload #>> string_to_array(field, '.') ~ '\S' THEN payload #>> string_to_array(field, '.') END
$$;
COMMENT ON FUNCTION pgretrieve.source_text IS 'The text of a payload that a service embeds; null where there is none.';

CREATE FUNCTION pgretrieve.source_hash(source text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT encode(sha256(convert_to(source, 'UTF8')), 'hex') $$;
COMMENT ON FUNCTION pgretrieve.source_hash IS 'SHA-256 of a source: what was embedded before is not embedded again.';

-- What every writer of documents owes to the mapped indexes with a source field, whoever it is: a vector that a service
-- made of other content goes, and what has a source but no vector becomes work, in the writer's transaction.
CREATE FUNCTION pgretrieve.sources_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place record;
    queued bigint;
    any_queued boolean := false;
BEGIN
    -- An upsert runs the triggers of INSERT and of UPDATE, one of them mostly in vain.
    IF NOT EXISTS (SELECT FROM added) THEN
        RETURN NULL;
    END IF;
    FOR place IN
        SELECT n.namespace_id, c.column_name, m.source_field
        FROM pgretrieve.namespaces n
        JOIN pgretrieve.vector_configs c USING (namespace_id)
        JOIN pgretrieve.vector_inference_map m ON m.namespace_id = c.namespace_id AND m.name = c.name
        WHERE n.schema_name = TG_TABLE_SCHEMA AND m.source_field IS NOT NULL AND c.kind = 'dense'
        ORDER BY c.position
    LOOP
        IF TG_OP = 'UPDATE' THEN
            -- Its own UPDATE runs this trigger again, which makes work of what is then without a vector.
            EXECUTE format($statement$
                UPDATE %1$I.documents d SET %2$I = NULL, provenance = d.provenance - %3$L FROM added a
                WHERE d.document_id = a.document_id AND a.%2$I IS NOT NULL AND a.provenance ? %3$L
                    AND a.provenance -> %3$L ->> 'input' IS DISTINCT FROM
                        pgretrieve.source_hash(pgretrieve.source_text(a.payload, %4$L))
                $statement$, TG_TABLE_SCHEMA, place.column_name, place.column_name, place.source_field);
        END IF;
        EXECUTE format($statement$
            INSERT INTO pgretrieve.work AS w (namespace_id, kind, target, subject)
            SELECT %1$L, 'embed', %2$L, a.document_id FROM added a
            WHERE a.%2$I IS NULL AND pgretrieve.source_text(a.payload, %3$L) IS NOT NULL
            ORDER BY a.document_id
            ON CONFLICT (namespace_id, kind, target, subject) DO UPDATE SET priority = 0, attempts = 0, due_at = now(),
                lease = NULL, leased_until = NULL, failed_at = NULL, error = NULL
            $statement$, place.namespace_id, place.column_name, place.source_field);
        GET DIAGNOSTICS queued = ROW_COUNT;
        any_queued := any_queued OR queued > 0;
    END LOOP;
    IF any_queued THEN
        PERFORM pgretrieve.defer_work(n.namespace_id) FROM pgretrieve.namespaces n WHERE n.schema_name = TG_TABLE_SCHEMA;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION pgretrieve.sources_changed() IS 'Drops vectors whose source has changed, and queues what is to be embedded, in the writer''s transaction.';

-- The job that wakes a worker; it exists if and only if the work was committed.
CREATE FUNCTION pgretrieve.defer_work(namespace_id text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgretrieve_queue, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM procrastinate_defer_jobs_v1(ARRAY[
        ROW('default', 'do_work', 0, NULL, NULL, jsonb_build_object('namespace_id', namespace_id), NULL)
    ]::procrastinate_job_to_defer_v1[]);
END $$;
COMMENT ON FUNCTION pgretrieve.defer_work IS 'Wakes a worker for a namespace''s work, in the caller''s transaction.';

CREATE FUNCTION pgretrieve.watch_sources(schema name, watched boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS sources_insert ON %1$I.documents', schema);
    EXECUTE format('DROP TRIGGER IF EXISTS sources_update ON %1$I.documents', schema);
    IF watched THEN
        EXECUTE format('CREATE TRIGGER sources_insert AFTER INSERT ON %1$I.documents REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION pgretrieve.sources_changed()', schema);
        EXECUTE format('CREATE TRIGGER sources_update AFTER UPDATE ON %1$I.documents REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION pgretrieve.sources_changed()', schema);
    END IF;
END $$;
COMMENT ON FUNCTION pgretrieve.watch_sources IS 'Watches a namespace''s documents for content to embed, or no longer.';

-- Who made every vector. A function a namespace, for columns come and go; the view is over all.
CREATE FUNCTION pgretrieve.vectors_of(of_namespace text) RETURNS TABLE (
    document_id text, index_name text, made_by text, service text, model text, revision text, input_hash text,
    made_at timestamptz, is_mapped boolean)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    place record;
BEGIN
    FOR place IN
        SELECT n.schema_name, c.name, c.column_name, m.inference_service
        FROM pgretrieve.namespaces n JOIN pgretrieve.vector_configs c USING (namespace_id)
        LEFT JOIN pgretrieve.vector_inference_map m ON m.namespace_id = c.namespace_id AND m.name = c.name
        WHERE n.namespace_id = of_namespace AND c.kind <> 'multi' ORDER BY c.position
    LOOP
        RETURN QUERY EXECUTE format($statement$
            SELECT d.document_id, %3$L::text, CASE WHEN p.made ? 'service' THEN 'service' ELSE 'caller' END,
                p.made ->> 'service', p.made ->> 'model', p.made ->> 'revision', p.made ->> 'input',
                coalesce((p.made ->> 'at')::timestamptz, d.updated_at), p.made ->> 'service' IS NOT DISTINCT FROM %4$L
            FROM %1$I.documents d CROSS JOIN LATERAL (SELECT d.provenance -> %5$L AS made) p
            WHERE d.%2$I IS NOT NULL
            $statement$, place.schema_name, place.column_name, place.name, place.inference_service, place.column_name);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgretrieve.vectors_of IS 'Who made each dense and sparse vector of a namespace: its caller, or a service, of which input, when.';

CREATE VIEW pgretrieve.vector_provenance AS
SELECT n.namespace_id, v.* FROM pgretrieve.namespaces n CROSS JOIN LATERAL pgretrieve.vectors_of(n.namespace_id) v;
COMMENT ON VIEW pgretrieve.vector_provenance IS 'Who made each vector; ask for one namespace_id at a time.';
COMMENT ON COLUMN pgretrieve.vector_provenance.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.vector_provenance.document_id IS 'The document.';
COMMENT ON COLUMN pgretrieve.vector_provenance.index_name IS 'The vector config.';
COMMENT ON COLUMN pgretrieve.vector_provenance.made_by IS 'caller or service.';
COMMENT ON COLUMN pgretrieve.vector_provenance.service IS 'The inference service; null: the caller brought the vector.';
COMMENT ON COLUMN pgretrieve.vector_provenance.model IS 'Its model.';
COMMENT ON COLUMN pgretrieve.vector_provenance.revision IS 'What its definition was, as a fingerprint.';
COMMENT ON COLUMN pgretrieve.vector_provenance.input_hash IS 'SHA-256 of what was embedded.';
COMMENT ON COLUMN pgretrieve.vector_provenance.made_at IS 'When; of a caller''s vector, when the document last came.';
COMMENT ON COLUMN pgretrieve.vector_provenance.is_mapped IS 'Whether the service that is mapped now made it; a caller''s vector counts where none is mapped.';

CREATE VIEW pgretrieve.foreign_vectors AS
SELECT v.* FROM pgretrieve.vector_provenance v WHERE NOT v.is_mapped;
COMMENT ON VIEW pgretrieve.foreign_vectors IS 'Vectors that the service mapped to their index did not make: its caller''s, or another model''s.';
COMMENT ON COLUMN pgretrieve.foreign_vectors.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.foreign_vectors.document_id IS 'The document.';
COMMENT ON COLUMN pgretrieve.foreign_vectors.index_name IS 'The vector config.';
COMMENT ON COLUMN pgretrieve.foreign_vectors.made_by IS 'caller or service.';
COMMENT ON COLUMN pgretrieve.foreign_vectors.service IS 'The inference service; null: the caller brought the vector.';
COMMENT ON COLUMN pgretrieve.foreign_vectors.model IS 'Its model.';
COMMENT ON COLUMN pgretrieve.foreign_vectors.revision IS 'What its definition was, as a fingerprint.';
COMMENT ON COLUMN pgretrieve.foreign_vectors.input_hash IS 'SHA-256 of what was embedded.';
COMMENT ON COLUMN pgretrieve.foreign_vectors.made_at IS 'When; of a caller''s vector, when the document last came.';
COMMENT ON COLUMN pgretrieve.foreign_vectors.is_mapped IS 'False.';
