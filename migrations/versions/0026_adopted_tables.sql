-- A user's own table as a namespace: its schema holds a view, `documents`, over the table, which stays where and whose it is.
ALTER TABLE pgretrieve.namespaces ADD COLUMN adopted_from regclass, ADD COLUMN adopted_as jsonb,
    ADD CONSTRAINT namespaces_adopted CHECK ((adopted_from IS NULL) = (adopted_as IS NULL));
COMMENT ON COLUMN pgretrieve.namespaces.adopted_from IS 'The table of its user that this namespace reads, through the view `documents` of its schema, and never writes; null: it has a table of its own.';
COMMENT ON COLUMN pgretrieve.namespaces.adopted_as IS 'Of an adopted table, {key, fields}: the type that documents are looked up by (text, bigint, uuid), and the view''s columns that are fields of the payload.';

-- A document_id as the key of an adopted table; null where no key reads so, as 007, which is not how 7 is written. In plpgsql,
-- for what is not a number must not be cast when a plan is made.
CREATE FUNCTION pgretrieve.key_bigint(document_id text) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF document_id !~ '^(0|-?[1-9][0-9]{0,18})$' OR NOT pg_catalog.pg_input_is_valid(document_id, 'bigint') THEN
        RETURN NULL;
    END IF;
    RETURN document_id::bigint;
END $$;
COMMENT ON FUNCTION pgretrieve.key_bigint(text) IS 'A document_id of an adopted table as its integer key; null where it is none.';

CREATE FUNCTION pgretrieve.key_bigint(document_ids text[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT ARRAY(SELECT key FROM pg_catalog.unnest(document_ids) AS one, pgretrieve.key_bigint(one) AS key WHERE key IS NOT NULL) $$;
COMMENT ON FUNCTION pgretrieve.key_bigint(text[]) IS 'The same for several.';

CREATE FUNCTION pgretrieve.key_uuid(document_id text) RETURNS uuid
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF document_id !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        RETURN NULL;
    END IF;
    RETURN document_id::uuid;
END $$;
COMMENT ON FUNCTION pgretrieve.key_uuid(text) IS 'A document_id of an adopted table as its UUID; null where it is none.';

CREATE FUNCTION pgretrieve.key_uuid(document_ids text[]) RETURNS uuid[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT ARRAY(SELECT key FROM pg_catalog.unnest(document_ids) AS one, pgretrieve.key_uuid(one) AS key WHERE key IS NOT NULL) $$;
COMMENT ON FUNCTION pgretrieve.key_uuid(text[]) IS 'The same for several.';

CREATE OR REPLACE VIEW pgretrieve.all_namespaces AS
SELECT n.namespace_id, n.namespace_name, n.schema_name, n.mode, n.description,
    (SELECT count(*) FROM pgretrieve.vector_configs c WHERE c.namespace_id = n.namespace_id AND c.shadow_of IS NULL)
        AS vector_configs,
    (SELECT count(*) FROM pgretrieve.retrievers r WHERE r.namespace_id = n.namespace_id) AS retrievers,
    greatest(t.reltuples, 0)::bigint AS estimated_documents,
    n.created_at, (SELECT max(p.promoted_at) FROM pgretrieve.promotions p WHERE p.namespace_id = n.namespace_id
        AND p.promoted_at >= n.created_at) AS promoted_at,
    n.version, n.updated_at, n.adopted_from
FROM pgretrieve.namespaces n
LEFT JOIN pg_catalog.pg_namespace s ON s.nspname = n.schema_name
LEFT JOIN pg_catalog.pg_class t ON t.oid = coalesce(n.adopted_from::oid, (
    SELECT d.oid FROM pg_catalog.pg_class d WHERE d.relnamespace = s.oid AND d.relname = 'documents'));
COMMENT ON COLUMN pgretrieve.all_namespaces.adopted_from IS 'The table of its user that it reads; null: it has a table of its own.';

CREATE OR REPLACE VIEW pgretrieve.all_vector_configs AS
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
LEFT JOIN pg_catalog.pg_class a ON a.oid = n.adopted_from
LEFT JOIN pg_catalog.pg_class x ON x.relnamespace = coalesce(a.relnamespace, s.oid) AND x.relname = c.index_name AND x.relkind = 'i'
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = x.oid;
