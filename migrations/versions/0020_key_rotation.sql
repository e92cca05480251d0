-- After a rotation, the secret before works on for a while.
ALTER TABLE pgretrieve.api_keys
    ADD COLUMN previous_hash bytea UNIQUE CHECK (octet_length(previous_hash) = 32),
    ADD COLUMN previous_until timestamptz;
COMMENT ON COLUMN pgretrieve.api_keys.previous_hash IS 'SHA-256 of the key before it was last rotated.';
COMMENT ON COLUMN pgretrieve.api_keys.previous_until IS 'Until when that works, too.';
