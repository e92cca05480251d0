-- The namespaces of adopted tables go; the tables themselves are their users', and stay.
DO $$
DECLARE
    schema name;
BEGIN
    FOR schema IN SELECT schema_name FROM pgretrieve.namespaces WHERE adopted_from IS NOT NULL LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', schema);
    END LOOP;
END $$;
DELETE FROM pgretrieve.namespaces WHERE adopted_from IS NOT NULL;
DROP VIEW pgretrieve.all_namespaces;
DROP VIEW pgretrieve.all_vector_configs;
CREATE VIEW pgretrieve.all_namespaces AS
SELECT n.namespace_id, n.namespace_name, n.schema_name, n.mode, n.description,
    (SELECT count(*) FROM pgretrieve.vector_configs c WHERE c.namespace_id = n.namespace_id AND c.shadow_of IS NULL)
        AS vector_configs,
    (SELECT count(*) FROM pgretrieve.retrievers r WHERE r.namespace_id = n.namespace_id) AS retrievers,
    greatest(t.reltuples, 0)::bigint AS estimated_documents,
    n.created_at, (SELECT max(p.promoted_at) FROM pgretrieve.promotions p WHERE p.namespace_id = n.namespace_id
        AND p.promoted_at >= n.created_at) AS promoted_at,
    n.version, n.updated_at
FROM pgretrieve.namespaces n
LEFT JOIN pg_catalog.pg_namespace s ON s.nspname = n.schema_name
LEFT JOIN pg_catalog.pg_class t ON t.relnamespace = s.oid AND t.relname = 'documents';
COMMENT ON VIEW pgretrieve.all_namespaces IS 'Every namespace: how it is called, where it lies, and what it has.';
COMMENT ON COLUMN pgretrieve.all_namespaces.namespace_id IS 'Its id: what the API calls it, and the other views.';
COMMENT ON COLUMN pgretrieve.all_namespaces.namespace_name IS 'Another name that the API knows it by.';
COMMENT ON COLUMN pgretrieve.all_namespaces.schema_name IS 'The schema that holds its documents.';
COMMENT ON COLUMN pgretrieve.all_namespaces.mode IS 'standalone: vectors are its owner''s; managed: indexes may be mapped to services.';
COMMENT ON COLUMN pgretrieve.all_namespaces.description IS 'What its owner says of it.';
COMMENT ON COLUMN pgretrieve.all_namespaces.vector_configs IS 'How many vectors a document may have, by name.';
COMMENT ON COLUMN pgretrieve.all_namespaces.retrievers IS 'How many retrievers are stored.';
COMMENT ON COLUMN pgretrieve.all_namespaces.estimated_documents IS 'Documents as the statistics have it; count(*) of its table tells exactly.';
COMMENT ON COLUMN pgretrieve.all_namespaces.created_at IS 'When it was created.';
COMMENT ON COLUMN pgretrieve.all_namespaces.promoted_at IS 'When it became managed by a promotion; null: it never was promoted.';
COMMENT ON COLUMN pgretrieve.all_namespaces.version IS 'Goes up with each change of configs, mappings and mode.';
COMMENT ON COLUMN pgretrieve.all_namespaces.updated_at IS 'When that last changed.';
CREATE VIEW pgretrieve.all_vector_configs AS
SELECT c.namespace_id, c.name AS vector_config, n.schema_name,
    CASE c.kind WHEN 'multi' THEN 'documents_' || c.column_name ELSE 'documents' END::name AS table_name,
    CASE c.kind WHEN 'multi' THEN 'vector' ELSE c.column_name END::name AS column_name,
    c.kind, c.dimension, c.metric, m.inference_service, c.shadow_of,
    c.index_method, c.index_state, c.filled_by IS NOT NULL AS is_filling,
    coalesce(i.indisvalid, false) AS index_is_valid, c.index_name,
    pg_catalog.pg_relation_size(x.oid) AS index_bytes,
    CASE WHEN c.kind <> 'sparse' THEN 4 * c.dimension + 8 END AS bytes_of_a_vector, c.created_at
FROM pgretrieve.vector_configs c JOIN pgretrieve.namespaces n USING (namespace_id)
LEFT JOIN pgretrieve.vector_inference_map m ON m.namespace_id = c.namespace_id AND m.name = c.name
LEFT JOIN pg_catalog.pg_namespace s ON s.nspname = n.schema_name
LEFT JOIN pg_catalog.pg_class x ON x.relnamespace = s.oid AND x.relname = c.index_name AND x.relkind = 'i'
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = x.oid;
COMMENT ON VIEW pgretrieve.all_vector_configs IS 'Every vector config: the column that holds its vectors, its index and that one''s state and size, and its service.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.vector_config IS 'Its name in the API.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.schema_name IS 'The schema.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.table_name IS 'The table that holds its vectors.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.column_name IS 'The column; it may change when a migration of models is cut over.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.kind IS 'dense: one vector per document; sparse: indices and values; multi: several vectors per document, in a table of their own.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.dimension IS 'Numbers in each vector.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.metric IS 'cosine, dot or euclidean.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.inference_service IS 'The service that embeds its queries; null: callers do.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.shadow_of IS 'The vector config that this one may replace: a migration of models is under way. Null: it is searched.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.index_method IS 'HNSW on vector, on halfvec or on bits; exact: it has no index.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.index_state IS 'building, ready or failed; searches are exact unless it is ready.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.is_filling IS 'Whether a back-fill is still making vectors of documents that have none.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.index_is_valid IS 'Whether PostgreSQL has that index, whole.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.index_name IS 'The index.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.index_bytes IS 'Its size on disk; null where there is none.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.bytes_of_a_vector IS 'What one vector takes; null of sparse ones, whose sizes differ.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.created_at IS 'When it was declared.';
DROP FUNCTION pgretrieve.key_bigint(text);
DROP FUNCTION pgretrieve.key_bigint(text[]);
DROP FUNCTION pgretrieve.key_uuid(text);
DROP FUNCTION pgretrieve.key_uuid(text[]);
ALTER TABLE pgretrieve.namespaces DROP COLUMN adopted_from, DROP COLUMN adopted_as;
