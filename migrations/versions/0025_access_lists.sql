-- Who may read a document: its access list (`acl`), and what of it is asked when a row is read (`readers`). The columns are in
-- the namespaces' own tables (migrations/namespaces/0001_access_lists.sql).
CREATE FUNCTION pgretrieve.acl_readers(acl jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT ARRAY(SELECT DISTINCT name
    FROM pg_catalog.jsonb_array_elements_text(coalesce(acl -> 'read', '[]') || coalesce(acl -> 'write', '[]')) AS listed (name)
    UNION ALL SELECT '*' WHERE acl -> 'public' = 'true') $$;
COMMENT ON FUNCTION pgretrieve.acl_readers IS 'Whom an access list lets read: those under read and write; * where it is public.';

-- No setting is asked, which its session could change: only whose rights the session has.
CREATE FUNCTION pgretrieve.session_roles() RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT ARRAY(SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles WHERE pg_catalog.pg_has_role(oid, 'USAGE')
    UNION ALL SELECT '*') $$;
COMMENT ON FUNCTION pgretrieve.session_roles IS 'Names of the roles whose rights the session''s user has, and *, which is everybody.';

CREATE FUNCTION pgretrieve.protect_rows(schema name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unprotected name;
    is_policed boolean;
    condition text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(format('%I.documents', schema))
            AND attname = 'readers' AND NOT attisdropped) THEN
        RETURN;
    END IF;
    FOR unprotected, is_policed IN
        SELECT relname, relrowsecurity FROM pg_class c
        WHERE relnamespace = to_regnamespace(quote_ident(schema)) AND relkind IN ('r', 'p')
            AND (relname IN ('documents', 'lexical_documents') OR starts_with(relname, 'documents_'))
            AND NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polname = 'readers')
            AND pg_has_role(relowner, 'USAGE')
    LOOP
        condition := CASE unprotected
            WHEN 'documents' THEN 'readers IS NULL OR readers && (SELECT pgretrieve.session_roles())'
            ELSE format('EXISTS (SELECT FROM %I.documents d WHERE d.document_id = ', schema) || quote_ident(unprotected)
                || '.document_id)' END;
        EXECUTE format('CREATE POLICY readers ON %1$I.%2$I AS RESTRICTIVE USING (%3$s) WITH CHECK (true)',
            schema, unprotected, condition);
        -- Without one that permits, nothing would be. Where there are others already, it is theirs to say.
        IF NOT is_policed THEN
            EXECUTE format('CREATE POLICY everybody ON %1$I.%2$I USING (true) WITH CHECK (true)', schema, unprotected);
            EXECUTE format('ALTER TABLE %1$I.%2$I ENABLE ROW LEVEL SECURITY', schema, unprotected);
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgretrieve.protect_rows IS 'Row-level security for the documents of a namespace, their multi-vectors and their words: whoever does not own them reads only those without an access list and those whose list names a role of his.';

CREATE OR REPLACE FUNCTION pgretrieve.hand_over(schema name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner oid := to_regrole('pgretrieve_owner');
    analyst oid := to_regrole('pgretrieve_analyst');
    command text;
BEGIN
    -- Before anybody is let in.
    PERFORM pgretrieve.protect_rows(schema);
    IF owner IS NOT NULL AND pg_has_role(owner, 'SET') THEN
        FOR command IN
            SELECT format('ALTER SCHEMA %I OWNER TO pgretrieve_owner', nspname) FROM pg_namespace
            WHERE nspname = schema AND nspowner <> owner AND pg_has_role(nspowner, 'USAGE')
            UNION ALL
            SELECT format('ALTER %s %s OWNER TO pgretrieve_owner', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
                format('%I.%I', schema, relname))
            FROM pg_class c
            WHERE relnamespace = to_regnamespace(quote_ident(schema)) AND relkind IN ('r', 'p', 'S') AND relowner <> owner
                AND pg_has_role(relowner, 'USAGE')
                AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
            UNION ALL
            SELECT format('ALTER ROUTINE %s OWNER TO pgretrieve_owner', oid::regprocedure) FROM pg_proc
            WHERE pronamespace = to_regnamespace(quote_ident(schema)) AND proowner <> owner AND pg_has_role(proowner, 'USAGE')
        LOOP
            EXECUTE command;
        END LOOP;
    END IF;
    IF analyst IS NOT NULL THEN
        IF NOT has_schema_privilege(analyst, to_regnamespace(quote_ident(schema)), 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO pgretrieve_analyst', schema);
        END IF;
        FOR command IN
            SELECT format('GRANT SELECT ON %I.%I TO pgretrieve_analyst', schema, relname) FROM pg_class
            WHERE relnamespace = to_regnamespace(quote_ident(schema)) AND relkind IN ('r', 'p', 'v')
                AND NOT has_table_privilege(analyst, oid, 'SELECT')
        LOOP
            EXECUTE command;
        END LOOP;
    END IF;
END $$;
COMMENT ON FUNCTION pgretrieve.hand_over IS 'Protects what is new in a namespace''s schema (pgretrieve.protect_rows) and gives it to the roles of the database, where there are any: pgretrieve_owner owns it, pgretrieve_analyst reads it.';

ALTER TABLE pgretrieve.api_keys ADD COLUMN principal_id text;
COMMENT ON COLUMN pgretrieve.api_keys.principal_id IS 'Whose key it is: it reads only documents whose access list names this principal, or that are public; null reads all.';
