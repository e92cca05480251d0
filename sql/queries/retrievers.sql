-- find_retriever --
-- By id or name, within its namespace.
SELECT retriever_id, retriever_name, namespace_id, version, definition::text AS definition, created_at, updated_at
FROM pgretrieve.retrievers
WHERE namespace_id = :namespace_id AND (retriever_id = :identifier OR retriever_name = :identifier)
ORDER BY retriever_id = :identifier DESC LIMIT 1;

-- put_retriever --
-- A new retriever, or a new version of the one of that name; every version is kept.
WITH put AS (
    INSERT INTO pgretrieve.retrievers AS r (retriever_id, namespace_id, retriever_name, definition)
    VALUES (:retriever_id, :namespace_id, :retriever_name, CAST(:definition AS jsonb))
    ON CONFLICT (namespace_id, retriever_name) DO UPDATE
        SET definition = excluded.definition, version = r.version + 1, updated_at = now()
        WHERE NOT :only_new
    RETURNING retriever_id, retriever_name, namespace_id, version, definition, created_at, updated_at),
kept AS (
    INSERT INTO pgretrieve.retriever_versions (retriever_id, version, definition)
    SELECT retriever_id, version, definition FROM put)
SELECT retriever_id, retriever_name, namespace_id, version, definition::text AS definition, created_at, updated_at FROM put;

-- change_retriever --
-- A new version of this retriever, where it still is at the version that was read.
WITH changed AS (
    UPDATE pgretrieve.retrievers
    SET retriever_name = :retriever_name, definition = CAST(:definition AS jsonb), version = version + 1, updated_at = now()
    WHERE retriever_id = :retriever_id AND version = :version
    RETURNING retriever_id, retriever_name, namespace_id, version, definition, created_at, updated_at),
kept AS (
    INSERT INTO pgretrieve.retriever_versions (retriever_id, version, definition)
    SELECT retriever_id, version, definition FROM changed)
SELECT retriever_id, retriever_name, namespace_id, version, definition::text AS definition, created_at, updated_at FROM changed;

-- delete_retriever --
DELETE FROM pgretrieve.retrievers WHERE retriever_id = :retriever_id;

-- estimate_documents --
-- How many documents a namespace has, by the planner's statistics.
SELECT coalesce(max(greatest(reltuples, 0)), 0)::bigint FROM pg_class
WHERE oid = to_regclass(format('%I.%I', CAST(:schema AS text), 'documents'));
