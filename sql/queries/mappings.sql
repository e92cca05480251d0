-- insert_vector_change --
INSERT INTO pgretrieve.vector_changes (namespace_id, operation, changed_by, request, before, after)
VALUES (:namespace_id, :operation, :changed_by, CAST(:request AS jsonb), CAST(:before AS jsonb), CAST(:after AS jsonb));

-- retrievers_naming --
-- Retrievers whose definitions hold this text, as JSON has it: all that may use an index of this name.
SELECT retriever_name, definition::text AS definition FROM pgretrieve.retrievers
WHERE namespace_id = :namespace_id AND strpos(definition::text, btrim(to_jsonb(CAST(:name AS text))::text, '"')) > 0
ORDER BY retriever_name;

-- put_mapping --
-- In the place of the one before.
INSERT INTO pgretrieve.vector_inference_map (namespace_id, name, inference_service, source_field)
VALUES (:namespace_id, :name, :inference_service, :source_field)
ON CONFLICT (namespace_id, name) DO UPDATE SET inference_service = excluded.inference_service,
    source_field = excluded.source_field, created_at = now();

-- delete_mapping --
DELETE FROM pgretrieve.vector_inference_map WHERE namespace_id = :namespace_id AND name = :name;

-- release_work --
-- What waits or runs for a column begins anew, for another service embeds it now; who runs ends nothing.
UPDATE pgretrieve.work SET lease = NULL, leased_until = NULL, attempts = 0, due_at = now(), failed_at = NULL, error = NULL
WHERE namespace_id = :namespace_id AND kind = 'embed' AND target = :target;

-- forget_work --
DELETE FROM pgretrieve.work WHERE namespace_id = :namespace_id AND kind = 'embed' AND target = :target;
