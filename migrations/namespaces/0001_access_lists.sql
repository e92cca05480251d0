-- Documents may have an access list. A change of the catalog only, whatever the number of rows.
ALTER TABLE documents ADD COLUMN acl jsonb, ADD COLUMN readers text[];
COMMENT ON COLUMN documents.acl IS 'Its access list: {read, write, public}. Null: it has none.';
COMMENT ON COLUMN documents.readers IS 'Whom the access list lets read (pgretrieve.acl_readers); * is everybody.';
SELECT pgretrieve.hand_over(current_schema());
-- What was compiled without the columns is compiled anew.
UPDATE pgretrieve.namespaces SET version = version + 1 WHERE schema_name = current_schema();
