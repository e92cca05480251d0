-- What analysts read. The views run with the rights of who migrates, so that readers need none on the tables beneath;
-- they show no keys, no hashes, no credentials, and no contents of work.
CREATE SCHEMA pgretrieve_views;
COMMENT ON SCHEMA pgretrieve_views IS 'The catalog in plain words, for those who read it: a public contract (sql/README.md).';

CREATE VIEW pgretrieve_views.namespaces AS
    SELECT n.namespace_id, n.namespace_name, n.schema_name, n.mode, n.description,
        greatest(c.reltuples, 0)::bigint AS documents, pg_total_relation_size(c.oid) AS bytes,
        (SELECT count(*) FROM pgretrieve.vector_configs v WHERE v.namespace_id = n.namespace_id AND v.shadow_of IS NULL)
            AS vector_configs,
        (SELECT count(*) FROM pgretrieve.retrievers r WHERE r.namespace_id = n.namespace_id) AS retrievers,
        (SELECT max(p.promoted_at) FROM pgretrieve.promotions p WHERE p.namespace_id = n.namespace_id) AS promoted_at,
        n.created_at, n.updated_at
    FROM pgretrieve.namespaces n
    LEFT JOIN pg_class c ON c.relname = 'documents'
        AND c.relnamespace = (SELECT s.oid FROM pg_namespace s WHERE s.nspname = n.schema_name);
COMMENT ON VIEW pgretrieve_views.namespaces IS 'Every namespace: a schema that holds documents and their vectors.';
COMMENT ON COLUMN pgretrieve_views.namespaces.namespace_id IS 'Its id.';
COMMENT ON COLUMN pgretrieve_views.namespaces.namespace_name IS 'Another name that the API accepts in its place.';
COMMENT ON COLUMN pgretrieve_views.namespaces.schema_name IS 'The schema; its table of documents is called documents.';
COMMENT ON COLUMN pgretrieve_views.namespaces.mode IS 'standalone: owners bring vectors; managed: indexes may be mapped to inference services.';
COMMENT ON COLUMN pgretrieve_views.namespaces.description IS 'In the owner''s words.';
COMMENT ON COLUMN pgretrieve_views.namespaces.documents IS 'How many there are, as PostgreSQL last estimated it.';
COMMENT ON COLUMN pgretrieve_views.namespaces.bytes IS 'What documents and their indexes take on disk, without side tables; see sizes.';
COMMENT ON COLUMN pgretrieve_views.namespaces.vector_configs IS 'How many vector configs it has.';
COMMENT ON COLUMN pgretrieve_views.namespaces.retrievers IS 'How many stored retrievers it has.';
COMMENT ON COLUMN pgretrieve_views.namespaces.promoted_at IS 'When it was promoted; null: it was not.';
COMMENT ON COLUMN pgretrieve_views.namespaces.created_at IS 'When it was created.';
COMMENT ON COLUMN pgretrieve_views.namespaces.updated_at IS 'When its configuration last changed.';

CREATE VIEW pgretrieve_views.vector_configs AS
    SELECT v.namespace_id, v.name AS index_name, n.schema_name,
        CASE v.kind WHEN 'multi' THEN 'documents_' || v.column_name ELSE 'documents' END::name AS table_name,
        CASE v.kind WHEN 'multi' THEN 'vector' ELSE v.column_name END::name AS column_name,
        v.kind, v.dimension, v.metric, v.index_method, v.index_state,
        pg_relation_size(i.oid) AS index_bytes, m.inference_service, v.created_at
    FROM pgretrieve.vector_configs v
    JOIN pgretrieve.namespaces n ON n.namespace_id = v.namespace_id
    LEFT JOIN pgretrieve.vector_inference_map m ON m.namespace_id = v.namespace_id AND m.name = v.name
    LEFT JOIN pg_class i ON i.relname = v.index_name
        AND i.relnamespace = (SELECT s.oid FROM pg_namespace s WHERE s.nspname = n.schema_name)
    WHERE v.shadow_of IS NULL;
COMMENT ON VIEW pgretrieve_views.vector_configs IS 'Every vector index of every namespace: where its vectors are, and how they are searched.';
COMMENT ON COLUMN pgretrieve_views.vector_configs.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve_views.vector_configs.index_name IS 'Its name in the API.';
COMMENT ON COLUMN pgretrieve_views.vector_configs.schema_name IS 'The namespace''s schema.';
COMMENT ON COLUMN pgretrieve_views.vector_configs.table_name IS 'The table that holds its vectors.';
COMMENT ON COLUMN pgretrieve_views.vector_configs.column_name IS 'Their column.';
COMMENT ON COLUMN pgretrieve_views.vector_configs.kind IS 'dense, sparse or multi.';
COMMENT ON COLUMN pgretrieve_views.vector_configs.dimension IS 'Numbers in a vector.';
COMMENT ON COLUMN pgretrieve_views.vector_configs.metric IS 'cosine, dot or euclidean.';
COMMENT ON COLUMN pgretrieve_views.vector_configs.index_method IS 'How its index stores vectors; exact: it has none.';
COMMENT ON COLUMN pgretrieve_views.vector_configs.index_state IS 'building, ready or failed.';
COMMENT ON COLUMN pgretrieve_views.vector_configs.index_bytes IS 'What its index takes on disk; null: there is none.';
COMMENT ON COLUMN pgretrieve_views.vector_configs.inference_service IS 'The service that embeds for it; null: none is mapped.';
COMMENT ON COLUMN pgretrieve_views.vector_configs.created_at IS 'When it was made.';

CREATE VIEW pgretrieve_views.mappings AS
    SELECT m.namespace_id, m.name AS index_name, m.inference_service, m.source_field, m.created_at AS mapped_at
    FROM pgretrieve.vector_inference_map m;
COMMENT ON VIEW pgretrieve_views.mappings IS 'Which inference service embeds for which vector index.';
COMMENT ON COLUMN pgretrieve_views.mappings.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve_views.mappings.index_name IS 'The vector index.';
COMMENT ON COLUMN pgretrieve_views.mappings.inference_service IS 'The service.';
COMMENT ON COLUMN pgretrieve_views.mappings.source_field IS 'The payload field that is embedded when documents come; null: none.';
COMMENT ON COLUMN pgretrieve_views.mappings.mapped_at IS 'Since when.';

CREATE VIEW pgretrieve_views.promotions AS
    SELECT p.namespace_id, p.promoted_at, p.promoted_by, p.before, p.after FROM pgretrieve.promotions p;
COMMENT ON VIEW pgretrieve_views.promotions IS 'Every promotion: a standalone namespace that became managed.';
COMMENT ON COLUMN pgretrieve_views.promotions.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve_views.promotions.promoted_at IS 'When.';
COMMENT ON COLUMN pgretrieve_views.promotions.promoted_by IS 'The id of the API key that asked for it.';
COMMENT ON COLUMN pgretrieve_views.promotions.before IS 'Vector configs and mappings before it.';
COMMENT ON COLUMN pgretrieve_views.promotions.after IS 'And after it.';

CREATE VIEW pgretrieve_views.vector_changes AS
    SELECT c.namespace_id, c.changed_at, c.changed_by, c.operation, c.before, c.after FROM pgretrieve.vector_changes c;
COMMENT ON VIEW pgretrieve_views.vector_changes IS 'Every later change of vector indexes and mappings.';
COMMENT ON COLUMN pgretrieve_views.vector_changes.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve_views.vector_changes.changed_at IS 'When.';
COMMENT ON COLUMN pgretrieve_views.vector_changes.changed_by IS 'The id of the API key that asked for it, or the part of the service that did it.';
COMMENT ON COLUMN pgretrieve_views.vector_changes.operation IS 'What was done.';
COMMENT ON COLUMN pgretrieve_views.vector_changes.before IS 'Vector configs and mappings before it.';
COMMENT ON COLUMN pgretrieve_views.vector_changes.after IS 'And after it.';

CREATE VIEW pgretrieve_views.retrievers AS
    SELECT r.namespace_id, r.retriever_id, r.retriever_name, r.version, f.function_name, f.signature,
        r.definition, r.created_at, r.updated_at
    FROM pgretrieve.retrievers r LEFT JOIN pgretrieve.retriever_functions f ON f.retriever_id = r.retriever_id;
COMMENT ON VIEW pgretrieve_views.retrievers IS 'Every stored retriever, with its present version.';
COMMENT ON COLUMN pgretrieve_views.retrievers.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve_views.retrievers.retriever_id IS 'Its id.';
COMMENT ON COLUMN pgretrieve_views.retrievers.retriever_name IS 'Its name.';
COMMENT ON COLUMN pgretrieve_views.retrievers.version IS 'Its present version.';
COMMENT ON COLUMN pgretrieve_views.retrievers.function_name IS 'The SQL function that it is, in the namespace''s schema; null: it is none.';
COMMENT ON COLUMN pgretrieve_views.retrievers.signature IS 'That function''s parameters.';
COMMENT ON COLUMN pgretrieve_views.retrievers.definition IS 'Its stages and inputs.';
COMMENT ON COLUMN pgretrieve_views.retrievers.created_at IS 'When it was created.';
COMMENT ON COLUMN pgretrieve_views.retrievers.updated_at IS 'When it last changed.';

CREATE VIEW pgretrieve_views.payload_indexes AS
    SELECT p.namespace_id, p.field_name, p.type, p.state, p.origin, p.created_at FROM pgretrieve.payload_indexes p;
COMMENT ON VIEW pgretrieve_views.payload_indexes IS 'Indexes that serve filters on payload fields.';
COMMENT ON COLUMN pgretrieve_views.payload_indexes.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve_views.payload_indexes.field_name IS 'The field, a dotted path in the payload.';
COMMENT ON COLUMN pgretrieve_views.payload_indexes.type IS 'keyword, integer, float, bool, datetime, geo, text or uuid.';
COMMENT ON COLUMN pgretrieve_views.payload_indexes.state IS 'building, ready or failed.';
COMMENT ON COLUMN pgretrieve_views.payload_indexes.origin IS 'declared by a user, or adaptive: made from what filters use.';
COMMENT ON COLUMN pgretrieve_views.payload_indexes.created_at IS 'When it was asked for.';

CREATE VIEW pgretrieve_views.collections AS
    SELECT c.namespace_id, c.collection_id, c.collection_name, c.description, c.source, c.feature_extractor,
        c.enabled, c.created_at, c.updated_at
    FROM pgretrieve.collections c;
COMMENT ON VIEW pgretrieve_views.collections IS 'Collections: what processes content into documents.';
COMMENT ON COLUMN pgretrieve_views.collections.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve_views.collections.collection_id IS 'Its id, as in documents.collection_id.';
COMMENT ON COLUMN pgretrieve_views.collections.collection_name IS 'Its name.';
COMMENT ON COLUMN pgretrieve_views.collections.description IS 'In the owner''s words.';
COMMENT ON COLUMN pgretrieve_views.collections.source IS 'The buckets or collections that it is made from.';
COMMENT ON COLUMN pgretrieve_views.collections.feature_extractor IS 'What makes documents of them, and how.';
COMMENT ON COLUMN pgretrieve_views.collections.enabled IS 'Whether new content is processed.';
COMMENT ON COLUMN pgretrieve_views.collections.created_at IS 'When it was created.';
COMMENT ON COLUMN pgretrieve_views.collections.updated_at IS 'When it last changed.';

CREATE VIEW pgretrieve_views.jobs AS
    SELECT t.task_id, t.namespace_id, t.kind, t.subject, t.status, t.done, t.total,
        CASE WHEN t.total > 0 THEN round(100.0 * t.done / t.total, 1) END AS percentage, t.failed,
        t.error ->> 'message' AS error, t.created_at, t.started_at, t.finished_at
    FROM pgretrieve.tasks t;
COMMENT ON VIEW pgretrieve_views.jobs IS 'What takes longer than a request: index builds, back-fills, batches and the like, and how far each is.';
COMMENT ON COLUMN pgretrieve_views.jobs.task_id IS 'Its id, as in the API.';
COMMENT ON COLUMN pgretrieve_views.jobs.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve_views.jobs.kind IS 'What is done.';
COMMENT ON COLUMN pgretrieve_views.jobs.subject IS 'What it is done to, such as an index.';
COMMENT ON COLUMN pgretrieve_views.jobs.status IS 'PENDING, IN_PROGRESS, COMPLETED, COMPLETED_WITH_ERRORS, FAILED or CANCELED.';
COMMENT ON COLUMN pgretrieve_views.jobs.done IS 'Steps that are done.';
COMMENT ON COLUMN pgretrieve_views.jobs.total IS 'Of how many; null: it is not known.';
COMMENT ON COLUMN pgretrieve_views.jobs.percentage IS 'The same as a percentage.';
COMMENT ON COLUMN pgretrieve_views.jobs.failed IS 'Steps that failed.';
COMMENT ON COLUMN pgretrieve_views.jobs.error IS 'Why it failed, in words.';
COMMENT ON COLUMN pgretrieve_views.jobs.created_at IS 'When it was asked for.';
COMMENT ON COLUMN pgretrieve_views.jobs.started_at IS 'When it began.';
COMMENT ON COLUMN pgretrieve_views.jobs.finished_at IS 'When it ended.';

CREATE VIEW pgretrieve_views.waiting_work AS
    SELECT w.namespace_id, w.kind, w.target, count(*) FILTER (WHERE w.failed_at IS NULL) AS waiting,
        count(*) FILTER (WHERE w.leased_until > now()) AS begun,
        min(w.created_at) FILTER (WHERE w.failed_at IS NULL) AS oldest
    FROM pgretrieve.work w
    GROUP BY w.namespace_id, w.kind, w.target;
COMMENT ON VIEW pgretrieve_views.waiting_work IS 'What workers have yet to do, by namespace, kind and target.';
COMMENT ON COLUMN pgretrieve_views.waiting_work.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve_views.waiting_work.kind IS 'embed: a vector is to be made; extract: content is to be processed.';
COMMENT ON COLUMN pgretrieve_views.waiting_work.target IS 'The vector index, or the collection.';
COMMENT ON COLUMN pgretrieve_views.waiting_work.waiting IS 'How many wait or are being worked on.';
COMMENT ON COLUMN pgretrieve_views.waiting_work.begun IS 'How many a worker has begun.';
COMMENT ON COLUMN pgretrieve_views.waiting_work.oldest IS 'Since when the oldest of them has waited.';

CREATE VIEW pgretrieve_views.failed_work AS
    SELECT w.work_id, w.namespace_id, w.kind, w.target, w.subject, w.attempts, w.failed_at,
        w.error ->> 'code' AS error_code, w.error ->> 'message' AS error
    FROM pgretrieve.work w WHERE w.failed_at IS NOT NULL;
COMMENT ON VIEW pgretrieve_views.failed_work IS 'What workers have given up (dead letters), and why; the API redrives it.';
COMMENT ON COLUMN pgretrieve_views.failed_work.work_id IS 'Its number.';
COMMENT ON COLUMN pgretrieve_views.failed_work.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve_views.failed_work.kind IS 'embed or extract.';
COMMENT ON COLUMN pgretrieve_views.failed_work.target IS 'The vector index, or the collection.';
COMMENT ON COLUMN pgretrieve_views.failed_work.subject IS 'The id of the document or object.';
COMMENT ON COLUMN pgretrieve_views.failed_work.attempts IS 'How often it was tried.';
COMMENT ON COLUMN pgretrieve_views.failed_work.failed_at IS 'When it was given up.';
COMMENT ON COLUMN pgretrieve_views.failed_work.error_code IS 'The code of the reason (docs/errors.md).';
COMMENT ON COLUMN pgretrieve_views.failed_work.error IS 'The reason in words.';

CREATE VIEW pgretrieve_views.sizes AS
    SELECT n.namespace_id, c.relname AS relation_name, CASE c.relkind WHEN 'i' THEN 'index' ELSE 'table' END AS kind,
        pg_relation_size(c.oid) + coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0) AS bytes,
        greatest(c.reltuples, 0)::bigint AS estimated_rows
    FROM pgretrieve.namespaces n
    JOIN pg_namespace s ON s.nspname = n.schema_name
    JOIN pg_class c ON c.relnamespace = s.oid AND c.relkind IN ('r', 'p', 'i', 'm');
COMMENT ON VIEW pgretrieve_views.sizes IS 'What every table and index of every namespace takes on disk.';
COMMENT ON COLUMN pgretrieve_views.sizes.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve_views.sizes.relation_name IS 'The table or index, in the namespace''s schema.';
COMMENT ON COLUMN pgretrieve_views.sizes.kind IS 'table or index.';
COMMENT ON COLUMN pgretrieve_views.sizes.bytes IS 'Its size; of a table with what is stored out of line, without its indexes.';
COMMENT ON COLUMN pgretrieve_views.sizes.estimated_rows IS 'Rows, as PostgreSQL last estimated it.';

-- Analysts read the documents of every namespace: of those that are there when the role is made (`pgretrieve roles`), and
-- of each new one, in the transaction that makes it.
CREATE FUNCTION pgretrieve.grant_analysts(schema name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'pgretrieve_analyst')
        AND EXISTS (SELECT FROM pg_namespace WHERE nspname = schema) THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO pgretrieve_analyst', schema);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO pgretrieve_analyst', schema);
        EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO pgretrieve_analyst', schema);
    END IF;
END;
$$;
COMMENT ON FUNCTION pgretrieve.grant_analysts(name) IS
    'Lets the role pgretrieve_analyst, where there is one, read what is in this schema and what will be.';

CREATE FUNCTION pgretrieve.namespace_granted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgretrieve.grant_analysts(NEW.schema_name);
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION pgretrieve.namespace_granted() IS 'Lets analysts read a new namespace, at the end of its transaction.';

-- Deferred, for the schema comes after its row; so a clone, an adopted table and a restored backup are granted alike.
CREATE CONSTRAINT TRIGGER namespaces_granted AFTER INSERT ON pgretrieve.namespaces
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgretrieve.namespace_granted();
