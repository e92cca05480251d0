WITH s1_search_1 AS 
(SELECT nearest_1.document_id AS document_id, 1 - nearest_1.distance AS score 
FROM (SELECT d.document_id AS document_id, d.v <=> CAST(%(s1_query_1)s AS VECTOR(16)) AS distance 
FROM golden.documents AS d 
WHERE d.v IS NOT NULL ORDER BY (d.v <=> CAST(%(s1_query_1)s AS VECTOR(16))) + 0 
 LIMIT 8) AS nearest_1), 
s1_feature_search AS 
(SELECT s1_search_1.document_id AS document_id, s1_search_1.score AS score, row_number() OVER (ORDER BY s1_search_1.score DESC, s1_search_1.document_id) AS rank 
FROM s1_search_1 ORDER BY rank 
 LIMIT 25), 
s2_keys AS 
(SELECT s1_feature_search.rank AS rank, nullif(s1_feature_search.score, 'NaN'::float8) AS score, nullif(d.payload #> CAST(%(s2_group_by_field)s AS TEXT[]), 'null'::jsonb) AS key 
FROM s1_feature_search JOIN golden.documents AS d ON d.document_id = s1_feature_search.document_id), 
s2_places AS 
(SELECT s2_keys.rank AS rank, s2_keys.key AS key, min(s2_keys.rank) OVER (PARTITION BY s2_keys.key) AS "group", count(*) OVER (PARTITION BY s2_keys.key) AS size, row_number() OVER (PARTITION BY s2_keys.key ORDER BY s2_keys.score DESC NULLS LAST, s2_keys.rank) AS place 
FROM s2_keys), 
s2_groups AS 
(SELECT s2_places."group" AS "group", jsonb_agg(d.payload || jsonb_strip_nulls(jsonb_build_object('document_id', s1_feature_search.document_id, 'collection_id', d.collection_id, 'score', s1_feature_search.score)) ORDER BY s2_places.place) AS documents 
FROM s1_feature_search JOIN golden.documents AS d ON d.document_id = s1_feature_search.document_id JOIN s2_places ON s2_places.rank = s1_feature_search.rank 
WHERE s2_places.place <= 3 GROUP BY s2_places."group"), 
s2_group_by AS 
(SELECT s1_feature_search.document_id AS document_id, s1_feature_search.score AS score, s2_places."group" AS rank, ((d.payload || jsonb_build_object(CAST(%(s2_output)s AS TEXT), s2_places.key)) || jsonb_build_object(CAST(%(s2_output_2)s AS TEXT), to_jsonb(s2_places.size))) || jsonb_build_object(CAST(%(s2_output_3)s AS TEXT), s2_groups.documents) AS fields 
FROM s1_feature_search JOIN golden.documents AS d ON d.document_id = s1_feature_search.document_id JOIN s2_places ON s2_places.rank = s1_feature_search.rank JOIN s2_groups ON s2_groups."group" = s2_places."group" 
WHERE s2_places.place = 1), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_feature_search), (SELECT count(*) AS count_2 
FROM s2_group_by)] AS counts, CAST(jsonb_build_array(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('search', 1, 'returned', (SELECT count(*) AS count_3 
FROM s1_search_1)))), (SELECT to_jsonb(count(*)) AS to_jsonb_1 
FROM s2_places 
WHERE s2_places.place = 1), (SELECT to_jsonb(count(*)) AS to_jsonb_1 
FROM s2_places)) AS TEXT) AS told), 
page AS 
(SELECT s2_group_by.document_id AS document_id, s2_group_by.score AS score, s2_group_by.rank AS rank, s2_group_by.fields AS fields 
FROM s2_group_by ORDER BY s2_group_by.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(page.fields AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
