DO $$
DECLARE
    place record;
BEGIN
    -- The functions of retrievers go with what they are made of.
    FOR place IN
        SELECT n.schema_name, f.function_name FROM pgretrieve.retriever_functions f JOIN pgretrieve.namespaces n USING (namespace_id)
    LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS %I.%I', place.schema_name, place.function_name);
    END LOOP;
END $$;
DROP FUNCTION pgretrieve.input_vectors;
DROP FUNCTION pgretrieve.input_vector;
DROP FUNCTION pgretrieve.input_undirected;
DROP FUNCTION pgretrieve.input_words;
DROP FUNCTION pgretrieve.input_query;
DROP FUNCTION pgretrieve.input_text;
DROP FUNCTION pgretrieve.input_bounds_certain;
DROP FUNCTION pgretrieve.input_text_bound;
DROP FUNCTION pgretrieve.input_number_bound;
DROP FUNCTION pgretrieve.input_payload_keys;
DROP FUNCTION pgretrieve.input_certain;
DROP FUNCTION pgretrieve.input_ids;
DROP FUNCTION pgretrieve.input_keyed_test;
DROP FUNCTION pgretrieve.input_test;
DROP FUNCTION pgretrieve.input_among;
DROP FUNCTION pgretrieve.input_escaped;
DROP FUNCTION pgretrieve.input_like;
DROP FUNCTION pgretrieve.input_part;
DROP FUNCTION pgretrieve.input_exact_keys;
DROP FUNCTION pgretrieve.input_keys;
DROP FUNCTION pgretrieve.input_is_float;
DROP FUNCTION pgretrieve.input_list;
DROP FUNCTION pgretrieve.input_count;
DROP FUNCTION pgretrieve.input_instant;
DROP FUNCTION pgretrieve.input_seed;
DROP FUNCTION pgretrieve.input_number;
DROP FUNCTION pgretrieve.input_flag;
DROP FUNCTION pgretrieve.input_all_given;
DROP FUNCTION pgretrieve.input_strategy;
DROP FUNCTION pgretrieve.input_kind;
DROP FUNCTION pgretrieve.input_allowed;
DROP FUNCTION pgretrieve.input_needed;
DROP FUNCTION pgretrieve.input_refused;
DROP TABLE pgretrieve.retriever_functions;
