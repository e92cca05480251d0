-- The version before would let these keys read everything.
UPDATE pgretrieve.api_keys SET revoked_at = now() WHERE principal_id IS NOT NULL AND revoked_at IS NULL;
ALTER TABLE pgretrieve.api_keys DROP COLUMN principal_id;
CREATE OR REPLACE FUNCTION pgretrieve.hand_over(schema name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner oid := to_regrole('pgretrieve_owner');
    analyst oid := to_regrole('pgretrieve_analyst');
    command text;
BEGIN
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
COMMENT ON FUNCTION pgretrieve.hand_over IS 'Gives what is new in a namespace''s schema to the roles of the database, where there are any: pgretrieve_owner owns it, pgretrieve_analyst reads it.';
-- Access lists go, and with them the policies: everybody who may read a namespace reads all of it again.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN SELECT p.schemaname, p.tablename, p.policyname FROM pg_policies p
        JOIN pgretrieve.namespaces n ON n.schema_name = p.schemaname
        WHERE p.policyname IN ('readers', 'everybody') ORDER BY 1, 2, 3
    LOOP
        EXECUTE format('DROP POLICY %3$I ON %1$I.%2$I', found.schemaname, found.tablename, found.policyname);
        IF found.policyname = 'everybody' THEN
            EXECUTE format('ALTER TABLE %1$I.%2$I DISABLE ROW LEVEL SECURITY', found.schemaname, found.tablename);
        END IF;
    END LOOP;
    FOR found IN SELECT schema_name FROM pgretrieve.namespaces WHERE schema_revision >= 1 LOOP
        EXECUTE format('ALTER TABLE %I.documents DROP COLUMN acl, DROP COLUMN readers', found.schema_name);
    END LOOP;
END $$;
UPDATE pgretrieve.namespaces SET schema_revision = 0, version = version + 1 WHERE schema_revision >= 1;
DROP FUNCTION pgretrieve.protect_rows, pgretrieve.session_roles, pgretrieve.acl_readers;
