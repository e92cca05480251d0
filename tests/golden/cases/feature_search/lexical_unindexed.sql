WITH s1_lexical_1_fields AS MATERIALIZED 
(SELECT given.field AS field, given.path AS path, CAST(given.language AS REGCONFIG) AS config, given.min_length AS min_length, given.max_length AS max_length 
FROM jsonb_to_recordset(CAST(%(s1_lexical_1_fields)s AS JSONB)) AS given(field SMALLINT, path JSONPATH, language TEXT, min_length INTEGER, max_length INTEGER)), 
s1_lexical_1_texts AS MATERIALIZED 
(SELECT read.document_id AS document_id, read.field AS field, read.path AS path, read.config AS config, read.min_length AS min_length, read.max_length AS max_length, read.words AS words, l.length AS length 
FROM (SELECT d.document_id AS document_id, s1_lexical_1_fields.field AS field, s1_lexical_1_fields.path AS path, s1_lexical_1_fields.config AS config, s1_lexical_1_fields.min_length AS min_length, s1_lexical_1_fields.max_length AS max_length, pgretrieve.lexical_words(s1_lexical_1_fields.config, d.payload, s1_lexical_1_fields.path) AS words 
FROM golden.documents AS d JOIN s1_lexical_1_fields ON true
 LIMIT ALL OFFSET 0) AS read JOIN LATERAL (SELECT sum(cardinality(each.positions)) AS length 
FROM unnest(read.words) AS each(lexeme, positions, weights) 
WHERE length(each.lexeme) BETWEEN read.min_length AND read.max_length) AS l ON true 
WHERE l.length > 0), 
s1_lexical_1_terms AS MATERIALIZED 
(SELECT row_number() OVER () AS term, "both".field AS field, "both".lexeme COLLATE "C" AS lexeme, "both".beyond COLLATE "C" AS beyond, "both".times AS times 
FROM (SELECT s1_lexical_1_fields.field AS field, words.lexeme AS lexeme, NULL::text AS beyond, cardinality(words.positions) AS times 
FROM s1_lexical_1_fields JOIN unnest(to_tsvector(s1_lexical_1_fields.config, CAST(%(s1_lexical_1)s AS JSONB) ->> 'words')) AS words(lexeme, positions, weights) ON true UNION ALL SELECT s1_lexical_1_fields.field AS field, coalesce(nullif(array_to_string(tsvector_to_array(to_tsvector(s1_lexical_1_fields.config, prefixes.text)), ''), ''), lower(prefixes.text)) AS coalesce_1, coalesce(nullif(array_to_string(tsvector_to_array(to_tsvector(s1_lexical_1_fields.config, prefixes.text)), ''), ''), lower(prefixes.text)) || chr(1114111) AS anon_1, 1 
FROM s1_lexical_1_fields JOIN jsonb_array_elements_text(CAST(%(s1_lexical_1)s AS JSONB) -> 'prefixes') AS prefixes(text) ON true) AS "both"), 
s1_lexical_1_hits AS MATERIALIZED 
(SELECT s1_lexical_1_terms.term AS term, s1_lexical_1_texts.document_id AS document_id, s1_lexical_1_texts.length AS length, cardinality(found.positions) AS frequency 
FROM s1_lexical_1_texts JOIN unnest(s1_lexical_1_texts.words) AS found(lexeme, positions, weights) ON true JOIN s1_lexical_1_terms ON s1_lexical_1_terms.field = s1_lexical_1_texts.field AND CASE WHEN (s1_lexical_1_terms.beyond IS NULL) THEN (found.lexeme COLLATE "C") = s1_lexical_1_terms.lexeme ELSE (found.lexeme COLLATE "C") >= s1_lexical_1_terms.lexeme AND (found.lexeme COLLATE "C") < s1_lexical_1_terms.beyond END AND length(found.lexeme COLLATE "C") BETWEEN s1_lexical_1_texts.min_length AND s1_lexical_1_texts.max_length), 
s1_lexical_1_rarity AS MATERIALIZED 
(SELECT frequencies.term AS term, s1_lexical_1_terms.times * ln(1 + ((totals.documents - least(CAST(frequencies.df AS DOUBLE PRECISION), totals.documents)) + CAST(0.5 AS DOUBLE PRECISION)) / CAST((least(CAST(frequencies.df AS DOUBLE PRECISION), totals.documents) + CAST(0.5 AS DOUBLE PRECISION)) AS DOUBLE PRECISION)) AS weight, totals.mean AS mean 
FROM (SELECT s1_lexical_1_hits.term AS term, count(*) AS df 
FROM s1_lexical_1_hits GROUP BY s1_lexical_1_hits.term) AS frequencies JOIN s1_lexical_1_terms ON s1_lexical_1_terms.term = frequencies.term JOIN (SELECT s1_lexical_1_texts.field AS field, CAST(count(*) AS DOUBLE PRECISION) AS documents, CAST(avg(s1_lexical_1_texts.length) AS DOUBLE PRECISION) AS mean 
FROM s1_lexical_1_texts GROUP BY s1_lexical_1_texts.field) AS totals ON totals.field = s1_lexical_1_terms.field), 
s1_lexical_1_phrases AS MATERIALIZED 
(SELECT given.phrase AS phrase, s1_lexical_1_fields.field AS field, phraseto_tsquery(s1_lexical_1_fields.config, given.text) AS query 
FROM s1_lexical_1_fields JOIN jsonb_array_elements_text(CAST(%(s1_lexical_1)s AS JSONB) -> 'phrases') WITH ORDINALITY AS given(text, phrase) ON true 
WHERE numnode(phraseto_tsquery(s1_lexical_1_fields.config, given.text)) > 0), 
s1_search_1 AS 
(SELECT best.document_id AS document_id, best.score AS score 
FROM (SELECT found.document_id AS document_id, ranked.score AS score 
FROM (SELECT scored.document_id AS document_id, scored.score AS score 
FROM (SELECT s1_lexical_1_hits.document_id AS document_id, sum((s1_lexical_1_rarity.weight * s1_lexical_1_hits.frequency) / CAST((s1_lexical_1_hits.frequency + CAST(0.3 AS DOUBLE PRECISION) + (CAST(0.8999999999999999 AS DOUBLE PRECISION) * s1_lexical_1_hits.length) / CAST(s1_lexical_1_rarity.mean AS DOUBLE PRECISION)) AS DOUBLE PRECISION)) AS score 
FROM s1_lexical_1_hits JOIN s1_lexical_1_rarity ON s1_lexical_1_rarity.term = s1_lexical_1_hits.term GROUP BY s1_lexical_1_hits.document_id) AS scored ORDER BY scored.score DESC) AS ranked JOIN LATERAL (SELECT d.document_id AS document_id 
FROM golden.documents AS d 
WHERE d.document_id = ranked.document_id AND NOT (EXISTS (SELECT 1 
FROM s1_lexical_1_phrases AS wanted 
WHERE NOT (EXISTS (SELECT 1 
FROM s1_lexical_1_phrases JOIN s1_lexical_1_texts ON s1_lexical_1_texts.document_id = ranked.document_id AND s1_lexical_1_texts.field = s1_lexical_1_phrases.field AND (s1_lexical_1_texts.words @@ s1_lexical_1_phrases.query) 
WHERE s1_lexical_1_phrases.phrase = wanted.phrase)))) 
 LIMIT 1) AS found ON true 
WHERE ranked.score >= CAST(%(s1_lexical_1_min_score)s AS DOUBLE PRECISION) ORDER BY ranked.score DESC
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
