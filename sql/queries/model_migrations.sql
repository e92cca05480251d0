-- insert_model_migration --
INSERT INTO pgretrieve.model_migrations
    (migration_id, namespace_id, index_name, from_service, to_service, source_field, gate, rate_per_minute, task_id,
    created_by)
VALUES (:migration_id, :namespace_id, :index_name, :from_service, :to_service, :source_field, CAST(:gate AS jsonb),
    :rate_per_minute, :task_id, :created_by);

-- find_model_migrations --
-- Those of a namespace in the order of their ids, or one of them, with how far the back-fill is.
SELECT m.migration_id, m.namespace_id, m.index_name, m.from_service, m.to_service, m.source_field, m.gate, m.rate_per_minute,
    m.state, m.task_id, m.metrics, m.error, m.created_by, m.created_at, m.changed_at, t.total, t.done, t.failed
FROM pgretrieve.model_migrations m LEFT JOIN pgretrieve.tasks t USING (task_id)
WHERE m.namespace_id = :namespace_id AND (CAST(:migration_id AS text) IS NULL OR m.migration_id = :migration_id)
    AND (CAST(:after AS text) IS NULL OR m.migration_id > :after)
ORDER BY m.migration_id LIMIT :limit;

-- count_model_migrations --
SELECT count(*) FROM pgretrieve.model_migrations WHERE namespace_id = :namespace_id;

-- open_model_migration --
-- The migration that has a shadow of this index.
SELECT migration_id, state FROM pgretrieve.model_migrations
WHERE namespace_id = :namespace_id AND index_name = :index_name AND state NOT IN ('finished', 'canceled');

-- namespace_of_model_migration --
SELECT namespace_id FROM pgretrieve.model_migrations WHERE migration_id = :migration_id;

-- set_model_migration_state --
-- From one of these states only; with a new version of the catalog, which says what is sampled.
WITH moved AS (
    UPDATE pgretrieve.model_migrations SET state = :state, changed_at = now(), error = CAST(:error AS jsonb)
    WHERE migration_id = :migration_id AND state = ANY(CAST(:before AS text[])) RETURNING namespace_id),
told AS (
    UPDATE pgretrieve.namespaces n SET version = version + 1, updated_at = now()
    FROM moved WHERE n.namespace_id = moved.namespace_id)
SELECT count(*) FROM moved;

-- set_model_migration_metrics --
UPDATE pgretrieve.model_migrations SET metrics = CAST(:metrics AS jsonb) WHERE migration_id = :migration_id;

-- waiting_model_migrations --
-- Migrations that go on by themselves and have no job.
SELECT m.migration_id FROM pgretrieve.model_migrations m
WHERE m.state IN ('backfilling', 'comparing') AND NOT EXISTS (
    SELECT FROM pgretrieve_queue.procrastinate_jobs j
    WHERE j.task_name = 'migrate_model' AND j.status IN ('todo', 'doing') AND j.args->>'migration_id' = m.migration_id);

-- set_shadow --
UPDATE pgretrieve.vector_configs SET shadow_of = :index_name WHERE namespace_id = :namespace_id AND name = :shadow;

-- delete_vector_config --
-- Its mapping goes with it, and the work for its column.
WITH gone AS (
    DELETE FROM pgretrieve.vector_configs WHERE namespace_id = :namespace_id AND name = :name
    RETURNING namespace_id, column_name)
DELETE FROM pgretrieve.work w USING gone
WHERE w.namespace_id = gone.namespace_id AND w.kind = 'embed' AND w.target = gone.column_name;

-- swap_columns --
-- Everything physical changes places between an index and its shadow: which column it is, and how that is indexed.
UPDATE pgretrieve.vector_configs c SET column_name = o.column_name, dimension = o.dimension, metric = o.metric,
    index_name = o.index_name, index_method = o.index_method, index_state = o.index_state, m = o.m,
    ef_construction = o.ef_construction, filled_by = o.filled_by
FROM pgretrieve.vector_configs o
WHERE c.namespace_id = :namespace_id AND o.namespace_id = :namespace_id
    AND ((c.name = :index_name AND o.name = :shadow) OR (c.name = :shadow AND o.name = :index_name));

-- swap_mappings --
-- The services go with their columns, and what they embed.
UPDATE pgretrieve.vector_inference_map m SET inference_service = o.inference_service, source_field = o.source_field,
    created_at = o.created_at
FROM pgretrieve.vector_inference_map o
WHERE m.namespace_id = :namespace_id AND o.namespace_id = :namespace_id
    AND ((m.name = :index_name AND o.name = :shadow) OR (m.name = :shadow AND o.name = :index_name));

-- move_mapping --
-- The same where only one of them has a service.
UPDATE pgretrieve.vector_inference_map m SET name = CASE m.name WHEN :index_name THEN :shadow ELSE :index_name END
WHERE m.namespace_id = :namespace_id AND m.name IN (:index_name, :shadow) AND (
    SELECT count(*) FROM pgretrieve.vector_inference_map o
    WHERE o.namespace_id = :namespace_id AND o.name IN (:index_name, :shadow)) = 1;

-- sample_query --
-- A query that was searched for while a migration compares; each once, and only so many.
INSERT INTO pgretrieve.model_migration_queries (migration_id, query_hash, query)
SELECT m.migration_id, :query_hash, :query FROM pgretrieve.model_migrations m
WHERE m.namespace_id = :namespace_id AND m.index_name = :index_name AND m.state = 'comparing' AND (
    SELECT count(*) FROM pgretrieve.model_migration_queries q WHERE q.migration_id = m.migration_id) < :most
ON CONFLICT DO NOTHING;

-- judge_queries --
INSERT INTO pgretrieve.model_migration_queries (migration_id, query_hash, query, relevant_ids)
SELECT :migration_id, j.query_hash, j.query, ARRAY(SELECT jsonb_array_elements_text(j.relevant_ids))
FROM jsonb_to_recordset(CAST(:judgements AS jsonb)) AS j (query_hash text, query text, relevant_ids jsonb);

-- queries_to_compare --
SELECT query_hash, query, relevant_ids FROM pgretrieve.model_migration_queries
WHERE migration_id = :migration_id AND compared_at IS NULL ORDER BY came_at, query_hash LIMIT :limit;

-- note_comparison --
UPDATE pgretrieve.model_migration_queries q SET compared_at = now(), overlap = c.overlap, ndcg_before = c.ndcg_before,
    ndcg_after = c.ndcg_after
FROM jsonb_to_recordset(CAST(:compared AS jsonb)) AS c (
    query_hash text, overlap float8, ndcg_before float8, ndcg_after float8)
WHERE q.migration_id = :migration_id AND q.query_hash = c.query_hash;

-- summarize_comparisons --
SELECT count(*) AS queries, avg(overlap) AS overlap, count(ndcg_after) AS judged, avg(ndcg_before) AS ndcg_before,
    avg(ndcg_after) AS ndcg_after
FROM pgretrieve.model_migration_queries WHERE migration_id = :migration_id AND compared_at IS NOT NULL;

-- forget_queries --
DELETE FROM pgretrieve.model_migration_queries WHERE migration_id = :migration_id;
