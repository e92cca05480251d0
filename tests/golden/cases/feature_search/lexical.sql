WITH s1_lexical_1_fields AS MATERIALIZED 
(SELECT given.field AS field, given.path AS path, CAST(given.language AS REGCONFIG) AS config, given.min_length AS min_length, given.max_length AS max_length 
FROM jsonb_to_recordset(CAST(%(s1_lexical_1_fields)s AS JSONB)) AS given(field SMALLINT, path JSONPATH, language TEXT, min_length INTEGER, max_length INTEGER)), 
s1_lexical_1_terms AS MATERIALIZED 
(SELECT row_number() OVER () AS term, "both".field AS field, "both".lexeme COLLATE "C" AS lexeme, "both".beyond COLLATE "C" AS beyond, "both".times AS times 
FROM (SELECT s1_lexical_1_fields.field AS field, words.lexeme AS lexeme, NULL::text AS beyond, cardinality(words.positions) AS times 
FROM s1_lexical_1_fields JOIN unnest(to_tsvector(s1_lexical_1_fields.config, CAST(%(s1_lexical_1)s AS JSONB) ->> 'words')) AS words(lexeme, positions, weights) ON true UNION ALL SELECT s1_lexical_1_fields.field AS field, coalesce(nullif(array_to_string(tsvector_to_array(to_tsvector(s1_lexical_1_fields.config, prefixes.text)), ''), ''), lower(prefixes.text)) AS coalesce_1, coalesce(nullif(array_to_string(tsvector_to_array(to_tsvector(s1_lexical_1_fields.config, prefixes.text)), ''), ''), lower(prefixes.text)) || chr(1114111) AS anon_1, 1 
FROM s1_lexical_1_fields JOIN jsonb_array_elements_text(CAST(%(s1_lexical_1)s AS JSONB) -> 'prefixes') AS prefixes(text) ON true) AS "both"), 
s1_lexical_1_groups AS MATERIALIZED 
(SELECT every.term AS term, every.frequency AS frequency, every.length AS length, every.change AS change, every.numbers AS numbers 
FROM (SELECT s1_lexical_1_terms.term AS term, found_0.frequency AS frequency, found_0.length AS length, found_0.change AS change, found_0.numbers AS numbers 
FROM s1_lexical_1_terms JOIN LATERAL (SELECT p0.frequency AS frequency, p0.length AS length, p0.change AS change, p0.numbers AS numbers 
FROM golden.lexical_postings AS p0 
WHERE p0.field = s1_lexical_1_terms.field AND p0.lexeme = s1_lexical_1_terms.lexeme
 LIMIT ALL OFFSET 0) AS found_0 ON true 
WHERE s1_lexical_1_terms.beyond IS NULL UNION ALL SELECT s1_lexical_1_terms.term AS term, found_1.frequency AS frequency, found_1.length AS length, found_1.change AS change, found_1.numbers AS numbers 
FROM s1_lexical_1_terms JOIN LATERAL (SELECT p1.frequency AS frequency, p1.length AS length, p1.change AS change, p1.numbers AS numbers 
FROM golden.lexical_postings AS p1 
WHERE p1.field = s1_lexical_1_terms.field AND p1.lexeme >= s1_lexical_1_terms.lexeme AND p1.lexeme < s1_lexical_1_terms.beyond
 LIMIT ALL OFFSET 0) AS found_1 ON true 
WHERE s1_lexical_1_terms.beyond IS NOT NULL) AS every), 
s1_lexical_1_rarity AS MATERIALIZED 
(SELECT frequencies.term AS term, s1_lexical_1_terms.times * ln(1 + ((totals.documents - least(CAST(frequencies.df AS DOUBLE PRECISION), totals.documents)) + CAST(0.5 AS DOUBLE PRECISION)) / CAST((least(CAST(frequencies.df AS DOUBLE PRECISION), totals.documents) + CAST(0.5 AS DOUBLE PRECISION)) AS DOUBLE PRECISION)) AS weight, totals.mean AS mean 
FROM (SELECT s1_lexical_1_groups.term AS term, sum(s1_lexical_1_groups.change * cardinality(s1_lexical_1_groups.numbers)) AS df 
FROM s1_lexical_1_groups GROUP BY s1_lexical_1_groups.term) AS frequencies JOIN s1_lexical_1_terms ON s1_lexical_1_terms.term = frequencies.term JOIN (SELECT golden.lexical_totals.field AS field, CAST(sum(golden.lexical_totals.documents) AS DOUBLE PRECISION) AS documents, CAST(sum(golden.lexical_totals.lexemes) AS DOUBLE PRECISION) / CAST(nullif(CAST(sum(golden.lexical_totals.documents) AS DOUBLE PRECISION), 0) AS DOUBLE PRECISION) AS mean 
FROM golden.lexical_totals GROUP BY golden.lexical_totals.field) AS totals ON totals.field = s1_lexical_1_terms.field), 
s1_lexical_1_weighed AS MATERIALIZED 
(SELECT s1_lexical_1_groups.change * ((s1_lexical_1_rarity.weight * s1_lexical_1_groups.frequency) / CAST((s1_lexical_1_groups.frequency + CAST(0.3 AS DOUBLE PRECISION) + (CAST(0.8999999999999999 AS DOUBLE PRECISION) * s1_lexical_1_groups.length) / CAST(s1_lexical_1_rarity.mean AS DOUBLE PRECISION)) AS DOUBLE PRECISION)) AS weight, s1_lexical_1_groups.numbers AS numbers 
FROM s1_lexical_1_groups JOIN s1_lexical_1_rarity ON s1_lexical_1_rarity.term = s1_lexical_1_groups.term), 
s1_lexical_1_phrases AS MATERIALIZED 
(SELECT given.phrase AS phrase, s1_lexical_1_fields.field AS field, phraseto_tsquery(s1_lexical_1_fields.config, given.text) AS query 
FROM s1_lexical_1_fields JOIN jsonb_array_elements_text(CAST(%(s1_lexical_1)s AS JSONB) -> 'phrases') WITH ORDINALITY AS given(text, phrase) ON true 
WHERE numnode(phraseto_tsquery(s1_lexical_1_fields.config, given.text)) > 0), 
s1_search_1 AS 
(SELECT best.document_id AS document_id, best.score AS score 
FROM (SELECT found.document_id AS document_id, ranked.score AS score 
FROM (SELECT scored.number AS number, scored.score AS score 
FROM (SELECT each.number AS number, sum(each.weight) AS score 
FROM (SELECT s1_lexical_1_weighed.weight AS weight, unnest(s1_lexical_1_weighed.numbers) AS number 
FROM s1_lexical_1_weighed
 LIMIT ALL OFFSET 0) AS each GROUP BY each.number) AS scored ORDER BY scored.score DESC) AS ranked JOIN LATERAL (SELECT golden.lexical_documents.document_id AS document_id 
FROM golden.lexical_documents JOIN golden.documents AS d ON d.document_id = golden.lexical_documents.document_id 
WHERE golden.lexical_documents.number = ranked.number AND NOT (EXISTS (SELECT 1 
FROM s1_lexical_1_phrases AS wanted 
WHERE NOT (EXISTS (SELECT 1 
FROM s1_lexical_1_phrases JOIN golden.lexical_documents AS w ON w.number = ranked.number AND w.field = s1_lexical_1_phrases.field AND (w.words @@ s1_lexical_1_phrases.query) 
WHERE s1_lexical_1_phrases.phrase = wanted.phrase)))) AND coalesce(jsonb_path_exists(d.payload -> CAST(%(s1_filter_1_key)s AS TEXT), CAST(%(s1_filter_1_path)s AS JSONPATH), CAST(%(s1_filter_1_value)s AS JSONB), true), false) 
 LIMIT 1) AS found ON true ORDER BY ranked.score DESC
 FETCH FIRST (3) ROWS WITH TIES) AS best ORDER BY best.score DESC, best.document_id 
 LIMIT 3), 
s1_feature_search AS 
(SELECT s1_search_1.document_id AS document_id, s1_search_1.score AS score, row_number() OVER (ORDER BY s1_search_1.score DESC, s1_search_1.document_id) AS rank 
FROM s1_search_1 ORDER BY rank 
 LIMIT 3), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_feature_search)] AS counts, CAST(jsonb_build_array(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('search', 1, 'returned', (SELECT count(*) AS count_2 
FROM s1_search_1))))) AS TEXT) AS told), 
page AS 
(SELECT s1_feature_search.document_id AS document_id, s1_feature_search.score AS score, s1_feature_search.rank AS rank 
FROM s1_feature_search ORDER BY s1_feature_search.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(NULL AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
