-- one_snapshot --
-- Makes the transaction, of which this is the first statement, read one state and change none.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;

-- backup_rows --
-- All that the catalog has of a namespace and a copy of it takes over, as JSON by table; shadows of migrations are left out.
SELECT CAST(jsonb_build_object(
    'namespace', (SELECT to_jsonb(n) FROM pgretrieve.namespaces n WHERE n.namespace_id = :namespace_id),
    'vector_configs', (SELECT jsonb_agg(to_jsonb(c) ORDER BY c.position) FROM pgretrieve.vector_configs c
        WHERE c.namespace_id = :namespace_id AND c.shadow_of IS NULL),
    'vector_inference_map', (SELECT jsonb_agg(to_jsonb(mapping)) FROM pgretrieve.vector_inference_map mapping
        JOIN pgretrieve.vector_configs c USING (namespace_id, name)
        WHERE mapping.namespace_id = :namespace_id AND c.shadow_of IS NULL),
    'payload_indexes', (SELECT jsonb_agg(to_jsonb(p)) FROM pgretrieve.payload_indexes p
        WHERE p.namespace_id = :namespace_id),
    'retrievers', (SELECT jsonb_agg(to_jsonb(r)) FROM pgretrieve.retrievers r WHERE r.namespace_id = :namespace_id),
    'retriever_versions', (SELECT jsonb_agg(to_jsonb(v)) FROM pgretrieve.retriever_versions v
        JOIN pgretrieve.retrievers r USING (retriever_id) WHERE r.namespace_id = :namespace_id),
    'promotions', (SELECT jsonb_agg(to_jsonb(p) ORDER BY p.promotion_id) FROM pgretrieve.promotions p
        WHERE p.namespace_id = :namespace_id),
    'vector_changes', (SELECT jsonb_agg(to_jsonb(v) ORDER BY v.change_id) FROM pgretrieve.vector_changes v
        WHERE v.namespace_id = :namespace_id)) AS text);

-- not_in_backup --
-- What a namespace has beside that, which a backup of it does not hold.
SELECT (SELECT count(*) FROM pgretrieve.buckets WHERE namespace_id = :namespace_id) AS buckets,
    (SELECT count(*) FROM pgretrieve.collections WHERE namespace_id = :namespace_id) AS collections,
    (SELECT count(*) FROM pgretrieve.vector_configs WHERE namespace_id = :namespace_id AND shadow_of IS NOT NULL) AS shadows;

-- restore_namespace --
-- The row that was just made is as old as the one that was saved; its version is one that nobody has compiled for.
UPDATE pgretrieve.namespaces n SET created_at = g.created_at, version = g.version + 1
FROM jsonb_populate_record(CAST(NULL AS pgretrieve.namespaces), CAST(:rows AS jsonb) -> 'namespace') g
WHERE n.namespace_id = :namespace_id;

-- restore_rows --
-- The rows of backup_rows for a namespace of that id. Retrievers keep their ids where those are free, and all versions.
WITH given AS MATERIALIZED (SELECT CAST(:rows AS jsonb) AS g),
configs AS (
    INSERT INTO pgretrieve.vector_configs
        (namespace_id, name, position, column_name, kind, dimension, metric, index_name, index_method, index_state, m,
        ef_construction, created_at, made_for)
    SELECT :namespace_id, c.name, c.position, c.column_name, c.kind, c.dimension, c.metric, c.index_name, c.index_method,
        CASE c.index_method WHEN 'exact' THEN 'ready' ELSE 'building' END, c.m, c.ef_construction, c.created_at, c.made_for
    FROM given, jsonb_populate_recordset(CAST(NULL AS pgretrieve.vector_configs), nullif(g -> 'vector_configs', 'null')) c),
mappings AS (
    INSERT INTO pgretrieve.vector_inference_map (namespace_id, name, inference_service, source_field, created_at)
    SELECT :namespace_id, m.name, m.inference_service, m.source_field, m.created_at
    FROM given, jsonb_populate_recordset(CAST(NULL AS pgretrieve.vector_inference_map), nullif(g -> 'vector_inference_map', 'null')) m),
fields AS (
    INSERT INTO pgretrieve.payload_indexes (namespace_id, field_name, type, field_schema, origin, created_at)
    SELECT :namespace_id, p.field_name, p.type, p.field_schema, p.origin, p.created_at
    FROM given, jsonb_populate_recordset(CAST(NULL AS pgretrieve.payload_indexes), nullif(g -> 'payload_indexes', 'null')) p),
audits AS (
    INSERT INTO pgretrieve.promotions (namespace_id, promoted_by, request, before, after, promoted_at)
    SELECT :namespace_id, p.promoted_by, p.request, p.before, p.after, p.promoted_at
    FROM given, jsonb_populate_recordset(CAST(NULL AS pgretrieve.promotions), nullif(g -> 'promotions', 'null')) p
    ORDER BY p.promotion_id),
changes AS (
    INSERT INTO pgretrieve.vector_changes (namespace_id, operation, changed_by, request, before, after, changed_at)
    SELECT :namespace_id, v.operation, v.changed_by, v.request, v.before, v.after, v.changed_at
    FROM given, jsonb_populate_recordset(CAST(NULL AS pgretrieve.vector_changes), nullif(g -> 'vector_changes', 'null')) v
    ORDER BY v.change_id),
ids AS MATERIALIZED (
    SELECT r.retriever_id AS saved, CASE WHEN x.retriever_id IS NULL THEN r.retriever_id
        ELSE 'ret_' || left(replace(CAST(gen_random_uuid() AS text), '-', ''), 24) END AS retriever_id
    FROM given CROSS JOIN jsonb_populate_recordset(CAST(NULL AS pgretrieve.retrievers), nullif(g -> 'retrievers', 'null')) r
    LEFT JOIN pgretrieve.retrievers x USING (retriever_id)),
restored AS (
    INSERT INTO pgretrieve.retrievers
        (retriever_id, namespace_id, retriever_name, version, definition, created_at, updated_at)
    SELECT i.retriever_id, :namespace_id, r.retriever_name, r.version, r.definition, r.created_at, r.updated_at
    FROM given CROSS JOIN jsonb_populate_recordset(CAST(NULL AS pgretrieve.retrievers), nullif(g -> 'retrievers', 'null')) r
    JOIN ids i ON i.saved = r.retriever_id)
INSERT INTO pgretrieve.retriever_versions (retriever_id, version, retriever_name, definition, created_by, created_at)
SELECT i.retriever_id, v.version, v.retriever_name, v.definition, v.created_by, v.created_at
FROM given CROSS JOIN jsonb_populate_recordset(CAST(NULL AS pgretrieve.retriever_versions), nullif(g -> 'retriever_versions', 'null')) v
JOIN ids i ON i.saved = v.retriever_id;
