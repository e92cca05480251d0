-- set_filled_by --
-- From now on searches tell how many documents are missing in that index.
UPDATE pgretrieve.vector_configs SET filled_by = :task_id WHERE namespace_id = :namespace_id AND name = :name;

-- set_source_field --
UPDATE pgretrieve.vector_inference_map SET source_field = :source_field
WHERE namespace_id = :namespace_id AND name = :name;

-- open_work_of_task --
-- How many of a task's items are open, those of them that nobody has and that are due, and the seconds until the next is.
SELECT count(*) AS open,
    (coalesce(array_agg(subject ORDER BY work_id) FILTER (
        WHERE due_at <= now() AND (leased_until IS NULL OR leased_until < now())), '{}'))[1:CAST(:size AS integer)] AS due,
    coalesce(extract(epoch FROM min(greatest(due_at, leased_until)) - now()), 0)::float8 AS pause
FROM pgretrieve.work WHERE task_id = :task_id AND failed_at IS NULL;
