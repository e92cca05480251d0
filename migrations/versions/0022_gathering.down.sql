DELETE FROM pgretrieve.work WHERE kind = 'gather';
ALTER TABLE pgretrieve.work DROP CONSTRAINT work_kind_check;
ALTER TABLE pgretrieve.work ADD CONSTRAINT work_kind_check CHECK (kind IN ('embed', 'extract'));
COMMENT ON COLUMN pgretrieve.work.kind IS 'embed or extract.';
