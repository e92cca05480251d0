-- touch_blobs --
-- Which of these contents are here already; from now on they are not swept for a while. They are noted as used once a minute
-- at most, and not where somebody else is noting it: so that writers of the same content do not wait for each other.
WITH found AS MATERIALIZED (
    SELECT sha256, used_at FROM pgretrieve.blobs WHERE sha256 = ANY(CAST(:sha256 AS text[])) ORDER BY sha256 FOR KEY SHARE),
stale AS MATERIALIZED (
    SELECT b.sha256 FROM pgretrieve.blobs b JOIN found USING (sha256)
    WHERE found.used_at < now() - interval '1 minute' FOR NO KEY UPDATE OF b SKIP LOCKED),
noted AS (UPDATE pgretrieve.blobs b SET used_at = now() FROM stale WHERE b.sha256 = stale.sha256)
SELECT sha256 FROM found;

-- put_blobs --
-- New contents with the keys under which they were written, in the order of their hashes, so that two writers of the same
-- ones wait for each other rather than deadlock. What is there already keeps its own key.
INSERT INTO pgretrieve.blobs AS b (sha256, size_bytes, store_key)
SELECT sha256, size_bytes, store_key
FROM jsonb_to_recordset(CAST(:blobs AS jsonb)) AS n (sha256 text, size_bytes bigint, store_key text) ORDER BY sha256
ON CONFLICT (sha256) DO UPDATE SET used_at = now()
RETURNING sha256, store_key;

-- find_blob --
SELECT sha256, size_bytes, store_key FROM pgretrieve.blobs WHERE sha256 = :sha256;

-- sweep_blobs --
-- Forgets contents that nothing refers to and nobody has used for :seconds. Whoever refers to one sets its used_at in the same
-- transaction, so a row that was locked in between is looked at again and left; the foreign keys are the last word.
WITH unused AS (
    SELECT sha256 FROM pgretrieve.blobs b
    WHERE used_at < now() - make_interval(secs => :seconds)
        AND NOT EXISTS (SELECT 1 FROM pgretrieve.object_blobs o WHERE o.sha256 = b.sha256)
        AND NOT EXISTS (SELECT 1 FROM pgretrieve.uploads u WHERE u.sha256 = b.sha256)
        AND NOT EXISTS (SELECT 1 FROM pgretrieve.extracted_blobs e WHERE e.sha256 = b.sha256)
    ORDER BY sha256 LIMIT :limit FOR UPDATE SKIP LOCKED)
DELETE FROM pgretrieve.blobs b USING unused
WHERE b.sha256 = unused.sha256 RETURNING b.store_key;

-- sweep_uploads --
-- Forgets uploads whose address ended :seconds ago; objects that were made of them have their bytes themselves.
DELETE FROM pgretrieve.uploads WHERE expires_at < now() - make_interval(secs => :seconds);

-- known_keys --
-- Which of these keys of the store are some content's.
SELECT store_key FROM pgretrieve.blobs WHERE store_key = ANY(CAST(:keys AS text[]));
