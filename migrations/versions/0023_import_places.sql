-- Tables and other databases have no row numbers: how far they are read is a key, or an offset of their own making.
ALTER TABLE pgretrieve.imports ADD COLUMN place text;
COMMENT ON COLUMN pgretrieve.imports.place IS 'Where a source without row numbers goes on, as JSON of its own: the last key of a table, the offset of a scroll. Null: of a file, or at the beginning.';
COMMENT ON COLUMN pgretrieve.imports.source_hash IS 'SHA-256 of what tells this source from others, and of how it is read: the same import.';
COMMENT ON COLUMN pgretrieve.imports.source IS 'The file''s name, or the address and name of what else was read, without secrets.';
