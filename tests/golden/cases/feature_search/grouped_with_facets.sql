WITH s1_search_1 AS 
(SELECT nearest_1.document_id AS document_id, 1 - nearest_1.distance AS score 
FROM (SELECT d.document_id AS document_id, d.v <=> CAST(%(s1_query_1)s AS VECTOR(16)) AS distance 
FROM golden.documents AS d 
WHERE d.v IS NOT NULL ORDER BY (d.v <=> CAST(%(s1_query_1)s AS VECTOR(16))) + 0 
 LIMIT 100) AS nearest_1), 
s1_found AS 
(SELECT s1_search_1.document_id AS document_id, s1_search_1.score AS score, row_number() OVER (ORDER BY s1_search_1.score DESC, s1_search_1.document_id) AS rank 
FROM s1_search_1 ORDER BY rank), 
s1_keys AS 
(SELECT s1_found.rank AS rank, nullif(s1_found.score, 'NaN'::float8) AS score, nullif(d.payload #> CAST(%(s1_group_by_field)s AS TEXT[]), 'null'::jsonb) AS key 
FROM s1_found JOIN golden.documents AS d ON d.document_id = s1_found.document_id), 
s1_places AS 
(SELECT s1_keys.rank AS rank, s1_keys.key AS key, min(s1_keys.rank) OVER (PARTITION BY s1_keys.key) AS "group", count(*) OVER (PARTITION BY s1_keys.key) AS size, row_number() OVER (PARTITION BY s1_keys.key ORDER BY s1_keys.score DESC NULLS LAST, s1_keys.rank) AS place 
FROM s1_keys), 
s1_feature_search AS 
(SELECT s1_found.document_id AS document_id, s1_found.score AS score, row_number() OVER (ORDER BY s1_places."group", s1_places.place) AS rank 
FROM s1_found JOIN s1_places ON s1_places.rank = s1_found.rank 
WHERE s1_places.place <= 2 AND s1_places."group" IN (SELECT s1_places."group" 
FROM s1_places 
WHERE s1_places.place = 1 ORDER BY s1_places."group" 
 LIMIT 2)), 
s1_matching AS 
(SELECT nullif(d.payload #> CAST(%(s1_facet_1)s AS TEXT[]), 'null'::jsonb) AS facet_1 
FROM golden.documents AS d 
WHERE d.v IS NOT NULL), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_feature_search)] AS counts, CAST(jsonb_build_array(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('search', 1, 'returned', (SELECT count(*) AS count_2 
FROM s1_search_1)))), jsonb_build_array(jsonb_build_object('key', CAST(%(s1_facet_1_key)s AS TEXT), 'values', (SELECT coalesce(jsonb_agg(jsonb_build_object('value', best.value, 'count', best.count) ORDER BY best.count DESC, best.value), '[]'::jsonb) AS coalesce_1 
FROM (SELECT once.value AS value, count(*) AS count 
FROM s1_matching JOIN LATERAL (SELECT DISTINCT each.value AS value 
FROM jsonb_array_elements(CASE WHEN (jsonb_typeof(s1_matching.facet_1) = 'array') THEN s1_matching.facet_1 ELSE jsonb_build_array(s1_matching.facet_1) END) AS each(value) 
WHERE jsonb_typeof(each.value) IN ('string', 'number', 'boolean')) AS once ON true GROUP BY once.value ORDER BY count DESC, once.value 
 LIMIT 10) AS best))), (SELECT to_jsonb(count(*)) AS to_jsonb_1 
FROM s1_places 
WHERE s1_places.place = 1), (SELECT to_jsonb(count(*)) AS to_jsonb_1 
FROM s1_places)) AS TEXT) AS told), 
page AS 
(SELECT s1_feature_search.document_id AS document_id, s1_feature_search.score AS score, s1_feature_search.rank AS rank 
FROM s1_feature_search ORDER BY s1_feature_search.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(NULL AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
