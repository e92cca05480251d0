-- Versions of retrievers: each with the name that it had and who made it; what is kept never changes.
ALTER TABLE pgretrieve.retriever_versions
    ADD COLUMN retriever_name text,
    ADD COLUMN created_by text;
COMMENT ON COLUMN pgretrieve.retriever_versions.retriever_name IS 'Its name then; null in versions older than this column that were no longer the present one.';
COMMENT ON COLUMN pgretrieve.retriever_versions.created_by IS 'The API key (its id, never the key) that made it; null where that is not known or no key did.';

INSERT INTO pgretrieve.retriever_versions (retriever_id, version, definition, created_at)
SELECT retriever_id, version, definition, updated_at FROM pgretrieve.retrievers
ON CONFLICT DO NOTHING;

UPDATE pgretrieve.retriever_versions AS v SET retriever_name = r.retriever_name
FROM pgretrieve.retrievers AS r WHERE r.retriever_id = v.retriever_id AND r.version = v.version;

CREATE FUNCTION pgretrieve.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % never change', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
COMMENT ON FUNCTION pgretrieve.refuse_change() IS 'Refuses an UPDATE of what is kept as it was.';

-- They go with their retriever, by the cascade from it.
CREATE TRIGGER retriever_versions_never_change BEFORE UPDATE ON pgretrieve.retriever_versions
    FOR EACH ROW EXECUTE FUNCTION pgretrieve.refuse_change();
