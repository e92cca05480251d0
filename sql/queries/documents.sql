-- take_idempotency_key --
-- Makes the key this request's, or answers no row where another's answer stands. Whoever comes second waits here until
-- the first has committed; an answer that is over is replaced.
INSERT INTO pgretrieve.idempotency_keys AS k (namespace_id, idempotency_key, body_hash, response)
VALUES (:namespace_id, :key, :body_hash, 'null')
ON CONFLICT (namespace_id, idempotency_key) DO UPDATE
SET body_hash = excluded.body_hash, response = excluded.response, created_at = now()
WHERE k.created_at < now() - make_interval(secs => :kept)
RETURNING true;

-- find_idempotent_answer --
SELECT body_hash = :body_hash AS same, response::text AS response FROM pgretrieve.idempotency_keys
WHERE namespace_id = :namespace_id AND idempotency_key = :key;

-- keep_idempotent_answer --
UPDATE pgretrieve.idempotency_keys SET response = CAST(:response AS jsonb)
WHERE namespace_id = :namespace_id AND idempotency_key = :key;

-- forget_idempotent_answers --
-- Some of those that are over; what another request removes is left to it.
DELETE FROM pgretrieve.idempotency_keys WHERE (namespace_id, idempotency_key) IN (
    SELECT namespace_id, idempotency_key FROM pgretrieve.idempotency_keys
    WHERE created_at < now() - make_interval(secs => :kept) ORDER BY created_at LIMIT 100 FOR UPDATE SKIP LOCKED);
