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
    INSERT INTO pgretrieve.retriever_versions (retriever_id, version, retriever_name, definition, created_by)
    SELECT retriever_id, version, retriever_name, definition, :created_by FROM put)
SELECT retriever_id, retriever_name, namespace_id, version, definition::text AS definition, created_at, updated_at FROM put;

-- change_retriever --
-- A new version of this retriever, where it still is at the version that was read.
WITH changed AS (
    UPDATE pgretrieve.retrievers
    SET retriever_name = :retriever_name, definition = CAST(:definition AS jsonb), version = version + 1, updated_at = now()
    WHERE retriever_id = :retriever_id AND version = :version
    RETURNING retriever_id, retriever_name, namespace_id, version, definition, created_at, updated_at),
kept AS (
    INSERT INTO pgretrieve.retriever_versions (retriever_id, version, retriever_name, definition, created_by)
    SELECT retriever_id, version, retriever_name, definition, :created_by FROM changed)
SELECT retriever_id, retriever_name, namespace_id, version, definition::text AS definition, created_at, updated_at FROM changed;

-- retriever_versions --
-- The versions of a retriever that are older than one, the newest first.
SELECT version, retriever_name, definition::text AS definition, created_by, created_at
FROM pgretrieve.retriever_versions
WHERE retriever_id = :retriever_id AND version < :before
ORDER BY version DESC LIMIT :limit;

-- retriever_version --
-- One version of a retriever.
SELECT version, retriever_name, definition::text AS definition, created_by, created_at
FROM pgretrieve.retriever_versions WHERE retriever_id = :retriever_id AND version = :version;

-- delete_retriever --
-- Its versions go with it.
DELETE FROM pgretrieve.retrievers WHERE retriever_id = :retriever_id;

-- estimate_documents --
-- How many documents a namespace has, by the planner's statistics.
SELECT coalesce(max(greatest(reltuples, 0)), 0)::bigint FROM pg_class
WHERE oid = to_regclass(format('%I.%I', CAST(:schema AS text), 'documents'));

-- psql --
-- A retriever's statement as psql takes it: its settings hold for this transaction alone.
BEGIN READ ONLY;
:settings:rows;
COMMIT;

-- psql_setting --
-- One of its settings.
SET LOCAL :name = :value;

-- psql_rows --
-- The documents of a retriever's statement, without what it tells beside them.
SELECT rank, document_id, score, collection_id, CAST(coalesce(fields, payload) AS jsonb) AS payload,
    CAST(metadata AS jsonb) AS metadata, created_at, updated_at
FROM (:statement) AS answer WHERE document_id IS NOT NULL ORDER BY rank;
