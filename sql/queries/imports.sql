-- open_import --
-- The open import of this source into this namespace; a new one where there is none.
WITH found AS (
    SELECT import_id, last_row, stored, refused FROM pgretrieve.imports
    WHERE namespace_id = :namespace_id AND source_hash = :source_hash AND finished_at IS NULL),
made AS (
    INSERT INTO pgretrieve.imports (namespace_id, source, source_hash)
    SELECT :namespace_id, :source, :source_hash WHERE NOT EXISTS (SELECT FROM found)
    RETURNING import_id, last_row, stored, refused)
SELECT * FROM found UNION ALL SELECT * FROM made;

-- forget_import --
-- The next one of this source begins anew.
DELETE FROM pgretrieve.imports
WHERE namespace_id = :namespace_id AND source_hash = :source_hash AND finished_at IS NULL;

-- advance_import --
-- In the transaction of a chunk. No row where another process imports the same source, or it has ended.
UPDATE pgretrieve.imports SET last_row = :last_row, stored = stored + :stored, refused = refused + :refused,
    updated_at = clock_timestamp()
WHERE import_id = :import_id AND last_row = :before AND finished_at IS NULL RETURNING import_id;

-- finish_import --
UPDATE pgretrieve.imports SET finished_at = now() WHERE import_id = :import_id;

-- documents_before_import --
-- About how many documents a namespace has: by the statistics, and where there are none yet by the size of the table, of
-- at least 100 bytes a document.
SELECT CASE WHEN t.reltuples >= 0 THEN t.reltuples::bigint ELSE pg_relation_size(t.oid) / 100 END
FROM pg_catalog.pg_class t JOIN pg_catalog.pg_namespace s ON s.oid = t.relnamespace
WHERE s.nspname = :schema AND t.relname = 'documents';
