-- The default stays 0 for ever: what an older version creates has the older form, and is changed like the others.
ALTER TABLE pgretrieve.namespaces ADD COLUMN schema_revision integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN pgretrieve.namespaces.schema_revision IS 'The last change of namespaces'' schemas (migrations/namespaces) that this one has had.';
-- Serves the walk of a migration over those that are behind.
CREATE INDEX namespaces_schema_revision ON pgretrieve.namespaces (schema_revision, namespace_id);
