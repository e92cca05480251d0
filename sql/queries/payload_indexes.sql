-- forget_payload_indexes --
-- Those that are not among these; adaptive ones stay, unless another type is declared, or :adaptive_too.
DELETE FROM pgretrieve.payload_indexes p
WHERE p.namespace_id = :namespace_id AND NOT EXISTS (
        SELECT FROM jsonb_to_recordset(CAST(:indexes AS jsonb)) AS i (field_name text, type text)
        WHERE i.field_name = p.field_name AND i.type = p.type)
    AND (p.origin = 'declared' OR :adaptive_too OR EXISTS (
        SELECT FROM jsonb_to_recordset(CAST(:indexes AS jsonb)) AS i (field_name text)
        WHERE i.field_name = p.field_name))
RETURNING field_name AS field, type, state, origin, number;

-- put_payload_indexes --
-- Answers those that were not there.
WITH put AS (
    INSERT INTO pgretrieve.payload_indexes AS p (namespace_id, field_name, type, field_schema)
    SELECT :namespace_id, i.field_name, i.type, i.field_schema
    FROM jsonb_to_recordset(CAST(:indexes AS jsonb)) AS i (field_name text, type text, field_schema jsonb)
    ON CONFLICT (namespace_id, field_name) DO UPDATE SET field_schema = excluded.field_schema, origin = 'declared'
    RETURNING p.field_name AS field, p.type, p.state, p.origin, p.number, p.xmax = 0 AS added)
SELECT field, type, state, origin, number FROM put WHERE added ORDER BY number;

-- set_payload_index_state --
-- How a build ended, and a new version of the catalog with it, so that plans are compiled anew.
WITH built AS (
    UPDATE pgretrieve.payload_indexes SET state = :state
    WHERE namespace_id = :namespace_id AND number = :number RETURNING namespace_id)
UPDATE pgretrieve.namespaces n SET version = version + 1, updated_at = now() FROM built WHERE n.namespace_id = built.namespace_id;

-- pending_payload_builds --
-- The payload indexes whose builds wait or run.
SELECT DISTINCT CAST(args->>'number' AS bigint) FROM pgretrieve_queue.procrastinate_jobs
WHERE task_name = 'build_payload_index' AND status IN ('todo', 'doing') AND args->>'namespace_id' = :namespace_id;

-- adapt_payload_index --
-- An adaptive index, where the namespace wants it, is large enough for it, has room for it, and none on that field.
INSERT INTO pgretrieve.payload_indexes (namespace_id, field_name, type, origin)
SELECT n.namespace_id, :field, :type, 'adaptive'
FROM pgretrieve.namespaces n
JOIN pg_catalog.pg_namespace s ON s.nspname = n.schema_name
JOIN pg_catalog.pg_class t ON t.relnamespace = s.oid AND t.relname = 'documents'
WHERE n.namespace_id = :namespace_id AND n.adopted_from IS NULL AND t.reltuples >= :documents
    AND n.settings->'auto_create_indexes' IS DISTINCT FROM 'false'
    AND :most > (SELECT count(*) FROM pgretrieve.payload_indexes p
        WHERE p.namespace_id = n.namespace_id AND p.origin = 'adaptive')
ON CONFLICT DO NOTHING
RETURNING number;

-- analyze_documents --
SELECT pgretrieve.analyze_documents(:schema);

-- grown_schemas --
-- The schemas with payload indexes of whose documents a tenth, and 1,000, changed since their statistics were taken.
SELECT n.schema_name FROM pgretrieve.namespaces n
JOIN pg_catalog.pg_stat_user_tables t ON t.schemaname = n.schema_name AND t.relname = 'documents'
JOIN pg_catalog.pg_class c ON c.oid = t.relid
WHERE t.n_mod_since_analyze >= 1000 AND t.n_mod_since_analyze >= 0.1 * c.reltuples
    AND EXISTS (SELECT FROM pgretrieve.payload_indexes p WHERE p.namespace_id = n.namespace_id)
ORDER BY n.schema_name;
