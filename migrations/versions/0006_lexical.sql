-- Lexical search: BM25 over postings that triggers keep beside a namespace's documents, in their transaction.
CREATE TABLE pgretrieve.lexical_indexes (
    namespace_id text PRIMARY KEY REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    fields jsonb NOT NULL,
    state text NOT NULL CHECK (state IN (
        'building', -- documents of before are being added; searches read the documents themselves
        'ready'     -- searches read the postings
    )),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgretrieve.lexical_indexes IS 'Namespaces with postings for lexical search; their tables lexical_… lie in the namespace''s schema.';
COMMENT ON COLUMN pgretrieve.lexical_indexes.namespace_id IS 'The namespace.';
COMMENT ON COLUMN pgretrieve.lexical_indexes.fields IS 'What is indexed: [{field, name, path, language, min_length, max_length}].';
COMMENT ON COLUMN pgretrieve.lexical_indexes.state IS 'building or ready.';
COMMENT ON COLUMN pgretrieve.lexical_indexes.created_at IS 'When these fields were declared.';

-- The words of the strings at a path. A tsvector holds 1 MB, and hyphens and addresses make up to 3.5 bytes of a byte: of
-- more than 250,000 bytes the first 62,500 characters, which are at most as many bytes, count.
CREATE FUNCTION pgretrieve.lexical_words(config regconfig, payload jsonb, path jsonpath) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    strings jsonb := jsonb_path_query_array(payload, path, '{}', true);
BEGIN
    IF strings IS NULL OR strings = '[]' THEN
        RETURN '';
    ELSIF octet_length(strings::text) <= 250000 THEN
        RETURN jsonb_to_tsvector(config, strings, '["string"]');
    END IF;
    RETURN to_tsvector(config, left((
        SELECT string_agg(string, ' ') FROM jsonb_array_elements_text(strings) AS string), 62500));
END $$;
COMMENT ON FUNCTION pgretrieve.lexical_words IS 'The words of the strings at a path of a document, with their positions.';

-- The statements that the triggers and the back-fill run are one, but for the schema and where documents come from.
CREATE FUNCTION pgretrieve.lexical_insertion(schema name, source text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
SELECT format($statement$
    WITH given AS MATERIALIZED (
        SELECT nextval('%1$I.lexical_numbers') AS number, document_id, payload FROM %2$s),
    added AS (
        INSERT INTO %1$I.lexical_documents (number, field, document_id, length, words)
        SELECT g.number, f.field, g.document_id, l.length, w.words
        FROM given g CROSS JOIN %1$I.lexical_fields f
        CROSS JOIN LATERAL (
            SELECT pgretrieve.lexical_words(f.language::regconfig, g.payload, f.path) AS words OFFSET 0) w
        CROSS JOIN LATERAL (
            SELECT sum(cardinality(u.positions)) AS length FROM unnest(w.words) u
            WHERE length(u.lexeme) BETWEEN f.min_length AND f.max_length) l
        WHERE l.length > 0
        ON CONFLICT DO NOTHING RETURNING number, field, length, words),
    posted AS (
        INSERT INTO %1$I.lexical_postings (field, lexeme, frequency, length, change, numbers)
        SELECT a.field, u.lexeme, cardinality(u.positions), a.length, 1, array_agg(a.number ORDER BY a.number)
        FROM added a JOIN %1$I.lexical_fields f USING (field) CROSS JOIN LATERAL unnest(a.words) u
        WHERE length(u.lexeme) BETWEEN f.min_length AND f.max_length
        GROUP BY 1, 2, 3, 4)
    INSERT INTO %1$I.lexical_totals (field, documents, lexemes)
    SELECT field, count(*), sum(length) FROM added GROUP BY field
    $statement$, schema, source)
$$;
COMMENT ON FUNCTION pgretrieve.lexical_insertion IS 'The statement that adds the words of these documents.';

CREATE FUNCTION pgretrieve.lexical_removal(schema name, source text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
SELECT format($statement$
    WITH gone AS (
        DELETE FROM %1$I.lexical_documents d USING %2$s AS s WHERE d.document_id = s.document_id
        RETURNING d.number, d.field, d.length, d.words),
    posted AS (
        INSERT INTO %1$I.lexical_postings (field, lexeme, frequency, length, change, numbers)
        SELECT g.field, u.lexeme, cardinality(u.positions), g.length, -1, array_agg(g.number ORDER BY g.number)
        FROM gone g JOIN %1$I.lexical_fields f USING (field) CROSS JOIN LATERAL unnest(g.words) u
        WHERE length(u.lexeme) BETWEEN f.min_length AND f.max_length
        GROUP BY 1, 2, 3, 4)
    INSERT INTO %1$I.lexical_totals (field, documents, lexemes)
    SELECT field, -count(*), -sum(length) FROM gone GROUP BY field
    $statement$, schema, source)
$$;
COMMENT ON FUNCTION pgretrieve.lexical_removal IS 'The statement that takes the words of these documents away.';

-- The trigger. Only appends (and deletes rows of documents that the writer has locked): writers never wait for each other.
CREATE FUNCTION pgretrieve.lexical_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    differs text;
BEGIN
    -- An upsert runs the triggers of INSERT and of UPDATE, one of them mostly in vain.
    IF TG_OP = 'INSERT' THEN
        IF NOT EXISTS (SELECT FROM added) THEN
            RETURN NULL;
        END IF;
        EXECUTE pgretrieve.lexical_insertion(TG_TABLE_SCHEMA, 'added');
    ELSIF TG_OP = 'DELETE' THEN
        EXECUTE pgretrieve.lexical_removal(TG_TABLE_SCHEMA, 'removed');
    ELSIF TG_OP = 'UPDATE' THEN
        IF NOT EXISTS (SELECT FROM added) THEN
            RETURN NULL;
        END IF;
        differs := format($condition$ EXISTS (
            SELECT FROM %I.lexical_fields f
            WHERE jsonb_path_query_array(a.payload, f.path, '{}', true)
                IS DISTINCT FROM jsonb_path_query_array(r.payload, f.path, '{}', true)) $condition$, TG_TABLE_SCHEMA);
        EXECUTE pgretrieve.lexical_removal(TG_TABLE_SCHEMA, format(
            '(SELECT r.document_id FROM removed r LEFT JOIN added a USING (document_id) WHERE %s)', differs));
        EXECUTE pgretrieve.lexical_insertion(TG_TABLE_SCHEMA, format(
            '(SELECT a.document_id, a.payload FROM added a LEFT JOIN removed r USING (document_id) WHERE %s) AS s', differs));
    ELSE
        EXECUTE format('TRUNCATE %1$I.lexical_documents, %1$I.lexical_postings, %1$I.lexical_totals', TG_TABLE_SCHEMA);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION pgretrieve.lexical_changed IS 'Keeps the postings of a namespace as its documents are, in the writer''s transaction.';

CREATE FUNCTION pgretrieve.lexical_drop(schema name) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    trigger_name name;
BEGIN
    FOR trigger_name IN SELECT tgname FROM pg_trigger
        WHERE tgrelid = format('%I.documents', schema)::regclass AND tgfoid = 'pgretrieve.lexical_changed()'::regprocedure
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %I.documents', trigger_name, schema);
    END LOOP;
    EXECUTE format('DROP TABLE IF EXISTS %1$I.lexical_fields, %1$I.lexical_documents, %1$I.lexical_postings, %1$I.lexical_totals', schema);
    EXECUTE format('DROP SEQUENCE IF EXISTS %I.lexical_numbers', schema);
END $$;
COMMENT ON FUNCTION pgretrieve.lexical_drop IS 'Removes triggers and tables of a namespace''s lexical index.';

-- Empty tables for these fields, in the place of others, and the triggers that fill them from now on.
CREATE FUNCTION pgretrieve.lexical_create(schema name, fields jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgretrieve.lexical_drop(schema);
    EXECUTE format($ddl$
        CREATE SEQUENCE %1$I.lexical_numbers;
        CREATE TABLE %1$I.lexical_fields (
            field smallint PRIMARY KEY, name text NOT NULL, path jsonpath NOT NULL, language text NOT NULL,
            min_length integer NOT NULL, max_length integer NOT NULL);
        COMMENT ON TABLE %1$I.lexical_fields IS 'The payload fields that lexical search finds words in.';
        COMMENT ON COLUMN %1$I.lexical_fields.field IS 'Its number.';
        COMMENT ON COLUMN %1$I.lexical_fields.name IS 'The field, a dotted path into the payload.';
        COMMENT ON COLUMN %1$I.lexical_fields.path IS 'Its strings.';
        COMMENT ON COLUMN %1$I.lexical_fields.language IS 'The text search configuration: stop words and stems.';
        COMMENT ON COLUMN %1$I.lexical_fields.min_length IS 'Characters of the shortest lexeme that counts.';
        COMMENT ON COLUMN %1$I.lexical_fields.max_length IS 'Characters of the longest.';

        CREATE TABLE %1$I.lexical_documents (
            number bigint, field smallint, document_id text NOT NULL, length integer NOT NULL, words tsvector NOT NULL,
            PRIMARY KEY (number, field), UNIQUE (document_id, field));
        COMMENT ON TABLE %1$I.lexical_documents IS 'The words of each document, a row for each field that has some.';
        COMMENT ON COLUMN %1$I.lexical_documents.number IS 'The document''s in the postings; a changed one gets another.';
        COMMENT ON COLUMN %1$I.lexical_documents.field IS 'The field.';
        COMMENT ON COLUMN %1$I.lexical_documents.document_id IS 'The document.';
        COMMENT ON COLUMN %1$I.lexical_documents.length IS 'Occurrences of lexemes in the field.';
        COMMENT ON COLUMN %1$I.lexical_documents.words IS 'Its lexemes with their positions.';

        CREATE TABLE %1$I.lexical_postings (
            field smallint NOT NULL, lexeme text COLLATE "C" NOT NULL, frequency smallint NOT NULL,
            length integer NOT NULL, change smallint NOT NULL, numbers bigint[] STORAGE EXTERNAL NOT NULL);
        CREATE INDEX lexical_postings_lexeme ON %1$I.lexical_postings (lexeme, field);
        COMMENT ON TABLE %1$I.lexical_postings IS 'Where lexemes occur. Rows are added by writers, and merged by a job.';
        COMMENT ON COLUMN %1$I.lexical_postings.field IS 'The field.';
        COMMENT ON COLUMN %1$I.lexical_postings.lexeme IS 'The lexeme.';
        COMMENT ON COLUMN %1$I.lexical_postings.frequency IS 'How often it occurs in each of these documents.';
        COMMENT ON COLUMN %1$I.lexical_postings.length IS 'How long the field of each of these documents is.';
        COMMENT ON COLUMN %1$I.lexical_postings.change IS '1: these documents came; -1: they went, and count no more.';
        COMMENT ON COLUMN %1$I.lexical_postings.numbers IS 'The documents'' numbers.';

        CREATE TABLE %1$I.lexical_totals (
            field smallint NOT NULL, documents bigint NOT NULL, lexemes bigint NOT NULL,
            merged boolean NOT NULL DEFAULT false);
        COMMENT ON TABLE %1$I.lexical_totals IS 'How many documents there are, and how long: the sum of these rows, one for each write.';
        COMMENT ON COLUMN %1$I.lexical_totals.field IS 'The field.';
        COMMENT ON COLUMN %1$I.lexical_totals.documents IS 'Documents that came; below 0: that went.';
        COMMENT ON COLUMN %1$I.lexical_totals.lexemes IS 'Occurrences of lexemes in them.';
        COMMENT ON COLUMN %1$I.lexical_totals.merged IS 'Whether the merge has seen these documents.';

        CREATE TRIGGER lexical_insert AFTER INSERT ON %1$I.documents REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION pgretrieve.lexical_changed();
        CREATE TRIGGER lexical_update AFTER UPDATE ON %1$I.documents REFERENCING OLD TABLE AS removed NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION pgretrieve.lexical_changed();
        CREATE TRIGGER lexical_delete AFTER DELETE ON %1$I.documents REFERENCING OLD TABLE AS removed
            FOR EACH STATEMENT EXECUTE FUNCTION pgretrieve.lexical_changed();
        CREATE TRIGGER lexical_truncate AFTER TRUNCATE ON %1$I.documents
            FOR EACH STATEMENT EXECUTE FUNCTION pgretrieve.lexical_changed();
        $ddl$, schema);
    EXECUTE format(
        'INSERT INTO %I.lexical_fields SELECT * FROM jsonb_to_recordset($1) AS f
            (field smallint, name text, path jsonpath, language text, min_length integer, max_length integer)',
        schema) USING fields;
END $$;
COMMENT ON FUNCTION pgretrieve.lexical_create IS 'Makes the tables and triggers of a namespace''s lexical index, empty.';

-- Adds the next documents after an id, locked so that a writer comes before or after; answers the last id, null at the end.
CREATE FUNCTION pgretrieve.lexical_fill(schema name, after text, most integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    last text;
BEGIN
    EXECUTE format(
        'SELECT max(document_id) FROM (
            SELECT document_id FROM %I.documents WHERE document_id > $1 ORDER BY document_id LIMIT $2) AS d',
        schema) INTO last USING after, most;
    IF last IS NOT NULL THEN
        EXECUTE pgretrieve.lexical_insertion(schema, format(
            '(SELECT document_id, payload FROM %I.documents WHERE document_id > %L AND document_id <= %L
                ORDER BY document_id FOR SHARE) AS s',
            schema, after, last));
    END IF;
    RETURN last;
END $$;
COMMENT ON FUNCTION pgretrieve.lexical_fill IS 'Adds documents that were there before the index.';

-- Whether 30 % of the documents, or 500 writes, came since the last merge: each document is merged four times or so.
CREATE FUNCTION pgretrieve.lexical_is_due(schema name) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    due boolean;
BEGIN
    EXECUTE format(
        'SELECT count(*) FILTER (WHERE NOT merged) >= 500
            OR sum(abs(documents)) FILTER (WHERE NOT merged) > 100 + 0.3 * coalesce(sum(documents) FILTER (WHERE merged), 0)
        FROM %I.lexical_totals', schema) INTO due;
    RETURN coalesce(due, false);
END $$;
COMMENT ON FUNCTION pgretrieve.lexical_is_due IS 'Whether merging is worth its while.';

-- Makes few long rows of many short ones, for lexemes where that saves some, and forgets documents that went.
CREATE FUNCTION pgretrieve.lexical_merge(schema name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($statement$
        WITH gone AS (DELETE FROM %1$I.lexical_totals RETURNING field, documents, lexemes)
        INSERT INTO %1$I.lexical_totals SELECT field, sum(documents), sum(lexemes), true FROM gone GROUP BY field
        $statement$, schema);
    EXECUTE format($statement$
        WITH worn AS MATERIALIZED (
            SELECT field, lexeme
            FROM (SELECT field, lexeme, count(*) AS rows FROM %1$I.lexical_postings
                GROUP BY field, lexeme, frequency, length) AS g
            GROUP BY field, lexeme HAVING sum(rows) - count(*) >= 16),
        gone AS (
            DELETE FROM %1$I.lexical_postings p USING worn w WHERE p.field = w.field AND p.lexeme = w.lexeme
            RETURNING p.field, p.lexeme, p.frequency, p.length, p.change, p.numbers),
        left_over AS (
            SELECT field, lexeme, frequency, length, number
            FROM (SELECT field, lexeme, frequency, length, change, unnest(numbers) AS number FROM gone) AS g
            GROUP BY field, lexeme, frequency, length, number HAVING sum(change) > 0)
        INSERT INTO %1$I.lexical_postings
        SELECT field, lexeme, frequency, length, 1, array_agg(number ORDER BY number) FROM left_over
        GROUP BY field, lexeme, frequency, length ORDER BY lexeme, field, frequency, length
        $statement$, schema);
END $$;
COMMENT ON FUNCTION pgretrieve.lexical_merge IS 'Merges the postings that writers appended; readers and writers go on meanwhile.';
