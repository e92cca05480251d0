-- find_key --
-- A key by its hash or the one before it was rotated, also one that has ended; how long it holds is told by the
-- database's clock.
SELECT key_id, name, scopes, namespaces, principal_id, expires_at, revoked_at, rate_limit_override,
    coalesce(expires_at <= now(), false) AS is_over,
    key_hash <> :key_hash AS is_previous,
    CAST(extract(epoch FROM least(expires_at, CASE WHEN key_hash <> :key_hash THEN previous_until END) - now())
        AS double precision) AS seconds_left
FROM pgretrieve.api_keys WHERE key_hash = :key_hash OR previous_hash = :key_hash;

-- list_keys --
-- One key, or a page of them.
SELECT key_id, name, scopes, namespaces,
    CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'active' END AS status,
    created_by, created_at, expires_at, revoked_at, last_used_at,
    CASE WHEN previous_until > now() THEN previous_until END AS previous_until,
    rate_limit_override, principal_id
FROM pgretrieve.api_keys
WHERE (CAST(:key_id AS text) IS NULL OR key_id = :key_id) AND (CAST(:after AS text) IS NULL OR key_id > :after)
ORDER BY key_id LIMIT :limit;

-- count_keys --
SELECT count(*) FROM pgretrieve.api_keys;

-- insert_key --
INSERT INTO pgretrieve.api_keys (key_id, key_hash, name, scopes, namespaces, expires_at, created_by, rate_limit_override,
    principal_id)
VALUES (:key_id, :key_hash, :name, CAST(:scopes AS text[]), CAST(:namespaces AS text[]),
    CAST(:expires_at AS timestamptz), :created_by, CAST(:rate_limit_override AS integer), :principal_id);

-- put_key --
-- The root key, in the place of the one before.
INSERT INTO pgretrieve.api_keys (key_id, key_hash, name, scopes, created_by)
VALUES (:key_id, :key_hash, :name, CAST(:scopes AS text[]), 'pgretrieve serve')
ON CONFLICT (key_id) DO UPDATE SET key_hash = excluded.key_hash, scopes = excluded.scopes,
    namespaces = NULL, expires_at = NULL, revoked_at = NULL, principal_id = NULL
WHERE (api_keys.key_hash, api_keys.scopes, api_keys.namespaces, api_keys.expires_at, api_keys.revoked_at,
    api_keys.principal_id) IS DISTINCT FROM (excluded.key_hash, excluded.scopes, NULL, NULL, NULL, NULL);

-- change_key --
-- What is named in `changed`; the rest stays.
UPDATE pgretrieve.api_keys SET
    name = CASE WHEN 'name' = ANY(CAST(:changed AS text[])) THEN CAST(:name AS text) ELSE name END,
    rate_limit_override = CASE WHEN 'rate_limit_override' = ANY(CAST(:changed AS text[]))
        THEN CAST(:rate_limit_override AS integer) ELSE rate_limit_override END
WHERE key_id = :key_id;

-- revoke_key --
UPDATE pgretrieve.api_keys SET revoked_at = now() WHERE key_id = :key_id AND revoked_at IS NULL;

-- rotate_key --
-- No row where it has ended. A second rotation ends the secret before the first.
UPDATE pgretrieve.api_keys SET previous_hash = key_hash, previous_until = now() + CAST(:grace AS interval), key_hash = :key_hash
WHERE key_id = :key_id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) RETURNING key_id;

-- note_key_uses --
-- Rows that are locked are another process's, which writes nearly the same; waiting for them could deadlock.
WITH used AS (
    SELECT k.key_id, u.used_at
    FROM unnest(CAST(:key_ids AS text[]), CAST(:used_at AS timestamptz[])) AS u (key_id, used_at)
    JOIN pgretrieve.api_keys k USING (key_id)
    WHERE k.last_used_at IS NULL OR k.last_used_at < u.used_at
    FOR NO KEY UPDATE OF k SKIP LOCKED)
UPDATE pgretrieve.api_keys k SET last_used_at = used.used_at FROM used WHERE k.key_id = used.key_id;

-- resolve_namespaces --
-- The namespaces that these ids or names mean.
SELECT identifier, namespace_id FROM pgretrieve.namespace_identifiers WHERE identifier = ANY(CAST(:identifiers AS text[]));
