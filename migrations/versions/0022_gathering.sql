-- Sources of a collection become work by work, too: a bucket may have more of them than a request has time for.
ALTER TABLE pgretrieve.work DROP CONSTRAINT work_kind_check;
ALTER TABLE pgretrieve.work ADD CONSTRAINT work_kind_check CHECK (kind IN ('embed', 'extract', 'gather'));
COMMENT ON COLUMN pgretrieve.work.kind IS 'embed, extract, or gather: the sources of the collection `target`, for the task `subject` or, where that is empty, because it has begun.';
