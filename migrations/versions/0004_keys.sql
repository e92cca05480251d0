-- What a key may do, and where.
ALTER TABLE pgretrieve.api_keys
    ADD COLUMN namespaces text[],
    ADD COLUMN created_by text,
    ADD COLUMN last_used_at timestamptz;
COMMENT ON COLUMN pgretrieve.api_keys.namespaces IS 'Ids of the namespaces that it may see; null is all of them.';
COMMENT ON COLUMN pgretrieve.api_keys.created_by IS 'The key (its id) or the command that made it.';
COMMENT ON COLUMN pgretrieve.api_keys.last_used_at IS 'When it was last used, to the minute.';
