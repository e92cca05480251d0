-- find_lexical_index --
-- The fields and the schema of a namespace; no fields and no time where it has no lexical index.
SELECT n.schema_name, coalesce(l.fields, '[]')::text AS fields, l.created_at
FROM pgretrieve.namespaces n LEFT JOIN pgretrieve.lexical_indexes l USING (namespace_id)
WHERE n.namespace_id = :namespace_id;

-- create_lexical_index --
-- Empty tables and the triggers that fill them from now on, in the place of those that were there.
WITH index AS (
    INSERT INTO pgretrieve.lexical_indexes (namespace_id, fields, state)
    VALUES (:namespace_id, CAST(:fields AS jsonb), 'building')
    ON CONFLICT (namespace_id) DO UPDATE
    SET fields = excluded.fields, state = excluded.state, created_at = clock_timestamp()
    RETURNING fields)
SELECT pgretrieve.lexical_create(:schema, fields) FROM index;

-- fill_lexical_index --
-- Adds the next documents that were there before; answers the last one's id, null where there was none.
SELECT pgretrieve.lexical_fill(:schema, :after, :most);

-- open_lexical_index --
-- The index is complete, and the namespace gets a new version with it, so that plans are compiled anew; nothing where
-- the index is another one by now.
WITH built AS (
    UPDATE pgretrieve.lexical_indexes SET state = 'ready'
    WHERE namespace_id = :namespace_id AND created_at = :created_at RETURNING namespace_id)
UPDATE pgretrieve.namespaces n SET version = version + 1, updated_at = now() FROM built WHERE n.namespace_id = built.namespace_id;

-- finish_lexical_index --
-- The same within the request that declared it.
UPDATE pgretrieve.lexical_indexes SET state = 'ready' WHERE namespace_id = :namespace_id;

-- drop_lexical_index --
WITH index AS (DELETE FROM pgretrieve.lexical_indexes WHERE namespace_id = :namespace_id RETURNING namespace_id)
SELECT pgretrieve.lexical_drop(:schema) FROM index;

-- lexical_schemas --
-- The namespaces whose postings are there to be merged.
SELECT n.schema_name FROM pgretrieve.lexical_indexes JOIN pgretrieve.namespaces n USING (namespace_id)
WHERE state = 'ready' ORDER BY n.schema_name;

-- lexical_index_is_due --
SELECT pgretrieve.lexical_is_due(:schema);

-- merge_lexical_index --
SELECT pgretrieve.lexical_merge(:schema);
