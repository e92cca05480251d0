-- begin_building --
-- A vector index that is not there yet: searches are exact from now on. Where that is so already, nothing changes.
WITH begun AS (
    UPDATE pgretrieve.vector_configs SET index_state = 'building'
    WHERE namespace_id = :namespace_id AND name = :name AND index_state <> 'building' RETURNING namespace_id)
UPDATE pgretrieve.namespaces n SET version = version + 1, updated_at = now() FROM begun WHERE n.namespace_id = begun.namespace_id;

-- give_up_building --
-- No index will be there: unless there is one, or another task builds it.
WITH failed AS (
    UPDATE pgretrieve.vector_configs c SET index_state = 'failed'
    WHERE c.namespace_id = :namespace_id AND c.name = :name AND c.index_state = 'building' AND NOT EXISTS (
        SELECT FROM pgretrieve.tasks t WHERE t.namespace_id = c.namespace_id AND t.subject = c.name
            AND t.kind IN ('build_index', 'rebuild_index') AND t.status IN ('PENDING', 'IN_PROGRESS'))
    RETURNING namespace_id)
UPDATE pgretrieve.namespaces n SET version = version + 1, updated_at = now() FROM failed WHERE n.namespace_id = failed.namespace_id;

-- hold_version --
-- Nobody else changes the namespace until the transaction ends. Writers of documents go on.
SELECT version FROM pgretrieve.namespaces WHERE namespace_id = :namespace_id FOR NO KEY UPDATE;

-- switch_index --
-- Another index in force from now on, where all is as it was when its build began. The one before it and the new one
-- change places among the loose ones.
WITH switched AS (
    UPDATE pgretrieve.vector_configs SET index_name = :index_name, index_method = :index_method, m = :m,
        ef_construction = :ef_construction, index_state = 'ready'
    WHERE namespace_id = :namespace_id AND name = :name AND column_name = :column AND index_name = :before
    RETURNING namespace_id),
replaced AS (
    INSERT INTO pgretrieve.loose_indexes (namespace_id, index_name)
    SELECT namespace_id, :before FROM switched WHERE :before <> :index_name OR :index_method = 'exact'
    ON CONFLICT DO NOTHING),
used AS (
    DELETE FROM pgretrieve.loose_indexes l USING switched s
    WHERE l.namespace_id = s.namespace_id AND l.index_name = :index_name AND :index_method <> 'exact')
UPDATE pgretrieve.namespaces n SET version = version + 1, updated_at = now()
FROM switched WHERE n.namespace_id = switched.namespace_id RETURNING n.version;

-- note_loose_index --
INSERT INTO pgretrieve.loose_indexes (namespace_id, index_name) VALUES (:namespace_id, :index_name) ON CONFLICT DO NOTHING;

-- loose_indexes --
-- Those of a namespace; never one that is in force, whatever is noted.
SELECT l.index_name FROM pgretrieve.loose_indexes l
WHERE l.namespace_id = :namespace_id AND NOT EXISTS (
    SELECT FROM pgretrieve.vector_configs c WHERE c.namespace_id = l.namespace_id AND c.index_name = l.index_name
        AND c.index_state = 'ready' AND c.index_method <> 'exact')
ORDER BY l.noted_at, l.index_name;

-- forget_loose_index --
DELETE FROM pgretrieve.loose_indexes WHERE namespace_id = :namespace_id AND index_name = :index_name;

-- namespaces_with_loose_indexes --
-- Where something is loose that nobody is about to use or to drop.
SELECT DISTINCT l.namespace_id FROM pgretrieve.loose_indexes l
WHERE NOT EXISTS (
        SELECT FROM pgretrieve.tasks t WHERE t.namespace_id = l.namespace_id
            AND t.kind IN ('build_index', 'rebuild_index') AND t.status IN ('PENDING', 'IN_PROGRESS'))
    AND NOT EXISTS (
        SELECT FROM pgretrieve_queue.procrastinate_jobs j WHERE j.args->>'namespace_id' = l.namespace_id
            AND j.task_name IN ('build_index', 'drop_loose_indexes') AND j.status IN ('todo', 'doing'));

-- relation_names --
-- The names that are taken in a schema: tables, indexes and others share one space.
SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
WHERE s.nspname = :schema;

-- physical_indexes --
-- What PostgreSQL has of these indexes: whether they are whole, their size, their parameters.
SELECT c.relname AS index_name, i.indisvalid AS valid, pg_catalog.pg_relation_size(c.oid) AS bytes,
    (SELECT jsonb_object_agg(o.option_name, CAST(o.option_value AS integer))
        FROM pg_catalog.pg_options_to_table(c.reloptions) o) AS parameters
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
WHERE s.nspname = :schema AND c.relname = ANY(CAST(:index_names AS text[]));
