-- Requests that may be repeated safely.
CREATE TABLE pgretrieve.idempotency_keys (
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    idempotency_key text NOT NULL,
    body_hash bytea NOT NULL CHECK (octet_length(body_hash) = 32),
    response jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace_id, idempotency_key)
);
-- Serves the removal of those that are over.
CREATE INDEX idempotency_keys_age ON pgretrieve.idempotency_keys (created_at);
COMMENT ON TABLE pgretrieve.idempotency_keys IS 'Answers to upserts that brought an idempotency key, for a day: a repeated request gets the same.';
COMMENT ON COLUMN pgretrieve.idempotency_keys.namespace_id IS 'The namespace of the upsert.';
COMMENT ON COLUMN pgretrieve.idempotency_keys.idempotency_key IS 'The caller''s key.';
COMMENT ON COLUMN pgretrieve.idempotency_keys.body_hash IS 'SHA-256 of the request''s body; another body under the same key is refused.';
COMMENT ON COLUMN pgretrieve.idempotency_keys.response IS 'What was answered.';
COMMENT ON COLUMN pgretrieve.idempotency_keys.created_at IS 'When.';

-- Sparse vectors and multi-vectors. A multi-vector is several rows of a side table in the namespace's schema.
ALTER TABLE pgretrieve.vector_configs DROP CONSTRAINT vector_configs_kind_check;
ALTER TABLE pgretrieve.vector_configs ADD CONSTRAINT vector_configs_kind_check CHECK (kind IN ('dense', 'sparse', 'multi'));
ALTER TABLE pgretrieve.vector_configs DROP CONSTRAINT vector_configs_dimension_check;
ALTER TABLE pgretrieve.vector_configs ADD CONSTRAINT vector_configs_dimension_check
    CHECK (dimension BETWEEN 1 AND CASE kind WHEN 'sparse' THEN 1000000000 ELSE 16000 END);
COMMENT ON COLUMN pgretrieve.vector_configs.kind IS 'dense: one vector per document; sparse: indices and values; multi: several vectors per document, in a side table.';

CREATE TABLE pgretrieve.payload_indexes (
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    field_name text NOT NULL,
    type text NOT NULL CHECK (type IN ('keyword', 'integer', 'float', 'bool', 'datetime', 'geo', 'text', 'uuid')),
    field_schema jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace_id, field_name)
);
COMMENT ON TABLE pgretrieve.payload_indexes IS 'Payload fields that were declared to be filtered by.';
COMMENT ON COLUMN pgretrieve.payload_indexes.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.payload_indexes.field_name IS 'The field, a dotted path into the payload.';
COMMENT ON COLUMN pgretrieve.payload_indexes.type IS 'What its values are.';
COMMENT ON COLUMN pgretrieve.payload_indexes.field_schema IS 'Options of the declaration, as they were sent.';
COMMENT ON COLUMN pgretrieve.payload_indexes.created_at IS 'When it was declared.';
