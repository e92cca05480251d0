-- The roles of a database with pgretrieve: groups that cannot log in; whoever logs in is made a member of one of them.
-- Run by `pgretrieve roles` in one transaction, as often as one likes: again after each migration, for what that brought.
--
--   pgretrieve_owner     owns the schemas of the namespaces and all in them; those below but the analysts are members
--   pgretrieve_migrator  owns the catalogue, and changes its tables
--   pgretrieve_api       serves the API: creates namespaces, writes documents, keys and all else that is in the catalogue
--   pgretrieve_worker    builds indexes and makes vectors; sees no key
--   pgretrieve_analyst   reads the views, the documents of every namespace and the functions there; no key, no secret

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['owner', 'migrator', 'api', 'worker', 'analyst'] LOOP
        IF to_regrole('pgretrieve_' || name) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', 'pgretrieve_' || name);
        END IF;
    END LOOP;
    -- An administrator who is no superuser gives things away to roles that he is a member of.
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT pgretrieve_owner, pgretrieve_migrator TO %I', current_user);
    END IF;
END $$;
GRANT pgretrieve_owner TO pgretrieve_migrator, pgretrieve_api, pgretrieve_worker;

-- Nobody but these gets into the catalogue and the queue.
REVOKE ALL ON SCHEMA pgretrieve, pgretrieve_queue FROM PUBLIC;
GRANT USAGE ON SCHEMA pgretrieve TO pgretrieve_owner, pgretrieve_api, pgretrieve_worker, pgretrieve_analyst;
GRANT USAGE ON SCHEMA pgretrieve_queue TO pgretrieve_api, pgretrieve_worker;

-- The catalogue belongs to the migrator. (What extensions own in these schemas would stay with them; there is none.)
DO $$
DECLARE
    migrator oid := to_regrole('pgretrieve_migrator');
    command text;
BEGIN
    EXECUTE format('GRANT CREATE ON DATABASE %I TO pgretrieve_migrator, pgretrieve_api', current_database());
    FOR command IN
        SELECT format('ALTER SCHEMA %I OWNER TO pgretrieve_migrator', nspname) FROM pg_namespace
        WHERE nspname IN ('pgretrieve', 'pgretrieve_queue') AND nspowner <> migrator
        UNION ALL
        SELECT format('ALTER %s %s OWNER TO pgretrieve_migrator',
            CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass)
        FROM pg_class c
        WHERE relnamespace IN ('pgretrieve'::regnamespace, 'pgretrieve_queue'::regnamespace) AND relkind IN ('r', 'p', 'v', 'S')
            AND relowner <> migrator AND NOT EXISTS (SELECT FROM pg_depend d
                WHERE d.objid = c.oid AND c.relkind = 'S' AND d.deptype IN ('a', 'i') AND d.refclassid = 'pg_class'::regclass)
        UNION ALL
        SELECT format('ALTER ROUTINE %s OWNER TO pgretrieve_migrator', oid::regprocedure) FROM pg_proc
        WHERE pronamespace IN ('pgretrieve'::regnamespace, 'pgretrieve_queue'::regnamespace) AND proowner <> migrator
        UNION ALL
        SELECT format('ALTER TYPE %s OWNER TO pgretrieve_migrator', t.oid::regtype) FROM pg_type t
        LEFT JOIN pg_class c ON c.oid = t.typrelid
        WHERE typnamespace IN ('pgretrieve'::regnamespace, 'pgretrieve_queue'::regnamespace)
            AND typowner <> migrator AND (typtype IN ('e', 'd') OR typtype = 'c' AND c.relkind = 'c')
    LOOP
        EXECUTE command;
    END LOOP;
END $$;

-- What the service writes. What is kept as it was, is not changed or deleted by anybody but the migrator.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgretrieve TO pgretrieve_api, pgretrieve_worker;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA pgretrieve TO pgretrieve_api, pgretrieve_worker;
REVOKE INSERT, UPDATE, DELETE ON pgretrieve.alembic_version FROM pgretrieve_api, pgretrieve_worker;
REVOKE UPDATE, DELETE ON pgretrieve.promotions, pgretrieve.vector_changes, pgretrieve.audit_events FROM pgretrieve_api, pgretrieve_worker;
REVOKE ALL ON pgretrieve.api_keys FROM pgretrieve_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgretrieve_queue TO pgretrieve_api, pgretrieve_worker;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA pgretrieve_queue TO pgretrieve_api, pgretrieve_worker;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA pgretrieve, pgretrieve_queue TO pgretrieve_api, pgretrieve_worker;

-- Functions that run with their owner's rights are for the service alone, but for those that were written for analysts. All
-- others can do no more than their caller.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT oid::regprocedure AS routine, proname IN ('embed', 'embedding_state', 'queue_embedding') AS for_analysts
        FROM pg_proc WHERE pronamespace = 'pgretrieve'::regnamespace AND prosecdef
    LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', found.routine);
        IF found.for_analysts THEN
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO pgretrieve_analyst', found.routine);
        END IF;
    END LOOP;
END $$;

-- Analysts: every view, and the three tables (of namespaces no more than their names) that `vector_provenance` reads with the
-- rights of who asks, so that it shows nobody a document that he may not see.
DO $$
DECLARE
    found regclass;
BEGIN
    FOR found IN
        SELECT oid FROM pg_class WHERE relnamespace = 'pgretrieve'::regnamespace AND relkind = 'v' AND relname !~ '^admin_'
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO pgretrieve_analyst', found);
    END LOOP;
END $$;
GRANT SELECT (namespace_id, schema_name) ON pgretrieve.namespaces TO pgretrieve_analyst;
GRANT SELECT ON pgretrieve.vector_configs, pgretrieve.vector_inference_map TO pgretrieve_analyst;

-- The namespaces that there are; new ones follow by themselves (pgretrieve.hand_over).
SELECT pgretrieve.hand_over(schema_name) FROM pgretrieve.namespaces;
