DROP TABLE pgretrieve.model_migration_queries;
DROP TABLE pgretrieve.model_migrations;
ALTER TABLE pgretrieve.vector_configs DROP CONSTRAINT vector_configs_namespace_id_column_name_key;
ALTER TABLE pgretrieve.vector_configs
    ADD CONSTRAINT vector_configs_namespace_id_column_name_key UNIQUE (namespace_id, column_name);
