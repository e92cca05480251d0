DROP TABLE pgretrieve.payload_indexes, pgretrieve.idempotency_keys;
ALTER TABLE pgretrieve.vector_configs DROP CONSTRAINT vector_configs_kind_check;
ALTER TABLE pgretrieve.vector_configs ADD CONSTRAINT vector_configs_kind_check CHECK (kind IN ('dense'));
ALTER TABLE pgretrieve.vector_configs DROP CONSTRAINT vector_configs_dimension_check;
ALTER TABLE pgretrieve.vector_configs ADD CONSTRAINT vector_configs_dimension_check CHECK (dimension BETWEEN 1 AND 16000);
COMMENT ON COLUMN pgretrieve.vector_configs.kind IS 'dense: one vector per document.';
