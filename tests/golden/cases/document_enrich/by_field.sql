WITH s1_search_1 AS 
(SELECT nearest_1.document_id AS document_id, 1 - nearest_1.distance AS score 
FROM (SELECT d.document_id AS document_id, d.v <=> CAST(%(s1_query_1)s AS VECTOR(16)) AS distance 
FROM golden.documents AS d 
WHERE d.v IS NOT NULL ORDER BY (d.v <=> CAST(%(s1_query_1)s AS VECTOR(16))) + 0 
 LIMIT 6) AS nearest_1), 
s1_feature_search AS 
(SELECT s1_search_1.document_id AS document_id, s1_search_1.score AS score, row_number() OVER (ORDER BY s1_search_1.score DESC, s1_search_1.document_id) AS rank 
FROM s1_search_1 ORDER BY rank 
 LIMIT 25), 
s2_keys AS 
(SELECT s1_feature_search.rank AS rank, nullif(d.payload #> CAST(%(s2_source_field)s AS TEXT[]), 'null'::jsonb) AS key 
FROM s1_feature_search JOIN golden.documents AS d ON d.document_id = s1_feature_search.document_id), 
s2_matches AS 
(SELECT DISTINCT ON (nullif(target.payload #> CAST(%(s2_target_field)s AS TEXT[]), 'null'::jsonb)) nullif(target.payload #> CAST(%(s2_target_field)s AS TEXT[]), 'null'::jsonb) AS key, CASE WHEN (nullif(target.payload #> CAST(%(s2_merged_field)s AS TEXT[]), 'null'::jsonb) IS NOT NULL) THEN jsonb_build_object(CAST(%(s2_key)s AS TEXT), CASE WHEN (nullif(target.payload #> CAST(%(s2_merged_field)s AS TEXT[]), 'null'::jsonb) IS NOT NULL) THEN jsonb_build_object(CAST(%(s2_key_2)s AS TEXT), nullif(target.payload #> CAST(%(s2_merged_field)s AS TEXT[]), 'null'::jsonb)) ELSE '{}'::jsonb END) ELSE '{}'::jsonb END AS found 
FROM golden.documents AS target 
WHERE target.collection_id = CAST(%(s2_collection)s AS TEXT) AND nullif(target.payload #> CAST(%(s2_target_field)s AS TEXT[]), 'null'::jsonb) IN (SELECT s2_keys.key 
FROM s2_keys) ORDER BY nullif(target.payload #> CAST(%(s2_target_field)s AS TEXT[]), 'null'::jsonb), target.document_id), 
s2_document_enrich AS 
(SELECT s1_feature_search.document_id AS document_id, s1_feature_search.score AS score, s1_feature_search.rank AS rank, CASE WHEN (s2_matches.found IS NOT NULL) THEN d.payload || CASE WHEN ((s2_matches.found #> CAST(%(s2_found_field)s AS TEXT[])) IS NOT NULL) THEN jsonb_build_object(CAST(%(s2_key_3)s AS TEXT), CASE WHEN (jsonb_typeof(d.payload -> CAST(%(s2_key_3)s AS TEXT)) = 'object') THEN d.payload -> CAST(%(s2_key_3)s AS TEXT) ELSE '{}'::jsonb END || CASE WHEN ((s2_matches.found #> CAST(%(s2_found_field)s AS TEXT[])) IS NOT NULL) THEN jsonb_build_object(CAST(%(s2_key_4)s AS TEXT), s2_matches.found #> CAST(%(s2_found_field)s AS TEXT[])) ELSE '{}'::jsonb END) ELSE '{}'::jsonb END ELSE d.payload END AS fields 
FROM s1_feature_search JOIN golden.documents AS d ON d.document_id = s1_feature_search.document_id LEFT OUTER JOIN s2_keys ON s2_keys.rank = s1_feature_search.rank LEFT OUTER JOIN s2_matches ON s2_matches.key = s2_keys.key 
WHERE s2_keys.rank IS NULL OR s2_matches.found IS NOT NULL), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_feature_search), (SELECT count(*) AS count_2 
FROM s2_document_enrich)] AS counts, CAST(jsonb_build_array(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('search', 1, 'returned', (SELECT count(*) AS count_3 
FROM s1_search_1)))), (SELECT to_jsonb(count(*)) AS to_jsonb_1 
FROM s2_keys JOIN s2_matches ON s2_matches.key = s2_keys.key)) AS TEXT) AS told), 
page AS 
(SELECT s2_document_enrich.document_id AS document_id, s2_document_enrich.score AS score, s2_document_enrich.rank AS rank, s2_document_enrich.fields AS fields 
FROM s2_document_enrich ORDER BY s2_document_enrich.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(page.fields AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
