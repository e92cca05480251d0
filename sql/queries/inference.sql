-- list_services --
-- Every service that was made over the API.
SELECT name, provider, model, dimension, settings::text AS settings, description, created_by, created_at
FROM pgretrieve.inference_services ORDER BY name;

-- hold_services --
-- Those of these names that are stored, which cannot be deleted before the transaction ends.
SELECT name, dimension FROM pgretrieve.inference_services WHERE name = ANY (CAST(:names AS text[])) FOR KEY SHARE;

-- insert_service --
-- No row where the name is taken.
INSERT INTO pgretrieve.inference_services (name, provider, model, dimension, settings, description, created_by)
VALUES (:name, :provider, :model, :dimension, CAST(:settings AS jsonb), :description, :created_by)
ON CONFLICT (name) DO NOTHING
RETURNING name, provider, model, dimension, settings::text AS settings, description, created_by, created_at;

-- lock_service --
-- Waits for promotions that are about to map to it.
SELECT name FROM pgretrieve.inference_services WHERE name = :name FOR UPDATE;

-- namespaces_of_service --
-- The namespaces that map an index to it.
SELECT DISTINCT namespace_id FROM pgretrieve.vector_inference_map WHERE inference_service = :name ORDER BY namespace_id;

-- delete_service --
-- With what it has embedded: another one of its name has nothing to do with that.
WITH gone AS (DELETE FROM pgretrieve.embedding_cache WHERE service = :name),
canaries AS (DELETE FROM pgretrieve.service_canaries WHERE service = :name),
probes AS (DELETE FROM pgretrieve.service_probes WHERE service = :name),
models AS (DELETE FROM pgretrieve.service_models WHERE service = :name),
requests AS (DELETE FROM pgretrieve.embedding_requests WHERE service = :name)
DELETE FROM pgretrieve.inference_services WHERE name = :name;

-- find_embeddings --
SELECT input_hash, vector FROM pgretrieve.embedding_cache
WHERE service = :service AND model = :model AND task = :task AND input_hash = ANY (CAST(:hashes AS bytea[]));

-- keep_embeddings --
-- In the order of the hashes, so that two who keep the same ones do not lock each other out.
INSERT INTO pgretrieve.embedding_cache (service, model, task, input_hash, vector)
SELECT :service, :model, :task, given.hash, given.vector
FROM unnest(CAST(:hashes AS bytea[]), CAST(:vectors AS vector[])) AS given (hash, vector)
ORDER BY given.hash
ON CONFLICT DO NOTHING;

-- requested_embedding --
-- A text that is to be embedded still.
SELECT input FROM pgretrieve.embedding_requests
WHERE service = :service AND task = :task AND input_hash = :input_hash AND failed_at IS NULL;

-- answer_requested_embedding --
DELETE FROM pgretrieve.embedding_requests WHERE service = :service AND task = :task AND input_hash = :input_hash;

-- fail_requested_embedding --
UPDATE pgretrieve.embedding_requests SET failed_at = now(), error = :error
WHERE service = :service AND task = :task AND input_hash = :input_hash;

-- forget_failed_requests --
-- Nobody has asked again for a day.
DELETE FROM pgretrieve.embedding_requests WHERE failed_at < now() - interval '1 day';

-- note_service_models --
-- What their vectors in the cache are kept under. Rows are locked in their order.
INSERT INTO pgretrieve.service_models AS m (service, model)
SELECT given.service, given.model FROM unnest(CAST(:services AS text[]), CAST(:models AS text[])) AS given (service, model)
ORDER BY given.service
ON CONFLICT (service) DO UPDATE SET model = excluded.model, noted_at = now() WHERE m.model <> excluded.model;

-- trim_embeddings --
-- All but the newest, whose ages the index knows.
DELETE FROM pgretrieve.embedding_cache WHERE created_at <= (
    SELECT created_at FROM pgretrieve.embedding_cache ORDER BY created_at DESC OFFSET :rows LIMIT 1);
