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
s2_attribute_filter AS 
(SELECT s1_feature_search.document_id AS document_id, s1_feature_search.score AS score, s1_feature_search.rank AS rank 
FROM s1_feature_search JOIN golden.documents AS d ON d.document_id = s1_feature_search.document_id 
WHERE coalesce(jsonb_path_exists(d.payload, CAST(%(s2_filter_path)s AS JSONPATH), CAST(%(s2_filter_value)s AS JSONB), true), false) OR coalesce(jsonb_path_exists(d.payload, CAST(%(s2_filter_path_2)s AS JSONPATH), '{}'::jsonb, true), false)), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_feature_search), (SELECT count(*) AS count_2 
FROM s2_attribute_filter)] AS counts, CAST(jsonb_build_array(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('search', 1, 'returned', (SELECT count(*) AS count_3 
FROM s1_search_1))))) AS TEXT) AS told), 
page AS 
(SELECT s2_attribute_filter.document_id AS document_id, s2_attribute_filter.score AS score, s2_attribute_filter.rank AS rank 
FROM s2_attribute_filter ORDER BY s2_attribute_filter.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(NULL AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
