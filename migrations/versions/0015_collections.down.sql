-- The triggers of namespaces first: their functions go.
DO $$
DECLARE
    place record;
BEGIN
    FOR place IN SELECT schema_name FROM pgretrieve.namespaces ORDER BY schema_name LOOP
        PERFORM pgretrieve.watch_parents(place.schema_name, false);
    END LOOP;
END $$;
DROP TRIGGER objects_insert ON pgretrieve.objects;
DROP TRIGGER objects_update ON pgretrieve.objects;
DROP TRIGGER objects_delete ON pgretrieve.objects;
DROP FUNCTION pgretrieve.watch_parents(name, boolean);
DROP FUNCTION pgretrieve.parents_changed();
DROP FUNCTION pgretrieve.objects_changed();
DROP FUNCTION pgretrieve.forget_sources(text[], text[]);
DROP FUNCTION pgretrieve.queue_extractions(text[], text[]);
DROP FUNCTION pgretrieve.input_hash(text, text);
DROP TABLE pgretrieve.awaited_work;
DROP TABLE pgretrieve.batch_objects;
DROP TABLE pgretrieve.batches;
DROP TABLE pgretrieve.extracted_blobs;
DROP TABLE pgretrieve.extractions;
DROP TABLE pgretrieve.collection_indexes;
ALTER TABLE pgretrieve.vector_configs DROP COLUMN made_for;
DROP TABLE pgretrieve.collection_sources;
DROP TABLE pgretrieve.collections;
