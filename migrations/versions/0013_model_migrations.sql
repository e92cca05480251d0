-- A cut-over swaps the columns of two configs in one statement: uniqueness holds at its end, not after each row.
ALTER TABLE pgretrieve.vector_configs DROP CONSTRAINT vector_configs_namespace_id_column_name_key;
ALTER TABLE pgretrieve.vector_configs
    ADD CONSTRAINT vector_configs_namespace_id_column_name_key UNIQUE (namespace_id, column_name) DEFERRABLE;

CREATE TABLE pgretrieve.model_migrations (
    migration_id text PRIMARY KEY,
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    index_name text NOT NULL,
    from_service text,
    to_service text NOT NULL,
    source_field text NOT NULL,
    gate jsonb NOT NULL,
    rate_per_minute integer CHECK (rate_per_minute > 0),
    state text NOT NULL DEFAULT 'backfilling' CHECK (state IN (
        'backfilling', -- existing documents get their second vector
        'comparing',   -- until the gate is met
        'ready',       -- may be cut over
        'cut_over',    -- the new model answers; the old column is the shadow
        'rolled_back', -- the old model answers again; the new column is the shadow
        'finished',    -- the old column is gone
        'failed',      -- nothing could be embedded; the error says why
        'canceled'     -- the new column is gone
    )),
    task_id text REFERENCES pgretrieve.tasks ON DELETE SET NULL,
    metrics jsonb NOT NULL DEFAULT '{}',
    error jsonb,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now()
);
-- Holds each index to one shadow; serves the look-up of the migrations that a namespace's catalog must know.
CREATE UNIQUE INDEX model_migrations_open ON pgretrieve.model_migrations (namespace_id, index_name)
    WHERE state NOT IN ('finished', 'canceled');
-- Serves lists of a namespace's migrations.
CREATE INDEX model_migrations_namespace ON pgretrieve.model_migrations (namespace_id, migration_id);
COMMENT ON TABLE pgretrieve.model_migrations IS 'Migrations of vector indexes from one model to another, each with a shadow column.';
COMMENT ON COLUMN pgretrieve.model_migrations.migration_id IS 'Its id, mig_…; the shadow is the vector config index@id.';
COMMENT ON COLUMN pgretrieve.model_migrations.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.model_migrations.index_name IS 'The vector config that is migrated.';
COMMENT ON COLUMN pgretrieve.model_migrations.from_service IS 'The service before; null: callers brought the vectors.';
COMMENT ON COLUMN pgretrieve.model_migrations.to_service IS 'The service after.';
COMMENT ON COLUMN pgretrieve.model_migrations.source_field IS 'The payload field that the new service embeds.';
COMMENT ON COLUMN pgretrieve.model_migrations.gate IS 'What must hold before a cut-over: {min_coverage, min_overlap, min_ndcg, min_queries}.';
COMMENT ON COLUMN pgretrieve.model_migrations.rate_per_minute IS 'Documents a minute that the back-fill queues at most; null: no limit.';
COMMENT ON COLUMN pgretrieve.model_migrations.state IS 'Where it is, see the check.';
COMMENT ON COLUMN pgretrieve.model_migrations.task_id IS 'The task of its back-fill.';
COMMENT ON COLUMN pgretrieve.model_migrations.metrics IS 'What was last measured: coverage, overlap and nDCG, and when.';
COMMENT ON COLUMN pgretrieve.model_migrations.error IS 'Why it failed: {code, message}.';
COMMENT ON COLUMN pgretrieve.model_migrations.created_by IS 'The API key (its id, never the key) that started it.';
COMMENT ON COLUMN pgretrieve.model_migrations.created_at IS 'When it was started.';
COMMENT ON COLUMN pgretrieve.model_migrations.changed_at IS 'When its state last changed.';

CREATE TABLE pgretrieve.model_migration_queries (
    migration_id text NOT NULL REFERENCES pgretrieve.model_migrations ON DELETE CASCADE,
    query_hash text NOT NULL,
    query text NOT NULL,
    relevant_ids text[],
    came_at timestamptz NOT NULL DEFAULT now(),
    compared_at timestamptz,
    overlap double precision,
    ndcg_before double precision,
    ndcg_after double precision,
    PRIMARY KEY (migration_id, query_hash)
);
COMMENT ON TABLE pgretrieve.model_migration_queries IS 'The queries that a migration compares both models on: sampled while it compares, or given; deleted when it ends.';
COMMENT ON COLUMN pgretrieve.model_migration_queries.migration_id IS 'The migration.';
COMMENT ON COLUMN pgretrieve.model_migration_queries.query_hash IS 'SHA-256 of the query: each counts once.';
COMMENT ON COLUMN pgretrieve.model_migration_queries.query IS 'The text that was searched for.';
COMMENT ON COLUMN pgretrieve.model_migration_queries.relevant_ids IS 'The documents that answer it, where its giver judged; null: sampled.';
COMMENT ON COLUMN pgretrieve.model_migration_queries.came_at IS 'When it came.';
COMMENT ON COLUMN pgretrieve.model_migration_queries.compared_at IS 'When both models answered it.';
COMMENT ON COLUMN pgretrieve.model_migration_queries.overlap IS 'The share of the first ten documents that both models answer.';
COMMENT ON COLUMN pgretrieve.model_migration_queries.ndcg_before IS 'nDCG@10 of the old model, where the query was judged.';
COMMENT ON COLUMN pgretrieve.model_migration_queries.ndcg_after IS 'nDCG@10 of the new model.';
