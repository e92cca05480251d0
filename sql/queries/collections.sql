-- find_collection --
-- By id or name, within its namespace; with the indexes that it fills, and what is yet to be extracted or was given up.
SELECT c.collection_id, c.namespace_id, c.collection_name, c.description, c.source::text AS source,
    c.feature_extractor::text AS feature_extractor, c.paths::text AS paths, c.fields::text AS fields, c.fingerprint,
    c.enabled, c.auto, c.metadata::text AS metadata,
    coalesce((SELECT jsonb_agg(jsonb_build_object('output', i.output, 'index_name', i.index_name,
            'own', v.made_for IS NOT NULL) ORDER BY i.output)
        FROM pgretrieve.collection_indexes i
        LEFT JOIN pgretrieve.vector_configs v ON v.namespace_id = c.namespace_id AND v.name = i.index_name
        WHERE i.collection_id = c.collection_id), '[]')::text AS indexes,
    c.created_at, c.updated_at, w.*
FROM pgretrieve.collections c
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE failed_at IS NULL) AS open_extractions,
        count(*) FILTER (WHERE failed_at IS NOT NULL) AS failed_extractions
    FROM pgretrieve.work
    WHERE namespace_id = c.namespace_id AND kind <> 'embed' AND target = c.collection_id) w
WHERE c.namespace_id = :namespace_id AND (c.collection_id = :identifier OR c.collection_name = :identifier)
ORDER BY c.collection_id = :identifier DESC LIMIT 1;

-- list_collections --
-- Those of a namespace, as find_collection has them.
SELECT c.collection_id, c.namespace_id, c.collection_name, c.description, c.source::text AS source,
    c.feature_extractor::text AS feature_extractor, c.paths::text AS paths, c.fields::text AS fields, c.fingerprint,
    c.enabled, c.auto, c.metadata::text AS metadata,
    coalesce((SELECT jsonb_agg(jsonb_build_object('output', i.output, 'index_name', i.index_name,
            'own', v.made_for IS NOT NULL) ORDER BY i.output)
        FROM pgretrieve.collection_indexes i
        LEFT JOIN pgretrieve.vector_configs v ON v.namespace_id = c.namespace_id AND v.name = i.index_name
        WHERE i.collection_id = c.collection_id), '[]')::text AS indexes,
    c.created_at, c.updated_at, w.*
FROM pgretrieve.collections c
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE failed_at IS NULL) AS open_extractions,
        count(*) FILTER (WHERE failed_at IS NOT NULL) AS failed_extractions
    FROM pgretrieve.work
    WHERE namespace_id = c.namespace_id AND kind <> 'embed' AND target = c.collection_id) w
WHERE c.namespace_id = :namespace_id;

-- insert_collection --
INSERT INTO pgretrieve.collections (collection_id, namespace_id, collection_name, description, source, feature_extractor,
    paths, fields, fingerprint, enabled, auto, metadata)
VALUES (:collection_id, :namespace_id, :collection_name, :description, CAST(:source AS jsonb),
    CAST(:feature_extractor AS jsonb), CAST(:paths AS jsonb), CAST(:fields AS jsonb), :fingerprint, :enabled, :auto,
    CAST(:metadata AS jsonb));

-- insert_collection_sources --
INSERT INTO pgretrieve.collection_sources (collection_id, bucket_id, parent_id)
SELECT :collection_id, s.bucket_id, s.parent_id
FROM jsonb_to_recordset(CAST(:sources AS jsonb)) AS s (bucket_id text, parent_id text);

-- insert_collection_indexes --
INSERT INTO pgretrieve.collection_indexes (collection_id, output, index_name)
SELECT :collection_id, i.output, i.index_name
FROM jsonb_to_recordset(CAST(:indexes AS jsonb)) AS i (output text, index_name text);

-- change_collection --
-- Sets what :changes names.
UPDATE pgretrieve.collections SET
    collection_name = CASE WHEN c ? 'collection_name' THEN c ->> 'collection_name' ELSE collection_name END,
    description = CASE WHEN c ? 'description' THEN c ->> 'description' ELSE description END,
    metadata = CASE WHEN c ? 'metadata' THEN c -> 'metadata' ELSE metadata END,
    enabled = CASE WHEN c ? 'enabled' THEN (c -> 'enabled')::boolean ELSE enabled END,
    auto = CASE WHEN c ? 'auto' THEN (c -> 'auto')::boolean ELSE auto END,
    updated_at = now()
FROM CAST(:changes AS jsonb) AS c WHERE collection_id = :collection_id;

-- delete_collection --
-- With what is yet to be made for it.
WITH work AS (
    DELETE FROM pgretrieve.work WHERE namespace_id = :namespace_id AND kind <> 'embed' AND target = :collection_id)
DELETE FROM pgretrieve.collections WHERE collection_id = :collection_id;

-- collection_index_uses --
-- The indexes that were made for collections: for which extractor, and whether one fills them still.
SELECT v.name, v.made_for, EXISTS (
    SELECT FROM pgretrieve.collection_indexes i JOIN pgretrieve.collections c USING (collection_id)
    WHERE c.namespace_id = v.namespace_id AND i.index_name = v.name) AS filled
FROM pgretrieve.vector_configs v WHERE v.namespace_id = :namespace_id AND v.made_for IS NOT NULL;

-- mark_made_for --
UPDATE pgretrieve.vector_configs SET made_for = :made_for
WHERE namespace_id = :namespace_id AND name = ANY(CAST(:names AS text[]));

-- collections_over --
-- The collections that are made from a bucket, or from any of these collections.
SELECT DISTINCT c.collection_id, c.collection_name FROM pgretrieve.collection_sources s
JOIN pgretrieve.collections c USING (collection_id)
WHERE s.bucket_id = CAST(:bucket_id AS text) OR s.parent_id = ANY(CAST(:parents AS text[])) ORDER BY c.collection_name;

-- tiers_of --
-- The collections over a bucket, or some collections, and over those, each at the farthest that it is from there.
WITH RECURSIVE found AS (
    SELECT s.collection_id, 0 AS tier FROM pgretrieve.collection_sources s
    WHERE s.bucket_id = ANY(CAST(:buckets AS text[])) OR s.collection_id = ANY(CAST(:collections AS text[]))
    UNION
    SELECT s.collection_id, f.tier + 1 FROM found f JOIN pgretrieve.collection_sources s ON s.parent_id = f.collection_id)
SELECT c.collection_id, max(f.tier) AS tier FROM found f JOIN pgretrieve.collections c USING (collection_id)
WHERE c.namespace_id = :namespace_id GROUP BY c.collection_id ORDER BY max(f.tier), c.collection_id;

-- watch_parents --
-- Watches a namespace's documents where any collection is made from another, else no longer.
SELECT pgretrieve.watch_parents(:schema, EXISTS (
    SELECT FROM pgretrieve.collection_sources s JOIN pgretrieve.collections c USING (collection_id)
    WHERE c.namespace_id = :namespace_id AND s.parent_id IS NOT NULL));
