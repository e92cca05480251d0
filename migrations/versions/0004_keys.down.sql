ALTER TABLE pgretrieve.api_keys DROP COLUMN namespaces, DROP COLUMN created_by, DROP COLUMN last_used_at;
