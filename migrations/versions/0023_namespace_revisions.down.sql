DROP INDEX pgretrieve.namespaces_schema_revision;
ALTER TABLE pgretrieve.namespaces DROP COLUMN schema_revision;
