DROP TRIGGER retriever_versions_never_change ON pgretrieve.retriever_versions;
DROP FUNCTION pgretrieve.refuse_change();
ALTER TABLE pgretrieve.retriever_versions DROP COLUMN retriever_name, DROP COLUMN created_by;
