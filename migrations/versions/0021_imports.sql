-- How far imports of files are: written in the transaction that stores a chunk, so both are there or neither.
CREATE TABLE pgretrieve.imports (
    import_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    source text NOT NULL,
    source_hash text NOT NULL,
    last_row bigint NOT NULL DEFAULT 0,
    stored bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
-- One open import of a file: who goes on finds it, who begins twice is refused.
CREATE UNIQUE INDEX imports_open ON pgretrieve.imports (namespace_id, source_hash) WHERE finished_at IS NULL;
COMMENT ON TABLE pgretrieve.imports IS 'Imports of files into namespaces, and how far each is.';
COMMENT ON COLUMN pgretrieve.imports.import_id IS 'Its number.';
COMMENT ON COLUMN pgretrieve.imports.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.imports.source IS 'The file''s name, or what else was read.';
COMMENT ON COLUMN pgretrieve.imports.source_hash IS 'SHA-256 of the file''s size, beginning and end, and of how it is read: the same import.';
COMMENT ON COLUMN pgretrieve.imports.last_row IS 'The last line or row of the source that was dealt with.';
COMMENT ON COLUMN pgretrieve.imports.stored IS 'Documents that were stored.';
COMMENT ON COLUMN pgretrieve.imports.refused IS 'Problems of lines or rows that were not stored.';
COMMENT ON COLUMN pgretrieve.imports.created_at IS 'When it began.';
COMMENT ON COLUMN pgretrieve.imports.updated_at IS 'When its last chunk was stored.';
COMMENT ON COLUMN pgretrieve.imports.finished_at IS 'When it ended; null: it goes on when the same command is run again.';
