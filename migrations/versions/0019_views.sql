-- What analysts read: views over the catalogue in plain words. Names and columns are public contract (sql/README.md): columns may
-- be added at the end, none is renamed. A view reads with the rights of its owner, so that its readers need none on the tables.
CREATE VIEW pgretrieve.all_namespaces AS
SELECT n.namespace_id, n.namespace_name, n.schema_name, n.mode, n.description,
    (SELECT count(*) FROM pgretrieve.vector_configs c WHERE c.namespace_id = n.namespace_id AND c.shadow_of IS NULL)
        AS vector_configs,
    (SELECT count(*) FROM pgretrieve.retrievers r WHERE r.namespace_id = n.namespace_id) AS retrievers,
    greatest(t.reltuples, 0)::bigint AS estimated_documents,
    n.created_at, (SELECT max(p.promoted_at) FROM pgretrieve.promotions p WHERE p.namespace_id = n.namespace_id
        AND p.promoted_at >= n.created_at) AS promoted_at,
    n.version, n.updated_at
FROM pgretrieve.namespaces n
LEFT JOIN pg_catalog.pg_namespace s ON s.nspname = n.schema_name
LEFT JOIN pg_catalog.pg_class t ON t.relnamespace = s.oid AND t.relname = 'documents';
COMMENT ON VIEW pgretrieve.all_namespaces IS 'Every namespace: how it is called, where it lies, and what it has.';
COMMENT ON COLUMN pgretrieve.all_namespaces.namespace_id IS 'Its id: what the API calls it, and the other views.';
COMMENT ON COLUMN pgretrieve.all_namespaces.namespace_name IS 'Another name that the API knows it by.';
COMMENT ON COLUMN pgretrieve.all_namespaces.schema_name IS 'The schema that holds its documents.';
COMMENT ON COLUMN pgretrieve.all_namespaces.mode IS 'standalone: vectors are its owner''s; managed: indexes may be mapped to services.';
COMMENT ON COLUMN pgretrieve.all_namespaces.description IS 'What its owner says of it.';
COMMENT ON COLUMN pgretrieve.all_namespaces.vector_configs IS 'How many vectors a document may have, by name.';
COMMENT ON COLUMN pgretrieve.all_namespaces.retrievers IS 'How many retrievers are stored.';
COMMENT ON COLUMN pgretrieve.all_namespaces.estimated_documents IS 'Documents as the statistics have it; count(*) of its table tells exactly.';
COMMENT ON COLUMN pgretrieve.all_namespaces.created_at IS 'When it was created.';
COMMENT ON COLUMN pgretrieve.all_namespaces.promoted_at IS 'When it became managed by a promotion; null: it never was promoted.';
COMMENT ON COLUMN pgretrieve.all_namespaces.version IS 'Goes up with each change of configs, mappings and mode.';
COMMENT ON COLUMN pgretrieve.all_namespaces.updated_at IS 'When that last changed.';

CREATE VIEW pgretrieve.all_vector_configs AS
SELECT c.namespace_id, c.name AS vector_config, n.schema_name,
    CASE c.kind WHEN 'multi' THEN 'documents_' || c.column_name ELSE 'documents' END::name AS table_name,
    CASE c.kind WHEN 'multi' THEN 'vector' ELSE c.column_name END::name AS column_name,
    c.kind, c.dimension, c.metric, m.inference_service, c.shadow_of,
    c.index_method, c.index_state, c.filled_by IS NOT NULL AS is_filling,
    coalesce(i.indisvalid, false) AS index_is_valid, c.index_name,
    pg_catalog.pg_relation_size(x.oid) AS index_bytes,
    CASE WHEN c.kind <> 'sparse' THEN 4 * c.dimension + 8 END AS bytes_of_a_vector, c.created_at
FROM pgretrieve.vector_configs c JOIN pgretrieve.namespaces n USING (namespace_id)
LEFT JOIN pgretrieve.vector_inference_map m ON m.namespace_id = c.namespace_id AND m.name = c.name
LEFT JOIN pg_catalog.pg_namespace s ON s.nspname = n.schema_name
LEFT JOIN pg_catalog.pg_class x ON x.relnamespace = s.oid AND x.relname = c.index_name AND x.relkind = 'i'
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = x.oid;
COMMENT ON VIEW pgretrieve.all_vector_configs IS 'Every vector config: the column that holds its vectors, its index and that one''s state and size, and its service.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.vector_config IS 'Its name in the API.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.schema_name IS 'The schema.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.table_name IS 'The table that holds its vectors.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.column_name IS 'The column; it may change when a migration of models is cut over.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.kind IS 'dense: one vector per document; sparse: indices and values; multi: several vectors per document, in a table of their own.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.dimension IS 'Numbers in each vector.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.metric IS 'cosine, dot or euclidean.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.inference_service IS 'The service that embeds its queries; null: callers do.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.shadow_of IS 'The vector config that this one may replace: a migration of models is under way. Null: it is searched.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.index_method IS 'HNSW on vector, on halfvec or on bits; exact: it has no index.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.index_state IS 'building, ready or failed; searches are exact unless it is ready.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.is_filling IS 'Whether a back-fill is still making vectors of documents that have none.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.index_is_valid IS 'Whether PostgreSQL has that index, whole.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.index_name IS 'The index.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.index_bytes IS 'Its size on disk; null where there is none.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.bytes_of_a_vector IS 'What one vector takes; null of sparse ones, whose sizes differ.';
COMMENT ON COLUMN pgretrieve.all_vector_configs.created_at IS 'When it was declared.';

CREATE VIEW pgretrieve.all_mappings AS
SELECT m.namespace_id, m.name AS vector_config, m.inference_service, m.source_field, m.created_at AS mapped_since
FROM pgretrieve.vector_inference_map m;
COMMENT ON VIEW pgretrieve.all_mappings IS 'Which service embeds the queries of which vector config, and since when.';
COMMENT ON COLUMN pgretrieve.all_mappings.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.all_mappings.vector_config IS 'The vector config.';
COMMENT ON COLUMN pgretrieve.all_mappings.inference_service IS 'The service.';
COMMENT ON COLUMN pgretrieve.all_mappings.source_field IS 'The payload field that is embedded when a document is written; null: none is.';
COMMENT ON COLUMN pgretrieve.all_mappings.mapped_since IS 'Since when this service.';

CREATE VIEW pgretrieve.all_promotions AS
SELECT p.promotion_id, p.namespace_id, p.promoted_at, p.promoted_by, p.before ->> 'mode' AS previous_mode, p.after ->> 'mode' AS mode,
    ARRAY(SELECT c ->> 'name' FROM jsonb_array_elements(p.before -> 'vector_configs') c) AS vector_configs_before,
    ARRAY(SELECT c ->> 'name' FROM jsonb_array_elements(p.after -> 'vector_configs') c) AS vector_configs_after,
    p.after -> 'vector_inference_map' AS mappings
FROM pgretrieve.promotions p;
COMMENT ON VIEW pgretrieve.all_promotions IS 'Every promotion of a standalone namespace to a managed one: when, by whom, what it added. Those of deleted namespaces, too.';
COMMENT ON COLUMN pgretrieve.all_promotions.promotion_id IS 'Its number.';
COMMENT ON COLUMN pgretrieve.all_promotions.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.all_promotions.promoted_at IS 'When.';
COMMENT ON COLUMN pgretrieve.all_promotions.promoted_by IS 'The id of the API key, or the command.';
COMMENT ON COLUMN pgretrieve.all_promotions.previous_mode IS 'The mode before.';
COMMENT ON COLUMN pgretrieve.all_promotions.mode IS 'The mode after.';
COMMENT ON COLUMN pgretrieve.all_promotions.vector_configs_before IS 'Names of the vector configs that there were.';
COMMENT ON COLUMN pgretrieve.all_promotions.vector_configs_after IS 'The same and those that were added.';
COMMENT ON COLUMN pgretrieve.all_promotions.mappings IS 'The service of each mapped vector config then: {vector config: service}.';

CREATE VIEW pgretrieve.all_retrievers AS
SELECT r.namespace_id, r.retriever_name, r.retriever_id, r.version,
    ARRAY(SELECT s #>> '{config,stage_id}' FROM jsonb_array_elements(r.definition -> 'stages') WITH ORDINALITY AS e (s, n) ORDER BY n) AS stages,
    ARRAY(SELECT jsonb_object_keys(CASE jsonb_typeof(r.definition -> 'input_schema')
        WHEN 'object' THEN r.definition -> 'input_schema' ELSE '{}' END)) AS inputs,
    r.created_at, r.updated_at
FROM pgretrieve.retrievers r;
COMMENT ON VIEW pgretrieve.all_retrievers IS 'Every retriever, as it is now: what it is called, its stages, the inputs that it takes.';
COMMENT ON COLUMN pgretrieve.all_retrievers.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.all_retrievers.retriever_name IS 'Its name in the API.';
COMMENT ON COLUMN pgretrieve.all_retrievers.retriever_id IS 'Its id.';
COMMENT ON COLUMN pgretrieve.all_retrievers.version IS 'How often it was changed, and once.';
COMMENT ON COLUMN pgretrieve.all_retrievers.stages IS 'Its stages in their order. (Their parameters may hold what is sent to other hosts, so they are not shown here.)';
COMMENT ON COLUMN pgretrieve.all_retrievers.inputs IS 'The names of its inputs.';
COMMENT ON COLUMN pgretrieve.all_retrievers.created_at IS 'When it was first stored.';
COMMENT ON COLUMN pgretrieve.all_retrievers.updated_at IS 'When it was last stored.';

CREATE VIEW pgretrieve.all_tasks AS
SELECT t.namespace_id, t.task_id, t.kind, t.subject, t.status, t.total, t.done, t.failed,
    CASE WHEN t.total > 0 THEN least(round(100.0 * (t.done + t.failed) / t.total, 1), 100.0) END AS percent,
    t.error ->> 'code' AS error_code, t.error ->> 'message' AS error, t.created_at, t.started_at, t.finished_at
FROM pgretrieve.tasks t;
COMMENT ON VIEW pgretrieve.all_tasks IS 'What takes longer than a request: index builds, back-fills, batches, migrations of models; how far each is, and how it ended.';
COMMENT ON COLUMN pgretrieve.all_tasks.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.all_tasks.task_id IS 'Its id.';
COMMENT ON COLUMN pgretrieve.all_tasks.kind IS 'What it does: build_index, backfill, ….';
COMMENT ON COLUMN pgretrieve.all_tasks.subject IS 'What it does it to: a vector config, a collection, ….';
COMMENT ON COLUMN pgretrieve.all_tasks.status IS 'PENDING, IN_PROGRESS; COMPLETED, COMPLETED_WITH_ERRORS, FAILED or CANCELED.';
COMMENT ON COLUMN pgretrieve.all_tasks.total IS 'Items to do, where that is known.';
COMMENT ON COLUMN pgretrieve.all_tasks.done IS 'Items done.';
COMMENT ON COLUMN pgretrieve.all_tasks.failed IS 'Items that could not be done.';
COMMENT ON COLUMN pgretrieve.all_tasks.percent IS 'How far it is, where that is known.';
COMMENT ON COLUMN pgretrieve.all_tasks.error_code IS 'Why it failed, as a code of the API.';
COMMENT ON COLUMN pgretrieve.all_tasks.error IS 'Why it failed.';
COMMENT ON COLUMN pgretrieve.all_tasks.created_at IS 'When it was asked for.';
COMMENT ON COLUMN pgretrieve.all_tasks.started_at IS 'When it first ran.';
COMMENT ON COLUMN pgretrieve.all_tasks.finished_at IS 'When it ended.';

CREATE VIEW pgretrieve.all_open_work AS
SELECT w.namespace_id, w.kind, coalesce(c.name, k.collection_name, w.target) AS made_for, count(*) AS waiting,
    count(*) FILTER (WHERE w.leased_until > now()) AS being_made, count(*) FILTER (WHERE w.attempts > 1) AS tried_again,
    min(w.created_at) AS oldest
FROM pgretrieve.work w
LEFT JOIN pgretrieve.vector_configs c ON w.kind = 'embed' AND c.namespace_id = w.namespace_id AND c.column_name = w.target
LEFT JOIN pgretrieve.collections k ON w.kind = 'extract' AND k.collection_id = w.target
WHERE w.failed_at IS NULL GROUP BY 1, 2, 3;
COMMENT ON VIEW pgretrieve.all_open_work IS 'What workers have yet to make, by namespace and what it is made for: vectors of documents, documents of objects.';
COMMENT ON COLUMN pgretrieve.all_open_work.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.all_open_work.kind IS 'embed: a vector of a document; extract: documents of an object.';
COMMENT ON COLUMN pgretrieve.all_open_work.made_for IS 'The vector config or the collection.';
COMMENT ON COLUMN pgretrieve.all_open_work.waiting IS 'How many are to be made, those included that are being made.';
COMMENT ON COLUMN pgretrieve.all_open_work.being_made IS 'How many a worker has in hand.';
COMMENT ON COLUMN pgretrieve.all_open_work.tried_again IS 'How many were begun more than once.';
COMMENT ON COLUMN pgretrieve.all_open_work.oldest IS 'Since when the oldest waits.';

CREATE VIEW pgretrieve.all_dead_letters AS
SELECT w.namespace_id, w.kind, coalesce(c.name, k.collection_name, w.target) AS made_for, w.subject AS made_from, w.attempts,
    w.error ->> 'code' AS error_code, w.error ->> 'message' AS error, w.created_at, w.failed_at
FROM pgretrieve.work w
LEFT JOIN pgretrieve.vector_configs c ON w.kind = 'embed' AND c.namespace_id = w.namespace_id AND c.column_name = w.target
LEFT JOIN pgretrieve.collections k ON w.kind = 'extract' AND k.collection_id = w.target
WHERE w.failed_at IS NOT NULL;
COMMENT ON VIEW pgretrieve.all_dead_letters IS 'What could not be made, and is tried no more until somebody asks for it; one row each.';
COMMENT ON COLUMN pgretrieve.all_dead_letters.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.all_dead_letters.kind IS 'embed: a vector of a document; extract: documents of an object.';
COMMENT ON COLUMN pgretrieve.all_dead_letters.made_for IS 'The vector config or the collection.';
COMMENT ON COLUMN pgretrieve.all_dead_letters.made_from IS 'The id of the document or the object.';
COMMENT ON COLUMN pgretrieve.all_dead_letters.attempts IS 'How often it was tried.';
COMMENT ON COLUMN pgretrieve.all_dead_letters.error_code IS 'Why it failed, as a code of the API.';
COMMENT ON COLUMN pgretrieve.all_dead_letters.error IS 'Why it failed.';
COMMENT ON COLUMN pgretrieve.all_dead_letters.created_at IS 'When it came.';
COMMENT ON COLUMN pgretrieve.all_dead_letters.failed_at IS 'When it was given up.';

CREATE VIEW pgretrieve.all_sizes AS
SELECT n.namespace_id, n.schema_name, x.relname AS relation,
    CASE WHEN x.relkind = 'i' THEN 'index' ELSE 'table' END AS kind, coalesce(t.relname, x.relname) AS table_name,
    c.name AS vector_config,
    CASE WHEN x.relkind = 'i' THEN pg_catalog.pg_relation_size(x.oid) ELSE pg_catalog.pg_table_size(x.oid) END AS bytes,
    CASE WHEN x.relkind = 'r' THEN greatest(x.reltuples, 0)::bigint END AS estimated_rows
FROM pgretrieve.namespaces n
JOIN pg_catalog.pg_namespace s ON s.nspname = n.schema_name
JOIN pg_catalog.pg_class x ON x.relnamespace = s.oid AND x.relkind IN ('r', 'i')
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = x.oid
LEFT JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
LEFT JOIN pgretrieve.vector_configs c ON c.namespace_id = n.namespace_id AND c.index_name = x.relname;
COMMENT ON VIEW pgretrieve.all_sizes IS 'What each namespace takes on disk: a row for each of its tables and indexes, so that sum(bytes) is the whole.';
COMMENT ON COLUMN pgretrieve.all_sizes.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.all_sizes.schema_name IS 'Its schema.';
COMMENT ON COLUMN pgretrieve.all_sizes.relation IS 'The table or index.';
COMMENT ON COLUMN pgretrieve.all_sizes.kind IS 'table (with what PostgreSQL stores beside it) or index.';
COMMENT ON COLUMN pgretrieve.all_sizes.table_name IS 'The table that it is or belongs to.';
COMMENT ON COLUMN pgretrieve.all_sizes.vector_config IS 'Of a vector index: the vector config.';
COMMENT ON COLUMN pgretrieve.all_sizes.bytes IS 'Its size on disk.';
COMMENT ON COLUMN pgretrieve.all_sizes.estimated_rows IS 'Of a table: its rows, as the statistics have it.';

-- Where the database's roles were made (`pgretrieve roles`), what was created in a namespace's schema is theirs from the same
-- transaction on: owned by pgretrieve_owner, whose members all may change it, and readable to pgretrieve_analyst.
CREATE FUNCTION pgretrieve.hand_over(schema name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner oid := to_regrole('pgretrieve_owner');
    analyst oid := to_regrole('pgretrieve_analyst');
    command text;
BEGIN
    IF owner IS NOT NULL AND pg_has_role(owner, 'SET') THEN
        FOR command IN
            SELECT format('ALTER SCHEMA %I OWNER TO pgretrieve_owner', nspname) FROM pg_namespace
            WHERE nspname = schema AND nspowner <> owner AND pg_has_role(nspowner, 'USAGE')
            UNION ALL
            SELECT format('ALTER %s %s OWNER TO pgretrieve_owner', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
                format('%I.%I', schema, relname))
            FROM pg_class c
            WHERE relnamespace = to_regnamespace(quote_ident(schema)) AND relkind IN ('r', 'p', 'S') AND relowner <> owner
                AND pg_has_role(relowner, 'USAGE')
                AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
            UNION ALL
            SELECT format('ALTER ROUTINE %s OWNER TO pgretrieve_owner', oid::regprocedure) FROM pg_proc
            WHERE pronamespace = to_regnamespace(quote_ident(schema)) AND proowner <> owner AND pg_has_role(proowner, 'USAGE')
        LOOP
            EXECUTE command;
        END LOOP;
    END IF;
    IF analyst IS NOT NULL THEN
        IF NOT has_schema_privilege(analyst, to_regnamespace(quote_ident(schema)), 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO pgretrieve_analyst', schema);
        END IF;
        FOR command IN
            SELECT format('GRANT SELECT ON %I.%I TO pgretrieve_analyst', schema, relname) FROM pg_class
            WHERE relnamespace = to_regnamespace(quote_ident(schema)) AND relkind IN ('r', 'p', 'v')
                AND NOT has_table_privilege(analyst, oid, 'SELECT')
        LOOP
            EXECUTE command;
        END LOOP;
    END IF;
END $$;
COMMENT ON FUNCTION pgretrieve.hand_over IS 'Gives what is new in a namespace''s schema to the roles of the database, where there are any: pgretrieve_owner owns it, pgretrieve_analyst reads it.';
