WITH s1_search_1 AS 
(SELECT nearest_1.document_id AS document_id, 1 - nearest_1.distance AS score 
FROM (SELECT d.document_id AS document_id, d.v <=> CAST(%(s1_query_1)s AS VECTOR(16)) AS distance 
FROM golden.documents AS d 
WHERE d.v IS NOT NULL ORDER BY (d.v <=> CAST(%(s1_query_1)s AS VECTOR(16))) + 0 
 LIMIT 2) AS nearest_1), 
s1_feature_search AS 
(SELECT s1_search_1.document_id AS document_id, s1_search_1.score AS score, row_number() OVER (ORDER BY s1_search_1.score DESC, s1_search_1.document_id) AS rank 
FROM s1_search_1 ORDER BY rank 
 LIMIT 25), 
s2_taken AS 
(SELECT s1_feature_search.document_id AS document_id, s1_feature_search.score AS score, s1_feature_search.rank AS rank, CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s2_field)s AS TEXT[]), 'null'::jsonb)) = 'array' AND nullif(d.payload #> CAST(%(s2_field)s AS TEXT[]), 'null'::jsonb) != '[]'::jsonb) THEN d.payload #- CAST(%(s2_field_2)s AS TEXT[]) ELSE d.payload END AS fields, nullif(d.payload #> CAST(%(s2_field)s AS TEXT[]), 'null'::jsonb) AS value, jsonb_typeof(nullif(d.payload #> CAST(%(s2_field)s AS TEXT[]), 'null'::jsonb)) AS kind 
FROM s1_feature_search JOIN golden.documents AS d ON d.document_id = s1_feature_search.document_id), 
s2_elements AS 
(SELECT s2_taken.rank AS rank, anon_1.element AS element, CASE WHEN (s2_taken.kind = 'array') THEN anon_1.number - 1 END AS index, row_number() OVER (ORDER BY s2_taken.rank, anon_1.number) AS place 
FROM s2_taken JOIN jsonb_array_elements(CASE WHEN (s2_taken.kind = 'array') THEN s2_taken.value ELSE CASE WHEN (s2_taken.value IS NOT NULL) THEN jsonb_build_array(s2_taken.value) END END) WITH ORDINALITY AS anon_1(element, number) ON true ORDER BY place 
 LIMIT 10001), 
s2_unwind AS 
(SELECT s2_taken.document_id AS document_id, s2_taken.score AS score, s2_elements.place AS rank, s2_taken.fields || jsonb_build_object(CAST(%(s2_output)s AS TEXT), s2_elements.element) AS fields 
FROM s2_taken JOIN golden.documents AS d ON d.document_id = s2_taken.document_id JOIN s2_elements ON s2_elements.rank = s2_taken.rank 
WHERE s2_elements.place <= 10000), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_feature_search), (SELECT count(*) AS count_2 
FROM s2_unwind)] AS counts, CAST(jsonb_build_array(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('search', 1, 'returned', (SELECT count(*) AS count_3 
FROM s1_search_1)))), (SELECT to_jsonb(count(*) > 10000) AS to_jsonb_1 
FROM s2_elements)) AS TEXT) AS told), 
page AS 
(SELECT s2_unwind.document_id AS document_id, s2_unwind.score AS score, s2_unwind.rank AS rank, s2_unwind.fields AS fields 
FROM s2_unwind ORDER BY s2_unwind.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(page.fields AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
