-- Physical payload indexes: what they index, and how they stand.
ALTER TABLE pgretrieve.payload_indexes ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY;
ALTER TABLE pgretrieve.payload_indexes ADD COLUMN state text NOT NULL DEFAULT 'building' CHECK (state IN (
    'building', -- filters read the documents themselves
    'ready',    -- filters use the index
    'failed'    -- as building; see the job's log, and ensure-indexes
));
ALTER TABLE pgretrieve.payload_indexes ADD COLUMN origin text NOT NULL DEFAULT 'declared' CHECK (origin IN (
    'declared', -- by the namespace's owner
    'adaptive'  -- made from what queries filtered on
));
-- Those that were declared before are built when ensure-indexes asks for it.
UPDATE pgretrieve.payload_indexes SET state = CASE WHEN type IN ('geo', 'text') THEN 'ready' ELSE 'failed' END;
COMMENT ON COLUMN pgretrieve.payload_indexes.number IS 'In the names of its indexes in the namespace''s schema: payload_<number>_….';
COMMENT ON COLUMN pgretrieve.payload_indexes.state IS 'building, ready or failed.';
COMMENT ON COLUMN pgretrieve.payload_indexes.origin IS 'declared or adaptive.';

-- What indexes hold. The two filter languages open arrays differently: `path` is a jsonpath of what language A finds, and
-- `bare` of the one value, perhaps an array, whose elements language B finds. Names are looked up in pg_catalog, whatever
-- the search_path. Costs are beside those of built-in functions, which have 1.
CREATE FUNCTION pgretrieve.payload_key(prefix text, scalar jsonb) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    written text := CASE pg_catalog.jsonb_typeof(scalar) WHEN 'number' THEN pg_catalog.trim_scale(scalar::numeric)::text
        ELSE scalar::text END;
    key bytea := pg_catalog.convert_to(written, 'UTF8');
BEGIN
    RETURN prefix::bytea || CASE WHEN pg_catalog.octet_length(key) <= 200 THEN key ELSE '#'::bytea || pg_catalog.sha256(key) END;
END $$;
COMMENT ON FUNCTION pgretrieve.payload_key IS 'A scalar as the bytes of its JSON, a number without trailing zeros. One of more than 200 bytes is a # and its SHA-256, so that it fits in an index.';

CREATE FUNCTION pgretrieve.payload_keys(payload jsonb, path jsonpath, bare jsonpath) RETURNS bytea[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 100 AS $$
DECLARE
    items jsonb := coalesce(pg_catalog.jsonb_path_query_array(payload, path, '{}', true), '[]');
    own jsonb := coalesce(pg_catalog.jsonb_path_query_array(payload, bare, '{}', true), '[]');
    same boolean;
    item jsonb;
    found bytea[] := '{}';
BEGIN
    IF pg_catalog.jsonb_typeof(own -> 0) = 'array' THEN
        own := own -> 0;
    END IF;
    same := items = own;
    FOR n IN 0 .. pg_catalog.jsonb_array_length(items) - 1 LOOP
        EXIT WHEN NOT same;
        item := items -> n;
        same := pg_catalog.jsonb_typeof(item) <> 'number'
            OR pg_catalog.scale(item::numeric) = pg_catalog.scale(pg_catalog.trim_scale(item::numeric));
    END LOOP;
    FOR n IN 0 .. pg_catalog.jsonb_array_length(items) - 1 LOOP
        item := items -> n;
        IF pg_catalog.jsonb_typeof(item) IN ('string', 'number', 'boolean') THEN
            found := found || pgretrieve.payload_key(CASE WHEN same THEN '' ELSE 'A' END, item);
        END IF;
    END LOOP;
    IF NOT same THEN
        found := found || 'A'::bytea;
    END IF;
    FOR n IN 0 .. pg_catalog.jsonb_array_length(own) - 1 LOOP
        EXIT WHEN same;
        item := own -> n;
        -- To language B an integer equals one that is written as such.
        IF pg_catalog.jsonb_typeof(item) IN ('string', 'boolean')
            OR pg_catalog.jsonb_typeof(item) = 'number' AND pg_catalog.scale(item::numeric) = 0 THEN
            found := found || pgretrieve.payload_key('B', item);
        END IF;
    END LOOP;
    RETURN found;
END $$;
COMMENT ON FUNCTION pgretrieve.payload_keys IS 'The keys of the scalars at a path. Of a document where the filter languages find other ones, those of language A after an A, those that are integers, texts and booleans to language B after a B, and an A alone.';

CREATE FUNCTION pgretrieve.payload_short_number(number numeric) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    digits text := pg_catalog.ltrim(number::text, '-');
    most integer := 1000 + pg_catalog.length(pg_catalog.substring(digits, '^[0.]*'));
    kept text := pg_catalog.left(digits, most);
    rest text := pg_catalog.substr(digits, most + 1);
    whole integer := CASE WHEN pg_catalog.strpos(kept, '.') > 0 THEN 0
        WHEN pg_catalog.strpos(rest, '.') > 0 THEN pg_catalog.strpos(rest, '.') - 1 ELSE pg_catalog.length(rest) END;
BEGIN
    IF pg_catalog.pg_column_size(number) <= 600 THEN
        RETURN number;
    END IF;
    kept := kept || CASE WHEN pg_catalog.left(rest, 1) = '.' THEN '.1' ELSE '1' END;
    RETURN pg_catalog.sign(number) * (kept || pg_catalog.repeat('0', whole - 1))::numeric;
END $$;
COMMENT ON FUNCTION pgretrieve.payload_short_number IS 'Of a number too long for an index the first 1,000 digits, and a 1 for the others: it compares with shorter numbers as the whole.';

CREATE FUNCTION pgretrieve.payload_number(payload jsonb, path jsonpath, bare jsonpath, which text) RETURNS numeric
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 100 AS $$
DECLARE
    numbers jsonb := pg_catalog.jsonb_path_query_array(payload, path, '{}', true);
    found numeric;
BEGIN
    IF numbers IS NULL OR numbers = '[]' THEN
        RETURN NULL;
    ELSIF (pg_catalog.jsonb_array_length(numbers) = 1 AND coalesce(
            pg_catalog.jsonb_path_query_first(payload, bare, '{}', true) @> (numbers -> 0), false)) <> (which = 'only') THEN
        RETURN NULL;
    ELSIF which = 'least' THEN
        found := (SELECT pg_catalog.min(n::numeric) FROM pg_catalog.jsonb_array_elements(numbers) AS n);
    ELSE
        found := (SELECT pg_catalog.max(n::numeric) FROM pg_catalog.jsonb_array_elements(numbers) AS n);
    END IF;
    RETURN CASE WHEN pg_catalog.pg_column_size(found) <= 600 THEN found ELSE pgretrieve.payload_short_number(found) END;
END $$;
COMMENT ON FUNCTION pgretrieve.payload_number IS 'The number at a path of numbers, where it is the only one and the same to both filter languages; else the least or the greatest of them. The others are NULL.';

CREATE FUNCTION pgretrieve.payload_text(payload jsonb, path jsonpath, which text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 100 AS $$
DECLARE
    texts jsonb := pg_catalog.jsonb_path_query_array(payload, path, '{}', true);
    found text;
BEGIN
    IF texts IS NULL OR texts = '[]' OR (pg_catalog.jsonb_array_length(texts) = 1) <> (which = 'only') THEN
        RETURN NULL;
    ELSIF which = 'only' THEN
        found := texts ->> 0;
    ELSIF which = 'least' THEN
        found := (SELECT pg_catalog.min(t COLLATE "C") FROM pg_catalog.jsonb_array_elements_text(texts) AS t);
    ELSE
        found := (SELECT pg_catalog.max(t COLLATE "C") FROM pg_catalog.jsonb_array_elements_text(texts) AS t);
    END IF;
    RETURN CASE WHEN pg_catalog.length(found) <= 200 THEN found ELSE pg_catalog.left(found, 200) || '+' END;
END $$;
COMMENT ON FUNCTION pgretrieve.payload_text IS 'The string at a path of strings: the only one, or of several the least or the greatest; else NULL. Of one too long for an index the first 200 characters and a +: it compares with shorter strings as the whole.';

CREATE FUNCTION pgretrieve.analyze_documents(schema name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE pg_catalog.format('ANALYZE %I.documents', schema);
END $$;
COMMENT ON FUNCTION pgretrieve.analyze_documents IS 'Takes new statistics of a namespace''s documents, also of what its payload indexes hold.';
