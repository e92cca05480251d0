-- Services that are made over the API, beside those that the installation brings; and what they have embedded already.
CREATE TABLE pgretrieve.inference_services (
    name text PRIMARY KEY,
    provider text NOT NULL CHECK (provider IN ('openai', 'onnx', 'open_clip')),
    model text NOT NULL,
    dimension integer NOT NULL CHECK (dimension BETWEEN 1 AND 16000),
    settings jsonb NOT NULL,
    description text NOT NULL DEFAULT '',
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgretrieve.inference_services IS 'Inference services that were made over the API; those of the installation are in its code.';
COMMENT ON COLUMN pgretrieve.inference_services.name IS 'What mappings call it.';
COMMENT ON COLUMN pgretrieve.inference_services.provider IS 'openai: an endpoint of that protocol; onnx: a folder with a model; open_clip: a checkpoint.';
COMMENT ON COLUMN pgretrieve.inference_services.model IS 'The model, as its provider calls it.';
COMMENT ON COLUMN pgretrieve.inference_services.dimension IS 'Numbers in each vector that it makes.';
COMMENT ON COLUMN pgretrieve.inference_services.settings IS 'What its provider needs: base URL, folder, pooling, prefixes. Secrets are references (names of environment variables), never values.';
COMMENT ON COLUMN pgretrieve.inference_services.description IS 'In its maker''s words.';
COMMENT ON COLUMN pgretrieve.inference_services.created_by IS 'The API key (its id) that made it.';
COMMENT ON COLUMN pgretrieve.inference_services.created_at IS 'When it was made.';

CREATE TABLE pgretrieve.embedding_cache (
    service text NOT NULL,
    model text NOT NULL,
    task text NOT NULL,
    input_hash bytea NOT NULL CHECK (octet_length(input_hash) = 32),
    vector vector NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, model, task, input_hash)
);
-- Serves the removal of the oldest when there are too many.
CREATE INDEX embedding_cache_age ON pgretrieve.embedding_cache (created_at);
COMMENT ON TABLE pgretrieve.embedding_cache IS 'Vectors of inputs that were embedded before; anything in it may be deleted at any time.';
COMMENT ON COLUMN pgretrieve.embedding_cache.service IS 'The service that embedded it.';
COMMENT ON COLUMN pgretrieve.embedding_cache.model IS 'Its model then.';
COMMENT ON COLUMN pgretrieve.embedding_cache.task IS 'query or document: some models embed them differently.';
COMMENT ON COLUMN pgretrieve.embedding_cache.input_hash IS 'SHA-256 of the input.';
COMMENT ON COLUMN pgretrieve.embedding_cache.vector IS 'What it was embedded to.';
COMMENT ON COLUMN pgretrieve.embedding_cache.created_at IS 'When.';
