-- function_of_retriever --
-- A retriever's function.
SELECT f.retriever_id, r.retriever_name, f.namespace_id, f.function_name, f.asked_name, f.signature,
    f.parameters::text AS parameters, f.limits::text AS limits, f.broken, f.created_by, f.created_at, f.updated_at,
    r.definition::text AS definition, r.version
FROM pgretrieve.retriever_functions f JOIN pgretrieve.retrievers r USING (retriever_id)
WHERE f.retriever_id = :retriever_id;

-- lock_functions --
-- The functions of a namespace, or of one retriever of it, held against whoever would make them anew at the same time.
SELECT f.retriever_id FROM pgretrieve.retriever_functions f
WHERE f.namespace_id = :namespace_id AND (CAST(:retriever_id AS text) IS NULL OR f.retriever_id = :retriever_id)
ORDER BY f.retriever_id FOR NO KEY UPDATE;

-- put_function --
-- A retriever is a function from now on, under this name.
INSERT INTO pgretrieve.retriever_functions AS f (retriever_id, namespace_id, function_name, asked_name, signature,
    parameters, limits, namespace_version, retriever_version, created_by)
VALUES (:retriever_id, :namespace_id, '', :asked_name, '', '[]', CAST(:limits AS jsonb), 0, 0, :created_by)
ON CONFLICT (retriever_id) DO UPDATE SET asked_name = excluded.asked_name, limits = excluded.limits;

-- note_function --
-- What was made.
UPDATE pgretrieve.retriever_functions f SET function_name = :function_name, signature = :signature,
    parameters = CAST(:parameters AS jsonb), broken = :broken, retriever_version = :retriever_version, updated_at = now(),
    namespace_version = (SELECT n.version FROM pgretrieve.namespaces n WHERE n.namespace_id = f.namespace_id)
WHERE f.retriever_id = :retriever_id;

-- delete_function --
DELETE FROM pgretrieve.retriever_functions WHERE retriever_id = :retriever_id;

-- function_names --
-- The names of functions that there are in a schema, but one; and those that other retrievers have.
SELECT p.proname FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace s ON s.oid = p.pronamespace
WHERE s.nspname = :schema AND p.proname <> :but;

-- vector_schema --
-- Where pgvector is installed: its operators are looked up there.
SELECT s.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace s ON s.oid = e.extnamespace
WHERE e.extname = 'vector';

-- function_create --
-- A function of a retriever.
CREATE OR REPLACE FUNCTION :function(:parameters)
RETURNS TABLE (rank bigint, document_id text, score double precision, collection_id text, payload jsonb, metadata jsonb,
    created_at timestamptz, updated_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY INVOKER COST 1000 ROWS :rows
:settings
AS :body

-- function_comment --
-- What it is.
COMMENT ON FUNCTION :function IS :comment

-- function_drop --
-- It goes, unless something of the database depends on it.
DROP FUNCTION IF EXISTS :function

-- function_setting --
-- A setting that holds while the function runs.
SET :name TO :value

-- function_body --
-- Checks, then the statement of the strategy.
#variable_conflict use_column
DECLARE
    held double precision;
BEGIN
:checks:choice:branches
END

-- function_body_broken --
-- In the place of an answer.
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = :message, HINT = :hint;
END

-- function_choice --
-- How many rows there are, by the planner's statistics: for few, the exact search is as fast.
    SELECT pg_catalog.max(c.reltuples) INTO held FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
    WHERE s.nspname = :schema AND c.relname = ANY (CAST(:relations AS text[]));
    IF strategy = 'auto' AND held BETWEEN 0 AND :small THEN
        strategy := 'exact';
    END IF;

-- function_branch --
-- One statement, with what it is bound to.
    IF strategy = ANY (CAST(:strategies AS text[])) THEN
        <<bind>>
        DECLARE
:declarations
        BEGIN
:needs
            RETURN QUERY
:statement;
            RETURN;
        END;
    END IF;

