-- Noted before a build begins, and by the transaction that puts another index in the place of one: so whatever is cut
-- off, the next sweep knows what it left, and never drops what somebody made by hand.
CREATE TABLE pgretrieve.loose_indexes (
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    index_name text NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace_id, index_name)
);
COMMENT ON TABLE pgretrieve.loose_indexes IS 'Vector indexes that may exist in PostgreSQL without being in force: being built, left over, or replaced.';
COMMENT ON COLUMN pgretrieve.loose_indexes.namespace_id IS 'The namespace, in whose schema it is.';
COMMENT ON COLUMN pgretrieve.loose_indexes.index_name IS 'Its name in that schema.';
COMMENT ON COLUMN pgretrieve.loose_indexes.noted_at IS 'Since when.';

-- How far the builds of a namespace's indexes are, as PostgreSQL tells it while they run.
CREATE VIEW pgretrieve.index_builds AS
SELECT n.namespace_id, c.relname AS index_name, p.phase, p.tuples_done, p.tuples_total, p.blocks_done, p.blocks_total
FROM pg_catalog.pg_stat_progress_create_index p
JOIN pg_catalog.pg_class c ON c.oid = p.index_relid
JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
JOIN pgretrieve.namespaces n ON n.schema_name = s.nspname
WHERE p.datname = pg_catalog.current_database();
COMMENT ON VIEW pgretrieve.index_builds IS 'Index builds that run now, and how far each is in its phase.';
COMMENT ON COLUMN pgretrieve.index_builds.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.index_builds.index_name IS 'The index that is being built.';
COMMENT ON COLUMN pgretrieve.index_builds.phase IS 'What PostgreSQL is doing: waiting for writers, loading tuples, validating, ….';
COMMENT ON COLUMN pgretrieve.index_builds.tuples_done IS 'Rows that are in the index, of this phase.';
COMMENT ON COLUMN pgretrieve.index_builds.tuples_total IS 'Rows that there are, where the phase knows it; else 0.';
COMMENT ON COLUMN pgretrieve.index_builds.blocks_done IS 'Blocks that were read, of this phase.';
COMMENT ON COLUMN pgretrieve.index_builds.blocks_total IS 'Blocks that are to be read; 0 where the phase reads none.';
