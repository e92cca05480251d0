-- lock_namespace --
-- Takes the namespace for a change of configs, mappings or mode; others wait. The advisory lock makes them queue: by row
-- locks alone new sharers pass those who wait for the whole, who then starve for as long as there is traffic.
WITH turn AS MATERIALIZED (
    SELECT namespace_id, pg_advisory_xact_lock(hashtextextended(namespace_id, 0))
    FROM pgretrieve.namespace_identifiers WHERE identifier = :identifier
        AND (CAST(:visible AS text[]) IS NULL OR namespace_id = ANY(CAST(:visible AS text[]))))
SELECT n.namespace_id FROM turn JOIN pgretrieve.namespaces n USING (namespace_id) FOR UPDATE OF n;

-- share_namespace --
-- Keeps configs, mappings and mode as they are until the transaction ends; writers of documents do not disturb each other.
WITH turn AS MATERIALIZED (
    SELECT namespace_id, pg_advisory_xact_lock_shared(hashtextextended(namespace_id, 0))
    FROM pgretrieve.namespace_identifiers WHERE identifier = :identifier
        AND (CAST(:visible AS text[]) IS NULL OR namespace_id = ANY(CAST(:visible AS text[]))))
SELECT n.namespace_id FROM turn JOIN pgretrieve.namespaces n USING (namespace_id) FOR KEY SHARE OF n;

-- load_catalog --
-- Everything that compiling needs to know of a namespace, found by id or name. One that is not :visible to the caller
-- is not there.
SELECT n.namespace_id, n.namespace_name, n.schema_name AS schema, n.mode, n.version, n.dynamic_vector_indexes,
    CAST(CAST(n.adopted_from AS oid) AS bigint) AS adopted_from, n.adopted_as,
    coalesce((
        SELECT jsonb_agg(jsonb_build_object(
            'name', c.name, 'column', c.column_name, 'dimension', c.dimension, 'metric', c.metric,
            'index_name', c.index_name, 'index_method', c.index_method, 'index_state', c.index_state, 'kind', c.kind,
            'm', c.m, 'ef_construction', c.ef_construction, 'shadow_of', c.shadow_of,
            'filled_by', c.filled_by
        ) ORDER BY c.position)
        FROM pgretrieve.vector_configs c WHERE c.namespace_id = n.namespace_id), '[]') AS vector_configs,
    coalesce((
        SELECT jsonb_object_agg(m.name, m.inference_service ORDER BY c.position)
        FROM pgretrieve.vector_inference_map m JOIN pgretrieve.vector_configs c USING (namespace_id, name)
        WHERE m.namespace_id = n.namespace_id), '{}') AS inference_map,
    coalesce((
        SELECT jsonb_agg(jsonb_build_object('name', m.name, 'column', c.column_name, 'field', m.source_field,
            'service', m.inference_service) ORDER BY c.position)
        FROM pgretrieve.vector_inference_map m JOIN pgretrieve.vector_configs c USING (namespace_id, name)
        WHERE m.namespace_id = n.namespace_id AND m.source_field IS NOT NULL), '[]') AS sources,
    coalesce((
        SELECT jsonb_agg(jsonb_build_object('field', p.field_name, 'type', p.type, 'state', p.state, 'origin', p.origin,
            'number', p.number) ORDER BY p.field_name)
        FROM pgretrieve.payload_indexes p WHERE p.namespace_id = n.namespace_id), '[]') AS payload_indexes,
    coalesce((
        SELECT jsonb_object_agg(k.collection_name, k.collection_id)
        FROM pgretrieve.collections k WHERE k.namespace_id = n.namespace_id), '{}') AS collections,
    ARRAY(SELECT g.index_name FROM pgretrieve.model_migrations g
        WHERE g.namespace_id = n.namespace_id AND g.state = 'comparing') AS compared,
    n.schema_revision, coalesce(l.fields, '[]')::text AS lexical_fields, coalesce(l.state = 'ready', false) AS lexical_ready
FROM pgretrieve.namespace_identifiers i JOIN pgretrieve.namespaces n USING (namespace_id)
LEFT JOIN pgretrieve.lexical_indexes l USING (namespace_id)
WHERE i.identifier = :identifier
    AND (CAST(:visible AS text[]) IS NULL OR i.namespace_id = ANY(CAST(:visible AS text[])));

-- describe_namespaces --
-- The facts that compiling does not need, for answers; the estimate of documents is the statistics collector's.
SELECT n.namespace_id, n.namespace_name, n.description, n.mode, n.created_at, n.updated_at, n.dynamic_vector_indexes,
    (SELECT count(*) FROM pgretrieve.payload_indexes p WHERE p.namespace_id = n.namespace_id) AS payload_index_count,
    (SELECT count(*) FROM pgretrieve.buckets b WHERE b.namespace_id = n.namespace_id) AS bucket_count,
    (SELECT count(*) FROM pgretrieve.collections k WHERE k.namespace_id = n.namespace_id) AS collection_count,
    (SELECT count(*) FROM pgretrieve.buckets b JOIN pgretrieve.objects USING (bucket_id)
        WHERE b.namespace_id = n.namespace_id) AS object_count,
    n.settings, 
    CASE WHEN n.adopted_from IS NULL THEN NULL WHEN t.oid IS NULL THEN CAST(n.adopted_from AS text)
        ELSE quote_ident(o.nspname) || '.' || quote_ident(t.relname) END AS adopted_from,
    greatest(coalesce(t.reltuples, 0), 0)::bigint AS estimated_documents,
    coalesce((
        SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('name', c.name, 'dimension', c.dimension, 'metric', c.metric,
            'kind', nullif(c.kind, 'dense'))) ORDER BY c.position)
        FROM pgretrieve.vector_configs c
        WHERE c.namespace_id = n.namespace_id AND c.shadow_of IS NULL), '[]')::text AS vector_configs,
    coalesce((
        SELECT jsonb_object_agg(m.name, m.inference_service)
        FROM pgretrieve.vector_inference_map m JOIN pgretrieve.vector_configs c USING (namespace_id, name)
        WHERE m.namespace_id = n.namespace_id AND c.shadow_of IS NULL), '{}')::text AS inference_map,
    coalesce((
        SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('field_name', p.field_name, 'type', p.type,
            'field_schema', p.field_schema, 'is_protected', false, 'state', p.state, 'origin', p.origin)) ORDER BY p.field_name)
        FROM pgretrieve.payload_indexes p WHERE p.namespace_id = n.namespace_id), '[]')::text AS payload_indexes
FROM pgretrieve.namespaces n
LEFT JOIN pg_catalog.pg_class t
    ON t.oid = coalesce(CAST(n.adopted_from AS oid), (
        SELECT d.oid FROM pg_catalog.pg_class d JOIN pg_catalog.pg_namespace s ON s.oid = d.relnamespace
        WHERE d.relname = 'documents' AND s.nspname = n.schema_name))
LEFT JOIN pg_catalog.pg_namespace o ON o.oid = t.relnamespace
WHERE CAST(:visible AS text[]) IS NULL OR n.namespace_id = ANY(CAST(:visible AS text[]));

-- schema_exists --
-- Whether a schema of this name is there already, ours or its user's.
SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = :schema);

-- hand_over --
SELECT pgretrieve.hand_over(:schema);

-- insert_namespace --
INSERT INTO pgretrieve.namespaces (namespace_id, namespace_name, schema_name, schema_revision, mode,
    dynamic_vector_indexes, description, settings)
VALUES (:namespace_id, :namespace_name, :schema, :schema_revision, :mode, :dynamic, :description,
    CAST(:settings AS jsonb));

-- insert_namespace_identifiers --
-- Fails on an identifier that any namespace has as its id or its name.
INSERT INTO pgretrieve.namespace_identifiers (identifier, namespace_id)
SELECT DISTINCT identifier, :namespace_id FROM unnest(CAST(:identifiers AS text[])) AS identifier;

-- insert_vector_configs --
-- Rows from one JSON array, in its order, after those that are there.
INSERT INTO pgretrieve.vector_configs
    (namespace_id, name, position, column_name, kind, dimension, metric, index_name, index_method, index_state, m,
    ef_construction)
SELECT :namespace_id, c.name, coalesce((
        SELECT max(position) FROM pgretrieve.vector_configs WHERE namespace_id = :namespace_id), 0) + c.ordinality,
    c.column, c.kind, c.dimension, c.metric, c.index_name, c.index_method, c.index_state, c.m, c.ef_construction
FROM ROWS FROM (jsonb_to_recordset(CAST(:configs AS jsonb)) AS (
    name text, "column" text, kind text, dimension integer, metric text, index_name text, index_method text,
    index_state text, m integer, ef_construction integer
)) WITH ORDINALITY AS c;

-- insert_mappings --
INSERT INTO pgretrieve.vector_inference_map (namespace_id, name, inference_service, source_field)
SELECT :namespace_id, m.name, m.inference_service, m.source_field
FROM jsonb_to_recordset(CAST(:mappings AS jsonb)) AS m (name text, inference_service text, source_field text);

-- set_mode --
UPDATE pgretrieve.namespaces SET mode = :mode, version = version + 1, updated_at = now()
WHERE namespace_id = :namespace_id RETURNING version;

-- bump_namespace --
UPDATE pgretrieve.namespaces SET version = version + 1, updated_at = now()
WHERE namespace_id = :namespace_id RETURNING version;

-- insert_promotion --
INSERT INTO pgretrieve.promotions (namespace_id, promoted_by, request, before, after)
VALUES (:namespace_id, :promoted_by, CAST(:request AS jsonb), CAST(:before AS jsonb), CAST(:after AS jsonb));

-- set_build_limits --
-- For the session of an index build, which cannot run in a transaction. A build whose worker is gone ends by itself.
SELECT set_config('maintenance_work_mem', :memory, false), set_config('statement_timeout', :timeout, false),
    set_config('max_parallel_maintenance_workers', :workers, false),
    set_config('client_connection_check_interval', '10s', false);

-- finish_index --
-- How a build ended, and a new version of the catalog with it, so that plans are compiled anew.
WITH built AS (
    UPDATE pgretrieve.vector_configs SET index_state = :state
    WHERE namespace_id = :namespace_id AND name = :name RETURNING namespace_id)
UPDATE pgretrieve.namespaces n SET version = version + 1, updated_at = now() FROM built WHERE n.namespace_id = built.namespace_id;

-- index_is_valid --
-- Whether a concurrent build really finished: it leaves an invalid index behind when it fails.
SELECT coalesce((
    SELECT i.indisvalid FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
    WHERE s.nspname = :schema AND c.relname = :index_name), false);

-- delete_namespace --
DELETE FROM pgretrieve.namespaces WHERE namespace_id = :namespace_id;

-- change_namespace --
-- Name, description and kept options, and a new version, so that no plan outlives a name.
UPDATE pgretrieve.namespaces SET namespace_name = :namespace_name, settings = settings || CAST(:settings AS jsonb),
    description = CASE WHEN :describe THEN CAST(:description AS text) ELSE description END,
    version = version + 1, updated_at = now()
WHERE namespace_id = :namespace_id;

-- forget_namespace_names --
DELETE FROM pgretrieve.namespace_identifiers WHERE namespace_id = :namespace_id AND identifier <> namespace_id;

-- copy_namespace --
-- Vector configs, mappings, declared payload indexes and retrievers of one namespace for another. Retrievers get ids of
-- their own and begin at version 1.
WITH configs AS (
    INSERT INTO pgretrieve.vector_configs
        (namespace_id, name, position, column_name, kind, dimension, metric, index_name, index_method, index_state, m,
        ef_construction)
    SELECT :copy, name, position, column_name, kind, dimension, metric, index_name, index_method,
        CASE index_method WHEN 'exact' THEN 'ready' ELSE :state END, m, ef_construction
    FROM pgretrieve.vector_configs WHERE namespace_id = :source AND shadow_of IS NULL),
fields AS (
    INSERT INTO pgretrieve.payload_indexes (namespace_id, field_name, type, field_schema, origin)
    SELECT :copy, field_name, type, field_schema, origin FROM pgretrieve.payload_indexes WHERE namespace_id = :source),
mappings AS (
    INSERT INTO pgretrieve.vector_inference_map (namespace_id, name, inference_service, source_field)
    SELECT :copy, m.name, m.inference_service, m.source_field
    FROM pgretrieve.vector_inference_map m JOIN pgretrieve.vector_configs c USING (namespace_id, name)
    WHERE m.namespace_id = :source AND c.shadow_of IS NULL),
copied AS (
    INSERT INTO pgretrieve.retrievers (retriever_id, namespace_id, retriever_name, definition)
    SELECT 'ret_' || left(replace(gen_random_uuid()::text, '-', ''), 24), :copy, retriever_name, definition
    FROM pgretrieve.retrievers WHERE namespace_id = :source AND :retrievers
    ORDER BY created_at
    RETURNING retriever_id, version, retriever_name, definition),
versions AS (
    INSERT INTO pgretrieve.retriever_versions (retriever_id, version, retriever_name, definition, created_by)
    SELECT retriever_id, version, retriever_name, definition, :created_by FROM copied)
SELECT retriever_id FROM copied;

-- namespace_row --
-- What of a namespace's row a copy takes over.
SELECT description, settings::text AS settings FROM pgretrieve.namespaces WHERE namespace_id = :namespace_id;

-- watch_sources --
SELECT pgretrieve.watch_sources(:schema, :watched);

-- count_pages --
-- The blocks of a table, which need no statistics to be known.
SELECT pg_relation_size(format('%I.%I', CAST(:schema AS text), CAST(:relation AS text))::regclass)
    / current_setting('block_size')::int;
