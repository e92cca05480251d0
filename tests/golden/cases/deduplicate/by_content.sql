WITH RECURSIVE s1_search_1 AS 
(SELECT nearest_1.document_id AS document_id, 1 - nearest_1.distance AS score 
FROM (SELECT d.document_id AS document_id, d.v <=> CAST(%(s1_query_1)s AS VECTOR(16)) AS distance 
FROM golden.documents AS d 
WHERE d.v IS NOT NULL ORDER BY (d.v <=> CAST(%(s1_query_1)s AS VECTOR(16))) + 0 
 LIMIT 8) AS nearest_1), 
s1_feature_search AS 
(SELECT s1_search_1.document_id AS document_id, s1_search_1.score AS score, row_number() OVER (ORDER BY s1_search_1.score DESC, s1_search_1.document_id) AS rank 
FROM s1_search_1 ORDER BY rank 
 LIMIT 25), 
s2_best AS 
(SELECT s1_feature_search.rank AS rank, CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s2_content_field)s AS TEXT[]), 'null'::jsonb)) = 'string') THEN left(nullif(d.payload #> CAST(%(s2_content_field)s AS TEXT[]), 'null'::jsonb) #>> '{}'::text[], 10000) END AS text 
FROM s1_feature_search JOIN golden.documents AS d ON d.document_id = s1_feature_search.document_id ORDER BY s1_feature_search.rank 
 LIMIT 500), 
s2_texts AS 
(SELECT s2_best.rank AS rank, s2_best.text AS text, row_number() OVER (ORDER BY s2_best.rank DESC) AS n 
FROM s2_best), 
s2_words AS 
(SELECT DISTINCT s2_texts.n AS n, anon_2.words[1] AS word 
FROM s2_texts JOIN regexp_matches(s2_texts.text, '[[:alnum:]]+', 'g') AS anon_2(words) ON true), 
s2_uses AS 
(SELECT s2_words.n AS n, s2_words.word AS word, count(*) OVER (PARTITION BY s2_words.n) AS size, count(*) OVER (PARTITION BY s2_words.word) AS uses 
FROM s2_words), 
s2_numbers AS 
(SELECT s2_uses.n AS n, s2_uses.size AS size, CAST(dense_rank() OVER (ORDER BY s2_uses.word) AS INTEGER) AS number 
FROM s2_uses 
WHERE s2_uses.uses > 1), 
s2_sets AS 
(SELECT words_of.n AS n, words_of.size AS size, bit_or(set_bit((SELECT CAST(repeat('0', max(s2_numbers.number)) AS BIT VARYING) AS repeat_1 
FROM s2_numbers), words_of.number - 1, 1)) AS shared 
FROM s2_numbers AS words_of GROUP BY words_of.n, words_of.size), 
s2_repeats AS MATERIALIZED 
(SELECT b.n AS later, array_agg(a.n ORDER BY a.n) AS earlier, row_number() OVER (ORDER BY b.n) AS step 
FROM s2_sets AS b, s2_sets AS a 
WHERE a.n < b.n AND bit_count(a.shared & b.shared) >= CAST(%(s2_similarity_threshold)s AS NUMERIC) * ((a.size + b.size) - bit_count(a.shared & b.shared)) GROUP BY b.n), 
s2_walk(step, dropped) AS 
(SELECT CAST(0 AS BIGINT) AS step, '{}'::bigint[] AS dropped UNION ALL SELECT s2_repeats.step AS step, CASE WHEN (s2_repeats.earlier <@ s2_walk.dropped) THEN s2_walk.dropped ELSE array_append(s2_walk.dropped, s2_repeats.later) END AS anon_1 
FROM s2_walk JOIN s2_repeats ON s2_repeats.step = s2_walk.step + 1), 
s2_deduplicate AS 
(SELECT s1_feature_search.document_id AS document_id, s1_feature_search.score AS score, s1_feature_search.rank AS rank 
FROM s1_feature_search 
WHERE (s1_feature_search.rank NOT IN (SELECT s2_texts.rank 
FROM s2_texts 
WHERE s2_texts.n = ANY (CAST((SELECT s2_walk.dropped 
FROM s2_walk ORDER BY s2_walk.step DESC 
 LIMIT 1) AS BIGINT[]))))), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_feature_search), (SELECT count(*) AS count_2 
FROM s2_deduplicate)] AS counts, CAST(jsonb_build_array(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('search', 1, 'returned', (SELECT count(*) AS count_3 
FROM s1_search_1)))), (SELECT to_jsonb(greatest(count(*) - 500, 0)) AS to_jsonb_1 
FROM s1_feature_search)) AS TEXT) AS told), 
page AS 
(SELECT s2_deduplicate.document_id AS document_id, s2_deduplicate.score AS score, s2_deduplicate.rank AS rank 
FROM s2_deduplicate ORDER BY s2_deduplicate.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(NULL AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
