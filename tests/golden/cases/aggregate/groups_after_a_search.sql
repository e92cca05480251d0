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
s2_aggregate AS 
(SELECT s1_feature_search.document_id AS document_id, s1_feature_search.score AS score, s1_feature_search.rank AS rank 
FROM s1_feature_search), 
s2_values AS 
(SELECT s1_feature_search.rank AS rank, nullif(d.payload #> CAST(%(s2_group_1)s AS TEXT[]), 'null'::jsonb) AS g1, nullif(d.payload #> CAST(%(s2_field_2)s AS TEXT[]), 'null'::jsonb) AS f2, nullif(d.payload #> CAST(%(s2_field_3)s AS TEXT[]), 'null'::jsonb) AS f3 
FROM s1_feature_search JOIN golden.documents AS d ON d.document_id = s1_feature_search.document_id), 
s2_places AS 
(SELECT s2_values.rank AS rank, s2_values.g1 AS g1, s2_values.f2 AS f2, s2_values.f3 AS f3, dense_rank() OVER (ORDER BY s2_values.g1 ASC NULLS LAST) AS place 
FROM s2_values), 
s2_groups AS 
(SELECT s2_places.place AS place, min(s2_places.rank) AS first, (array_agg(s2_places.g1 ORDER BY s2_places.rank))[1] AS g1, to_jsonb(count(*)) AS m1, to_jsonb(trim_scale(avg(CASE WHEN (abs(CASE WHEN (jsonb_typeof(s2_places.f2) = 'number') THEN CAST(s2_places.f2 AS NUMERIC) END) <= 1e307) THEN CASE WHEN (jsonb_typeof(s2_places.f2) = 'number') THEN CAST(s2_places.f2 AS NUMERIC) END END))) AS m2 
FROM s2_places GROUP BY s2_places.place), 
s2_list_3 AS 
(SELECT listed.place AS place, jsonb_agg(listed.item ORDER BY listed.nth) AS found 
FROM (SELECT counted.place AS place, jsonb_build_object('value', counted.f3, 'count', counted.many) AS item, row_number() OVER (PARTITION BY counted.place ORDER BY counted.many DESC, counted.first) AS nth 
FROM (SELECT s2_places.place AS place, min(s2_places.rank) AS first, count(*) AS many, s2_places.f3 AS f3 
FROM s2_places 
WHERE s2_places.f3 IS NOT NULL GROUP BY s2_places.place, s2_places.f3) AS counted) AS listed 
WHERE listed.nth <= 3 GROUP BY listed.place), 
s2_metrics AS 
(SELECT s2_groups.place AS place, s2_groups.first AS first, s2_groups.g1 AS g1, s2_groups.m1 AS m1, s2_groups.m2 AS m2, coalesce(s2_list_3.found, '[]'::jsonb) AS m3 
FROM s2_groups LEFT OUTER JOIN s2_list_3 ON s2_list_3.place = s2_groups.place), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_feature_search), (SELECT count(*) AS count_2 
FROM s2_aggregate)] AS counts, CAST(jsonb_build_array(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('search', 1, 'returned', (SELECT count(*) AS count_3 
FROM s1_search_1)))), (SELECT coalesce(jsonb_agg(entries.entry ORDER BY entries.place), '[]'::jsonb) AS coalesce_1 
FROM (SELECT jsonb_build_object('group', jsonb_build_object(CAST(%(s2_alias)s AS TEXT), s2_metrics.g1), 'metrics', jsonb_build_object(CAST(%(s2_alias_2)s AS TEXT), s2_metrics.m1, CAST(%(s2_alias_3)s AS TEXT), s2_metrics.m2, CAST(%(s2_alias_4)s AS TEXT), s2_metrics.m3)) AS entry, row_number() OVER (ORDER BY s2_metrics.m2 DESC NULLS LAST, s2_metrics.first) AS place 
FROM s2_metrics) AS entries 
WHERE entries.place <= 5), (SELECT to_jsonb(count(*)) AS to_jsonb_1 
FROM s2_metrics)) AS TEXT) AS told), 
page AS 
(SELECT s2_aggregate.document_id AS document_id, s2_aggregate.score AS score, s2_aggregate.rank AS rank 
FROM s2_aggregate ORDER BY s2_aggregate.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(NULL AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
