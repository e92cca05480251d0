COMMENT ON COLUMN pgretrieve.imports.source IS 'The file''s name, or what else was read.';
COMMENT ON COLUMN pgretrieve.imports.source_hash IS 'SHA-256 of the file''s size, beginning and end, and of how it is read: the same import.';
ALTER TABLE pgretrieve.imports DROP COLUMN place;
