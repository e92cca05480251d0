ALTER TABLE pgretrieve.api_keys DROP COLUMN previous_hash, DROP COLUMN previous_until;
