DO $$
DECLARE
    place record;
BEGIN
    FOR place IN SELECT schema_name FROM pgretrieve.namespaces ORDER BY schema_name LOOP
        PERFORM pgretrieve.watch_sources(place.schema_name, false);
        EXECUTE format('ALTER TABLE %I.documents DROP COLUMN provenance', place.schema_name);
    END LOOP;
END $$;
DROP VIEW pgretrieve.foreign_vectors;
DROP VIEW pgretrieve.vector_provenance;
DROP FUNCTION pgretrieve.vectors_of;
DROP FUNCTION pgretrieve.watch_sources;
DROP FUNCTION pgretrieve.sources_changed;
DROP FUNCTION pgretrieve.defer_work;
DROP FUNCTION pgretrieve.source_hash;
DROP FUNCTION pgretrieve.source_text;
DROP TABLE pgretrieve.vector_changes;
ALTER TABLE pgretrieve.vector_configs DROP COLUMN filled_by;
ALTER TABLE pgretrieve.vector_configs DROP COLUMN ef_construction;
ALTER TABLE pgretrieve.vector_configs DROP COLUMN m;
ALTER TABLE pgretrieve.vector_configs DROP COLUMN shadow_of;
DROP TABLE pgretrieve.work;
DROP TABLE pgretrieve.tasks;
