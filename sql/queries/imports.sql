-- open_import --
-- The open import of this source into this namespace; a new one where there is none.
WITH found AS (
    SELECT import_id, last_row, place, stored, refused FROM pgretrieve.imports
    WHERE namespace_id = :namespace_id AND source_hash = :source_hash AND finished_at IS NULL),
made AS (
    INSERT INTO pgretrieve.imports (namespace_id, source, source_hash)
    SELECT :namespace_id, :source, :source_hash WHERE NOT EXISTS (SELECT FROM found)
    RETURNING import_id, last_row, place, stored, refused)
SELECT * FROM found UNION ALL SELECT * FROM made;

-- forget_import --
-- The next one of this source begins anew.
DELETE FROM pgretrieve.imports
WHERE namespace_id = :namespace_id AND source_hash = :source_hash AND finished_at IS NULL;

-- advance_import --
-- In the transaction of a chunk. No row where another process imports the same source, or it has ended.
UPDATE pgretrieve.imports SET last_row = :last_row, place = :place, stored = stored + :stored,
    refused = refused + :refused, updated_at = clock_timestamp()
WHERE import_id = :import_id AND last_row = :before AND finished_at IS NULL RETURNING import_id;

-- finish_import --
UPDATE pgretrieve.imports SET finished_at = now() WHERE import_id = :import_id;

-- documents_before_import --
-- About how many documents a namespace has: by the statistics, and where there are none yet by the size of the table, of
-- at least 100 bytes a document.
SELECT CASE WHEN t.reltuples >= 0 THEN t.reltuples::bigint ELSE pg_relation_size(t.oid) / 100 END
FROM pg_catalog.pg_class t JOIN pg_catalog.pg_namespace s ON s.oid = t.relnamespace
WHERE s.nspname = :schema AND t.relname = 'documents';

-- source_table --
-- Of the database that is imported from: the table of a name, and about how many rows it has.
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS relkind,
    CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint ELSE pg_relation_size(c.oid) / 100 END AS rows
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(:table);

-- source_columns --
-- Its columns: types, pgvector's dimensions, the operator classes of the indexes that a column is in (by pg_depend, so
-- those on expressions of it, too), and whether it alone is a key.
SELECT a.attname AS name, t.typname AS type, a.atttypmod AS dimension,
    a.attnotnull AND EXISTS (SELECT FROM pg_catalog.pg_index i
        WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1
            AND i.indkey[0] = a.attnum AND i.indpred IS NULL) AS is_key,
    EXISTS (SELECT FROM pg_catalog.pg_index i
        WHERE i.indrelid = a.attrelid AND i.indisprimary AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum) AS is_primary,
    ARRAY(SELECT DISTINCT o.opcname::text FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_index i ON i.indexrelid = d.objid AND i.indrelid = a.attrelid
        JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0]
        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
            AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
            AND o.opcname ~ '^(vector|halfvec|sparsevec|bit)_'
        ORDER BY 1) AS opclasses
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = :relation AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum;

-- source_session --
-- Before a page of it: times in JSON as ISO 8601 writes them, whatever the login's settings are.
SELECT set_config('datestyle', 'ISO', true), set_config('intervalstyle', 'iso_8601', true),
    set_config('timezone', 'UTC', true), set_config('extra_float_digits', '1', true),
    set_config('statement_timeout', :timeout, true);
