-- Which retrievers are functions in their namespace's schema, too.
CREATE TABLE pgretrieve.retriever_functions (
    retriever_id text PRIMARY KEY REFERENCES pgretrieve.retrievers ON DELETE CASCADE,
    namespace_id text NOT NULL REFERENCES pgretrieve.namespaces ON DELETE CASCADE,
    function_name text NOT NULL,
    asked_name text,
    signature text NOT NULL,
    parameters jsonb NOT NULL,
    limits jsonb NOT NULL,
    namespace_version integer NOT NULL,
    retriever_version integer NOT NULL,
    broken text,
    created_by text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (namespace_id, function_name)
);
COMMENT ON TABLE pgretrieve.retriever_functions IS 'Retrievers that are published as SQL functions in their namespace''s schema; they are made anew in the transaction that changes what they do.';
COMMENT ON COLUMN pgretrieve.retriever_functions.retriever_id IS 'The retriever.';
COMMENT ON COLUMN pgretrieve.retriever_functions.namespace_id IS 'Its namespace.';
COMMENT ON COLUMN pgretrieve.retriever_functions.function_name IS 'The function''s name in the namespace''s schema.';
COMMENT ON COLUMN pgretrieve.retriever_functions.asked_name IS 'The name that its publisher asked for; null: it is named as the retriever.';
COMMENT ON COLUMN pgretrieve.retriever_functions.signature IS 'Names, types and defaults of its parameters, as PostgreSQL has them.';
COMMENT ON COLUMN pgretrieve.retriever_functions.parameters IS 'Its parameters: name, type, the input that it is, whether it is required, and its default.';
COMMENT ON COLUMN pgretrieve.retriever_functions.limits IS 'The deployment''s limits and ef_search when it was published.';
COMMENT ON COLUMN pgretrieve.retriever_functions.namespace_version IS 'The version of the namespace that it was made for.';
COMMENT ON COLUMN pgretrieve.retriever_functions.retriever_version IS 'The version of the retriever.';
COMMENT ON COLUMN pgretrieve.retriever_functions.broken IS 'Why it raises an error instead of answering, since its namespace has changed; null: it answers.';
COMMENT ON COLUMN pgretrieve.retriever_functions.created_by IS 'The API key (its id) that published it.';
COMMENT ON COLUMN pgretrieve.retriever_functions.created_at IS 'When it was published.';
COMMENT ON COLUMN pgretrieve.retriever_functions.updated_at IS 'When it was last made anew.';

-- What functions make of their parameters, as the service does of a request's inputs. NULL gives NULL throughout.
CREATE FUNCTION pgretrieve.input_refused(message text) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = message;
END $$;
COMMENT ON FUNCTION pgretrieve.input_refused IS 'Refuses an input.';

CREATE FUNCTION pgretrieve.input_needed(input text, missing boolean) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF missing THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = pg_catalog.format('The input %s is needed by this retriever.', pg_catalog.quote_ident(input));
    END IF;
END $$;
COMMENT ON FUNCTION pgretrieve.input_needed IS 'Refuses a call without an input that the retriever needs.';

CREATE FUNCTION pgretrieve.input_allowed(input text, value jsonb, allowed jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF value IS NOT NULL AND NOT EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(allowed) a (item) WHERE a.item = value) THEN
        PERFORM pgretrieve.input_refused(pg_catalog.format('The input %s must be one of %s.', pg_catalog.quote_ident(input), allowed));
    END IF;
END $$;
COMMENT ON FUNCTION pgretrieve.input_allowed IS 'Refuses a value that is not among those that the input schema allows.';

CREATE FUNCTION pgretrieve.input_kind(input text, value jsonb, kind text) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF pg_catalog.jsonb_typeof(value) <> kind THEN
        PERFORM pgretrieve.input_refused(pg_catalog.format('The input %s must be of type %s.', pg_catalog.quote_ident(input), kind));
    END IF;
END $$;
COMMENT ON FUNCTION pgretrieve.input_kind IS 'Refuses a JSON value of another type than the input schema says.';

CREATE FUNCTION pgretrieve.input_strategy(strategy text) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF strategy IS NULL OR strategy NOT IN ('auto', 'exact', 'hnsw', 'hnsw_iterative') THEN
        PERFORM pgretrieve.input_refused('The strategy is auto, exact, hnsw or hnsw_iterative.');
    END IF;
END $$;
COMMENT ON FUNCTION pgretrieve.input_strategy IS 'Refuses a search strategy that there is not.';

CREATE FUNCTION pgretrieve.input_all_given(given jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT NOT given @> '[null]' $$;
COMMENT ON FUNCTION pgretrieve.input_all_given IS 'Whether none of these inputs is missing.';

CREATE FUNCTION pgretrieve.input_flag(value jsonb) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF pg_catalog.jsonb_typeof(value) <> 'boolean' THEN
        PERFORM pgretrieve.input_refused('The filter needs true or false.');
    END IF;
    RETURN value::boolean;
END $$;
COMMENT ON FUNCTION pgretrieve.input_flag IS 'What a condition on being there asks.';

CREATE FUNCTION pgretrieve.input_number(value jsonb) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF pg_catalog.jsonb_typeof(value) <> 'number' THEN
        PERFORM pgretrieve.input_refused('min_score is a number.');
    END IF;
    RETURN value::double precision;
END $$;
COMMENT ON FUNCTION pgretrieve.input_number IS 'A number of a stage.';

CREATE FUNCTION pgretrieve.input_seed(value jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF pg_catalog.jsonb_typeof(value) <> 'number' OR value::text !~ '^-?[0-9]+$' THEN
        PERFORM pgretrieve.input_refused('seed is a whole number of 64 bits.');
    END IF;
    RETURN value::bigint::text;
END $$;
COMMENT ON FUNCTION pgretrieve.input_seed IS 'The seed of a sample.';

CREATE FUNCTION pgretrieve.input_instant(value jsonb, bound text) RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    written text := pg_catalog.regexp_replace(value ->> bound, '([.][0-9]{6})[0-9]+', '\1');
BEGIN
    IF pg_catalog.jsonb_typeof(value -> bound) <> 'string' THEN
        RETURN NULL;
    END IF;
    IF written !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]+)?( ?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?))?)?)?$' THEN
        PERFORM pgretrieve.input_refused('`range` needs bounds that are all numbers, or all ISO 8601 dates and times.');
    END IF;
    IF written !~ ':[0-9]{2}([.][0-9]+)? ?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)$' THEN
        written := written || 'Z';
    END IF;
    RETURN written::timestamptz;
END $$;
COMMENT ON FUNCTION pgretrieve.input_instant IS 'The instant that a bound of a range names, UTC where it names no zone; NULL of a number.';

CREATE FUNCTION pgretrieve.input_count(value jsonb, bound text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT (value ->> bound)::integer $$;
COMMENT ON FUNCTION pgretrieve.input_count IS 'A bound of a number of values.';

CREATE FUNCTION pgretrieve.input_list(value jsonb, is_list boolean) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    listed jsonb := CASE WHEN pg_catalog.jsonb_typeof(value) = 'array' THEN value ELSE pg_catalog.jsonb_build_array(value) END;
BEGIN
    IF value IS NULL THEN
        RETURN NULL;
    END IF;
    IF is_list AND (pg_catalog.jsonb_typeof(value) <> 'array' OR pg_catalog.jsonb_array_length(value) > 1000) THEN
        PERFORM pgretrieve.input_refused('The filter needs a list of at most 1000 texts, numbers and booleans.');
    END IF;
    IF NOT is_list AND pg_catalog.jsonb_typeof(value) = 'array' OR EXISTS (
            SELECT FROM pg_catalog.jsonb_array_elements(listed) l (item)
            WHERE pg_catalog.jsonb_typeof(l.item) NOT IN ('string', 'number', 'boolean')) THEN
        PERFORM pgretrieve.input_refused('The filter needs a text, a number or a boolean from an input.');
    END IF;
    RETURN listed;
END $$;
COMMENT ON FUNCTION pgretrieve.input_list IS 'The scalars that a condition compares with, an array.';

CREATE FUNCTION pgretrieve.input_is_float(item jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT jsonb_typeof(item) = 'number' AND item::text LIKE '%.%' $$;
COMMENT ON FUNCTION pgretrieve.input_is_float IS 'Whether a number is written as one that is no integer, which tells 1.0 from 1 in Qdrant''s language.';

CREATE FUNCTION pgretrieve.input_keys(value jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT coalesce(jsonb_object_agg(
    CASE jsonb_typeof(l.item) WHEN 'number' THEN trim_scale(l.item::numeric)::text ELSE l.item::text END, 0), '{}')
FROM jsonb_array_elements(pgretrieve.input_list(value, true)) l (item) WHERE value IS NOT NULL $$;
COMMENT ON FUNCTION pgretrieve.input_keys IS 'The elements of a list as keys of an object.';

CREATE FUNCTION pgretrieve.input_exact_keys(value jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT coalesce(jsonb_object_agg(l.item::text, 0), '{}')
FROM jsonb_array_elements(pgretrieve.input_list(value, true)) l (item) WHERE NOT pgretrieve.input_is_float(l.item) $$;
COMMENT ON FUNCTION pgretrieve.input_exact_keys IS 'The same as Qdrant''s language compares them: numbers that are no integers are not among them.';

CREATE FUNCTION pgretrieve.input_part(value jsonb, which text, is_list boolean) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT coalesce(jsonb_agg(l.item ORDER BY l.n), '[]')
FROM jsonb_array_elements(pgretrieve.input_list(value, is_list)) WITH ORDINALITY l (item, n)
WHERE CASE which WHEN 'all' THEN true WHEN 'floats' THEN pgretrieve.input_is_float(l.item)
    WHEN 'integers' THEN jsonb_typeof(l.item) = 'number' AND NOT pgretrieve.input_is_float(l.item)
    ELSE jsonb_typeof(l.item) <> 'number' OR pgretrieve.input_is_float(l.item) END $$;
COMMENT ON FUNCTION pgretrieve.input_part IS 'Those that a condition compares with: all, integers, floats, or others than integers.';

CREATE FUNCTION pgretrieve.input_like(pattern text, flags text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT '@ like_regex ' || to_jsonb(pattern)::text || CASE flags WHEN '' THEN '' ELSE ' flag "' || flags || '"' END $$;
COMMENT ON FUNCTION pgretrieve.input_like IS 'A jsonpath''s test by a regular expression.';

CREATE FUNCTION pgretrieve.input_escaped(given text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT regexp_replace(given, '([][(){}?*+|^$\\.&~# \t\n\r\v\f-])', '\\\1', 'g') $$;
COMMENT ON FUNCTION pgretrieve.input_escaped IS 'A regular expression that finds this text.';

CREATE FUNCTION pgretrieve.input_among(listed jsonb, fold boolean) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT '@ == $v[*]' || coalesce(' || ' || pgretrieve.input_like(
    '^(?:' || string_agg(pgretrieve.input_escaped(l.item #>> '{}'), '|') || ')$', 'i'), '')
FROM jsonb_array_elements(listed) l (item) WHERE fold AND jsonb_typeof(l.item) = 'string' $$;
COMMENT ON FUNCTION pgretrieve.input_among IS 'A jsonpath''s test for one of these, texts in any case with fold.';

CREATE FUNCTION pgretrieve.input_test(value jsonb, operator text, fold boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    given text := value #>> '{}';
    kind text := pg_catalog.jsonb_typeof(value);
    flag text := CASE WHEN fold THEN 'i' ELSE '' END;
BEGIN
    IF value IS NULL THEN
        RETURN NULL;
    ELSIF operator IN ('starts_with', 'ends_with', 'text', 'regex') AND kind <> 'string' THEN
        PERFORM pgretrieve.input_refused(pg_catalog.format('`%s` needs a text.', operator));
    ELSIF operator = 'regex' AND pg_catalog.length(given) > 1000 THEN
        PERFORM pgretrieve.input_refused('`regex` needs a text of at most 1000 characters.');
    ELSIF operator IN ('gt', 'gte', 'lt', 'lte') AND kind NOT IN ('string', 'number') THEN
        PERFORM pgretrieve.input_refused(pg_catalog.format('`%s` needs a number or a text.', operator));
    END IF;
    RETURN CASE operator
        WHEN 'eq' THEN pgretrieve.input_among(pgretrieve.input_list(value, false), fold)
        WHEN 'ne' THEN pgretrieve.input_among(pgretrieve.input_list(value, false), fold)
        WHEN 'in' THEN pgretrieve.input_among(pgretrieve.input_list(value, true), fold)
        WHEN 'nin' THEN pgretrieve.input_among(pgretrieve.input_list(value, true), fold)
        WHEN 'contains' THEN '@ == $v' || CASE WHEN pgretrieve.input_list(value, false) IS NOT NULL AND kind = 'string'
            THEN ' || ' || pgretrieve.input_like(given, flag || 'q') ELSE '' END
        WHEN 'starts_with' THEN CASE WHEN fold THEN pgretrieve.input_like('^' || pgretrieve.input_escaped(given), flag)
            ELSE '@ starts with $v' END
        WHEN 'ends_with' THEN pgretrieve.input_like(pgretrieve.input_escaped(given) || '$', flag)
        WHEN 'text' THEN pgretrieve.input_like(given, 'iq')
        WHEN 'regex' THEN pgretrieve.input_like(given, flag)
        WHEN 'gt' THEN '@ > $v' WHEN 'gte' THEN '@ >= $v' WHEN 'lt' THEN '@ < $v' WHEN 'lte' THEN '@ <= $v'
    END;
END $$;
COMMENT ON FUNCTION pgretrieve.input_test IS 'A jsonpath''s test: what an operator of the first filter language asks.';

CREATE FUNCTION pgretrieve.input_keyed_test(value jsonb, operator text, fold boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    given text := value #>> '{}';
    flag text := CASE WHEN fold THEN 'i' ELSE '' END;
BEGIN
    IF value IS NULL THEN
        RETURN NULL;
    ELSIF operator = 'equals' THEN
        RETURN '$ ? (@.type() != "array" && ('
            || pgretrieve.input_among(pgretrieve.input_part(value, 'others', pg_catalog.jsonb_typeof(value) = 'array'), fold) || '))';
    ELSIF pg_catalog.jsonb_typeof(value) <> 'string' THEN
        PERFORM pgretrieve.input_refused(pg_catalog.format('`%s` needs a text.', operator));
    END IF;
    RETURN '$ ? (@.type() == "string" && (' || CASE operator
        WHEN 'prefix' THEN pgretrieve.input_like('^' || pgretrieve.input_escaped(given), flag)
        WHEN 'substring' THEN pgretrieve.input_like(given, flag || 'q') END || '))';
END $$;
COMMENT ON FUNCTION pgretrieve.input_keyed_test IS 'A jsonpath: what a condition of Qdrant''s language asks.';

CREATE FUNCTION pgretrieve.input_ids(value jsonb, is_list boolean) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT array_agg(l.item #>> '{}') FROM jsonb_array_elements(pgretrieve.input_list(value, is_list)) l (item)
WHERE jsonb_typeof(l.item) = 'string' $$;
COMMENT ON FUNCTION pgretrieve.input_ids IS 'The texts that an id is compared with.';

CREATE FUNCTION pgretrieve.input_certain(value jsonb, is_list boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT NOT EXISTS (SELECT FROM jsonb_array_elements(pgretrieve.input_list(value, is_list)) l (item) WHERE pgretrieve.input_is_float(l.item)) $$;
COMMENT ON FUNCTION pgretrieve.input_certain IS 'Whether the keys of an index say all that a condition asks.';

CREATE FUNCTION pgretrieve.input_payload_keys(value jsonb, language text, is_list boolean) RETURNS bytea[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT coalesce(array_agg(pgretrieve.payload_key(p.prefix, l.item)), '{}')
FROM jsonb_array_elements(pgretrieve.input_list(value, is_list)) l (item)
CROSS JOIN LATERAL (VALUES (''), (CASE WHEN pgretrieve.input_certain(value, is_list) THEN language ELSE 'A' END)) p (prefix) $$;
COMMENT ON FUNCTION pgretrieve.input_payload_keys IS 'The keys by which an index of a payload field finds these values.';

CREATE FUNCTION pgretrieve.input_number_bound(bounds jsonb, operator text) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT CASE WHEN count(*) FILTER (WHERE jsonb_typeof(b.pair -> 1) <> 'string') > 0 THEN
    CASE WHEN operator IN ('gt', 'gte') THEN coalesce(max(n.bound), '-Infinity') ELSE coalesce(min(n.bound), 'Infinity') END END
FROM jsonb_array_elements(bounds) b (pair)
CROSS JOIN LATERAL (SELECT CASE WHEN jsonb_typeof(b.pair -> 1) = 'number' AND b.pair ->> 0 = operator
    AND length(trim_scale((b.pair -> 1)::numeric)::text) <= 900 THEN trim_scale((b.pair -> 1)::numeric) END AS bound) n $$;
COMMENT ON FUNCTION pgretrieve.input_number_bound IS 'The tightest number among bounds of an operator; NULL where all are texts.';

CREATE FUNCTION pgretrieve.input_text_bound(bounds jsonb, operator text, dated boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    is_lower boolean := operator IN ('gt', 'gte');
    found text;
    day date;
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(bounds) b (pair) WHERE pg_catalog.jsonb_typeof(b.pair -> 1) IS DISTINCT FROM 'string') THEN
        RETURN NULL;
    END IF;
    SELECT CASE WHEN is_lower THEN max((b.pair ->> 1) COLLATE "C") ELSE min((b.pair ->> 1) COLLATE "C") END INTO found
    FROM pg_catalog.jsonb_array_elements(bounds) b (pair) WHERE b.pair ->> 0 = operator;
    IF dated THEN
        -- Texts that name an instant in any zone: their days differ from that of UTC by one at most.
        day := (pgretrieve.input_instant(pg_catalog.jsonb_build_object('at', found), 'at') AT TIME ZONE 'UTC')::date;
        RETURN pg_catalog.to_char(day + CASE WHEN is_lower THEN -1 ELSE 2 END, 'YYYY-MM-DD');
    END IF;
    RETURN CASE WHEN pg_catalog.length(found) <= 200 THEN found
        ELSE pg_catalog.left(found, 200) || CASE WHEN is_lower THEN '' ELSE pg_catalog.chr(1114111) END END;
END $$;
COMMENT ON FUNCTION pgretrieve.input_text_bound IS 'The tightest text among bounds of an operator, or one that is no tighter; NULL where one is a number.';

CREATE FUNCTION pgretrieve.input_bounds_certain(bounds jsonb, dated boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT CASE WHEN count(*) = count(*) FILTER (WHERE jsonb_typeof(b.pair -> 1) = 'string')
    THEN NOT dated AND coalesce(bool_and(length(b.pair ->> 1) <= 200), false)
    ELSE bool_and(jsonb_typeof(b.pair -> 1) = 'number' AND length(b.pair ->> 1) <= 900) END
FROM jsonb_array_elements(bounds) b (pair) $$;
COMMENT ON FUNCTION pgretrieve.input_bounds_certain IS 'Whether an index passes nothing but what these bounds do.';

CREATE FUNCTION pgretrieve.input_text(value jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF pg_catalog.jsonb_typeof(value) NOT IN ('string', 'null') THEN
        PERFORM pgretrieve.input_refused('A text is needed here.');
    END IF;
    RETURN value #>> '{}';
END $$;
COMMENT ON FUNCTION pgretrieve.input_text IS 'A JSON string as text.';

-- Queries.
CREATE FUNCTION pgretrieve.input_query(given text, required boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF given ~ '\S' THEN
        RETURN given;
    ELSIF required THEN
        PERFORM pgretrieve.input_refused('The query is empty; on_empty says what is done without one.');
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION pgretrieve.input_query IS 'What is searched for; NULL where that is empty and may be.';

CREATE FUNCTION pgretrieve.input_words(given text, required boolean, most integer) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    parts text[] := pg_catalog.string_to_array(pg_catalog.left(pgretrieve.input_query(given, required), most * 64), '"');
    words text := '';
    outside text := '';
    phrase text;
    phrases text[] := '{}';
    prefixes text[];
BEGIN
    FOR n IN 1 .. coalesce(pg_catalog.cardinality(parts), 0) LOOP
        IF n % 2 = 0 AND n < pg_catalog.cardinality(parts) THEN
            words := words || ' ' || pg_catalog.replace(parts[n], '*', ' ') || ' ';
            outside := outside || ' ';
            phrase := pg_catalog.array_to_string((pg_catalog.regexp_split_to_array(pg_catalog.regexp_replace(parts[n], '^\s+|\s+$', '', 'g'), '\s+'))[1:most], ' ');
            phrases := CASE WHEN phrase <> '' THEN phrases || phrase ELSE phrases END;
        ELSE
            -- The last quotation mark, where it has no partner.
            words := words || CASE WHEN n % 2 = 0 THEN '"' ELSE '' END || parts[n];
            outside := outside || CASE WHEN n % 2 = 0 THEN '"' ELSE '' END || parts[n];
        END IF;
    END LOOP;
    SELECT coalesce(array_agg(p.prefix ORDER BY p.n), '{}') INTO prefixes FROM (
        SELECT f.found[1] AS prefix, min(f.n) AS n
        FROM pg_catalog.regexp_matches(outside, '\y(\w+)\*', 'g') WITH ORDINALITY f (found, n) GROUP BY 1) p;
    words := pg_catalog.regexp_replace(words, '\y\w+\*', ' ', 'g');
    words := pg_catalog.array_to_string((pg_catalog.regexp_split_to_array(pg_catalog.regexp_replace(words, '^\s+|\s+$', '', 'g'), '\s+'))[1:most], ' ');
    RETURN pg_catalog.jsonb_build_object('words', words, 'phrases', phrases[1:most], 'prefixes', prefixes[1:most]);
END $$;
COMMENT ON FUNCTION pgretrieve.input_words IS 'A lexical query taken apart: words, "phrases" in quotation marks, prefixes (word*).';

CREATE FUNCTION pgretrieve.input_undirected(given vector) RETURNS vector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    PERFORM pgretrieve.input_refused('The query vector has no direction (its length is 0, or too large), so no cosine.');
    RETURN given;
END $$;
COMMENT ON FUNCTION pgretrieve.input_undirected IS 'Refuses a vector that has no direction.';

CREATE FUNCTION pgretrieve.input_vector(given vector, directed boolean) RETURNS vector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN directed AND cosine_distance(given, given) = 'NaN' THEN pgretrieve.input_undirected(given) ELSE given END;
COMMENT ON FUNCTION pgretrieve.input_vector IS 'A query vector that has a direction where the metric asks for one.';

CREATE FUNCTION pgretrieve.input_vectors(given vector[], directed boolean, most integer) RETURNS vector[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF pg_catalog.cardinality(given) NOT BETWEEN 1 AND most THEN
        PERFORM pgretrieve.input_refused(pg_catalog.format('A query has 1 to %s vectors.', most));
    END IF;
    FOR n IN 1 .. coalesce(pg_catalog.cardinality(given), 0) LOOP
        PERFORM pgretrieve.input_vector(given[n], directed);
    END LOOP;
    RETURN given;
END $$;
COMMENT ON FUNCTION pgretrieve.input_vectors IS 'The same for several.';
