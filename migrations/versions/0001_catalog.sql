-- The catalog of everything that the service knows. Analysts may read it; only the service writes it.
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE pgretrieve.namespaces (
    namespace_id text PRIMARY KEY,
    namespace_name text NOT NULL,
    schema_name name NOT NULL UNIQUE,
    mode text NOT NULL CHECK (mode IN ('standalone', 'managed')),
    version bigint NOT NULL DEFAULT 1,
    dynamic_vector_indexes boolean NOT NULL,
    description text,
    settings jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgretrieve.namespaces IS 'A namespace is a Postgres schema that holds documents and their vectors.';
COMMENT ON COLUMN pgretrieve.namespaces.namespace_id IS 'Chosen by its owner at creation; never changes.';
COMMENT ON COLUMN pgretrieve.namespaces.namespace_name IS 'Another name that the API accepts in its place.';
COMMENT ON COLUMN pgretrieve.namespaces.schema_name IS 'The schema that holds its documents; derived from the id, never renamed.';
COMMENT ON COLUMN pgretrieve.namespaces.mode IS 'standalone: owners bring vectors; managed: indexes may be mapped to inference services.';
COMMENT ON COLUMN pgretrieve.namespaces.version IS 'Grows with every change of configs, mappings or mode; plans compiled for an older one are refused.';
COMMENT ON COLUMN pgretrieve.namespaces.dynamic_vector_indexes IS 'Whether an upsert with a new vector name makes a new config (no configs were given at creation).';
COMMENT ON COLUMN pgretrieve.namespaces.description IS 'In the owner''s words.';
COMMENT ON COLUMN pgretrieve.namespaces.settings IS 'Options of the creation request that are kept as they were sent.';
COMMENT ON COLUMN pgretrieve.namespaces.created_at IS 'When it was created.';
COMMENT ON COLUMN pgretrieve.namespaces.updated_at IS 'When the catalog''s row last changed.';

CREATE TABLE pgretrieve.namespace_identifiers (
    identifier text PRIMARY KEY,
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE
);
-- Serves the cascade from namespaces.
CREATE INDEX namespace_identifiers_namespace ON pgretrieve.namespace_identifiers (namespace_id);
COMMENT ON TABLE pgretrieve.namespace_identifiers IS 'Ids and names of namespaces share one space, so that either finds exactly one.';
COMMENT ON COLUMN pgretrieve.namespace_identifiers.identifier IS 'An id or a name.';
COMMENT ON COLUMN pgretrieve.namespace_identifiers.namespace_id IS 'The namespace that it means.';

CREATE TABLE pgretrieve.vector_configs (
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    name text NOT NULL,
    position integer NOT NULL,
    column_name name NOT NULL,
    kind text NOT NULL DEFAULT 'dense' CHECK (kind IN ('dense')),
    dimension integer NOT NULL CHECK (dimension BETWEEN 1 AND 16000),
    metric text NOT NULL CHECK (metric IN ('cosine', 'dot', 'euclidean')),
    index_name name NOT NULL,
    index_method text NOT NULL CHECK (index_method IN ('hnsw_vector', 'hnsw_halfvec', 'hnsw_binary', 'exact')),
    index_state text NOT NULL CHECK (index_state IN (
        'building', -- queries search exactly until it is ready
        'ready',    -- used by queries; also the state of the method 'exact', which needs no index
        'failed'    -- the build ended with an error; queries search exactly
    )),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace_id, name),
    UNIQUE (namespace_id, column_name)
);
COMMENT ON TABLE pgretrieve.vector_configs IS 'A vector config is a pgvector column of a namespace''s documents, and its index.';
COMMENT ON COLUMN pgretrieve.vector_configs.namespace_id IS 'The namespace that it belongs to.';
COMMENT ON COLUMN pgretrieve.vector_configs.name IS 'Its name in the API.';
COMMENT ON COLUMN pgretrieve.vector_configs.position IS 'The order in which configs were declared.';
COMMENT ON COLUMN pgretrieve.vector_configs.column_name IS 'The column that holds the vectors.';
COMMENT ON COLUMN pgretrieve.vector_configs.kind IS 'dense: one vector per document.';
COMMENT ON COLUMN pgretrieve.vector_configs.dimension IS 'Numbers in each vector.';
COMMENT ON COLUMN pgretrieve.vector_configs.metric IS 'What the score measures: cosine similarity, inner product, or 1 / (1 + L2 distance).';
COMMENT ON COLUMN pgretrieve.vector_configs.index_name IS 'The index, in the namespace''s schema; there may be none yet, see index_state.';
COMMENT ON COLUMN pgretrieve.vector_configs.index_method IS 'How the column is indexed, by dimension: HNSW on vector (to 2,000), on a halfvec cast (to 4,000), on bits (cosine), or not.';
COMMENT ON COLUMN pgretrieve.vector_configs.index_state IS 'building, ready or failed; searches are exact unless it is ready.';
COMMENT ON COLUMN pgretrieve.vector_configs.created_at IS 'When it was declared.';

CREATE TABLE pgretrieve.vector_inference_map (
    namespace_id text NOT NULL,
    name text NOT NULL,
    inference_service text NOT NULL,
    source_field text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace_id, name),
    FOREIGN KEY (namespace_id, name) REFERENCES pgretrieve.vector_configs ON DELETE CASCADE
);
COMMENT ON TABLE pgretrieve.vector_inference_map IS 'Which inference service embeds queries and content for a vector config.';
COMMENT ON COLUMN pgretrieve.vector_inference_map.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.vector_inference_map.name IS 'The vector config.';
COMMENT ON COLUMN pgretrieve.vector_inference_map.inference_service IS 'The service, by its registered name.';
COMMENT ON COLUMN pgretrieve.vector_inference_map.source_field IS 'The payload field that the service embeds on upsert; null: nothing embeds itself.';
COMMENT ON COLUMN pgretrieve.vector_inference_map.created_at IS 'When it was mapped.';

CREATE TABLE pgretrieve.promotions (
    promotion_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace_id text NOT NULL,
    promoted_by text NOT NULL,
    request jsonb NOT NULL,
    before jsonb NOT NULL,
    after jsonb NOT NULL,
    promoted_at timestamptz NOT NULL DEFAULT now()
);
-- Serves the look-up of a namespace's history.
CREATE INDEX promotions_namespace ON pgretrieve.promotions (namespace_id);
COMMENT ON TABLE pgretrieve.promotions IS 'An audit row for every promotion; outlives its namespace.';
COMMENT ON COLUMN pgretrieve.promotions.promotion_id IS 'Its number.';
COMMENT ON COLUMN pgretrieve.promotions.namespace_id IS 'The namespace that was promoted.';
COMMENT ON COLUMN pgretrieve.promotions.promoted_by IS 'The API key (its id, never the key) or the command that did it.';
COMMENT ON COLUMN pgretrieve.promotions.request IS 'What was asked for.';
COMMENT ON COLUMN pgretrieve.promotions.before IS 'Mode, version, vector configs and mappings before.';
COMMENT ON COLUMN pgretrieve.promotions.after IS 'The same after.';
COMMENT ON COLUMN pgretrieve.promotions.promoted_at IS 'When.';

CREATE TABLE pgretrieve.retrievers (
    retriever_id text PRIMARY KEY,
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    retriever_name text NOT NULL,
    version integer NOT NULL DEFAULT 1,
    definition jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (namespace_id, retriever_name)
);
COMMENT ON TABLE pgretrieve.retrievers IS 'A retriever is a stored pipeline of stages.';
COMMENT ON COLUMN pgretrieve.retrievers.retriever_id IS 'Its id, ret_….';
COMMENT ON COLUMN pgretrieve.retrievers.namespace_id IS 'The namespace that it searches.';
COMMENT ON COLUMN pgretrieve.retrievers.retriever_name IS 'Its name, unique in the namespace.';
COMMENT ON COLUMN pgretrieve.retrievers.version IS 'Grows with every change.';
COMMENT ON COLUMN pgretrieve.retrievers.definition IS 'Stages, input schema and the rest, as they were sent.';
COMMENT ON COLUMN pgretrieve.retrievers.created_at IS 'When it was created.';
COMMENT ON COLUMN pgretrieve.retrievers.updated_at IS 'When it last changed.';

CREATE TABLE pgretrieve.retriever_versions (
    retriever_id text NOT NULL REFERENCES pgretrieve.retrievers ON DELETE CASCADE,
    version integer NOT NULL,
    definition jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (retriever_id, version)
);
COMMENT ON TABLE pgretrieve.retriever_versions IS 'Every version that a retriever has had.';
COMMENT ON COLUMN pgretrieve.retriever_versions.retriever_id IS 'The retriever.';
COMMENT ON COLUMN pgretrieve.retriever_versions.version IS 'The version.';
COMMENT ON COLUMN pgretrieve.retriever_versions.definition IS 'What it was.';
COMMENT ON COLUMN pgretrieve.retriever_versions.created_at IS 'When it became the present one.';

CREATE TABLE pgretrieve.api_keys (
    key_id text PRIMARY KEY,
    key_hash bytea NOT NULL UNIQUE CHECK (octet_length(key_hash) = 32),
    name text NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
COMMENT ON TABLE pgretrieve.api_keys IS 'API keys, as hashes: a key itself is nowhere.';
COMMENT ON COLUMN pgretrieve.api_keys.key_id IS 'Its id, key_…; "root" for the root key.';
COMMENT ON COLUMN pgretrieve.api_keys.key_hash IS 'SHA-256 of the key.';
COMMENT ON COLUMN pgretrieve.api_keys.name IS 'What it is for, in its owner''s words.';
COMMENT ON COLUMN pgretrieve.api_keys.scopes IS 'What it may do; {*} is everything.';
COMMENT ON COLUMN pgretrieve.api_keys.created_at IS 'When it was made.';
COMMENT ON COLUMN pgretrieve.api_keys.expires_at IS 'When it ends by itself.';
COMMENT ON COLUMN pgretrieve.api_keys.revoked_at IS 'When it was revoked.';
