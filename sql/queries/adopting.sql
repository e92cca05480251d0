-- find_table --
-- A table by its name, as PostgreSQL reads it here, also in a schema that the service may not enter; null where there is none.
SELECT CASE cardinality(p.parts) WHEN 1 THEN CAST(to_regclass(:name) AS oid) WHEN 2 THEN (
    SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
    WHERE s.nspname = p.parts[1] AND c.relname = p.parts[2]) END
FROM (SELECT parse_ident(:name) AS parts) p;

-- adoptable_table --
-- What a table is, whether the service may read it, and the role that has to be granted it if not. A member of
-- pgretrieve_owner reads with the rights of that role, as workers and all other members do.
SELECT s.nspname AS schema, c.relname AS name, format('%I.%I', s.nspname, c.relname) AS quoted,
    CAST(c.relkind AS text) AS kind, CAST(c.relpersistence AS text) AS persistence, c.relrowsecurity AS row_security,
    s.nspname IN ('pgretrieve', 'pgretrieve_queue', 'pg_catalog', 'information_schema') OR EXISTS (
        SELECT FROM pgretrieve.namespaces n WHERE n.schema_name = s.nspname) AS reserved,
    r.role, has_schema_privilege(CAST(r.role AS name), s.oid, 'USAGE') AS may_enter,
    has_table_privilege(CAST(r.role AS name), c.oid, 'SELECT') AS may_read
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT CASE WHEN to_regrole('pgretrieve_owner') IS NOT NULL
        AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
        AND pg_has_role(to_regrole('pgretrieve_owner'), 'USAGE')
    THEN 'pgretrieve_owner' ELSE CAST(current_user AS text) END AS role) r
WHERE c.oid = CAST(:table AS oid);

-- adoptable_columns --
-- Its columns, with the base types of domains; `vector` is the type where pgvector made it, and `dimension` what is declared.
SELECT a.attnum AS number, a.attname AS name, quote_ident(a.attname) AS quoted, a.attnotnull AS required, format_type(a.atttypid, a.atttypmod) AS type,
    b.typname AS base, CASE WHEN EXISTS (
        SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
        WHERE d.refclassid = CAST('pg_extension' AS regclass) AND d.classid = CAST('pg_type' AS regclass)
            AND d.objid = a.atttypid AND e.extname = 'vector') THEN t.typname END AS vector,
    nullif(a.atttypmod, -1) AS dimension, coalesce(l.collisdeterministic, true) AS comparable
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
WHERE a.attrelid = CAST(:table AS oid) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum;

-- adoptable_indexes --
-- Its indexes that are whole: what they hold first, by which operators, and which column they keep unique.
SELECT c.relname AS name, m.amname AS method, pg_get_indexdef(i.indexrelid, 1, true) AS holds, o.opcname AS operators,
    i.indpred IS NOT NULL AS partial, i.indisprimary AS is_primary, i.indnkeyatts AS width,
    i.indisunique AND i.indimmediate AND i.indpred IS NULL AS is_unique,
    ARRAY(SELECT a.attname FROM unnest(i.indkey) WITH ORDINALITY AS k (number, n)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE k.n <= i.indnkeyatts ORDER BY k.n) AS columns
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = c.relam JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0]
WHERE i.indrelid = CAST(:table AS oid) AND i.indisvalid ORDER BY i.indisprimary DESC, c.relname;

-- identifiers_taken --
SELECT EXISTS (SELECT FROM pgretrieve.namespace_identifiers WHERE identifier = ANY(CAST(:identifiers AS text[])));

-- note_adoption --
UPDATE pgretrieve.namespaces SET adopted_from = CAST(CAST(:table AS oid) AS regclass), adopted_as = CAST(:adopted_as AS jsonb)
WHERE namespace_id = :namespace_id;

-- follow_index --
-- Another index of an adopted table in force, or none.
UPDATE pgretrieve.vector_configs SET index_name = :index_name, index_method = :index_method, index_state = 'ready'
WHERE namespace_id = :namespace_id AND name = :name;
