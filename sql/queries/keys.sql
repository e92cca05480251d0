-- find_key --
-- A key that is in force, by its hash.
SELECT key_id, scopes FROM pgretrieve.api_keys
WHERE key_hash = :key_hash AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- put_key --
INSERT INTO pgretrieve.api_keys (key_id, key_hash, name, scopes)
VALUES (:key_id, :key_hash, :name, CAST(:scopes AS text[]))
ON CONFLICT (key_id) DO UPDATE SET key_hash = excluded.key_hash, scopes = excluded.scopes, revoked_at = NULL;
