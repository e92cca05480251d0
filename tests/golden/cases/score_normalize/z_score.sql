WITH s1_search_1 AS 
(SELECT nearest_1.document_id AS document_id, 1 - nearest_1.distance AS score 
FROM (SELECT d.document_id AS document_id, d.v <=> CAST(%(s1_query_1)s AS VECTOR(16)) AS distance 
FROM golden.documents AS d 
WHERE d.v IS NOT NULL ORDER BY (d.v <=> CAST(%(s1_query_1)s AS VECTOR(16))) + 0 
 LIMIT 4) AS nearest_1), 
s1_feature_search AS 
(SELECT s1_search_1.document_id AS document_id, s1_search_1.score AS score, row_number() OVER (ORDER BY s1_search_1.score DESC, s1_search_1.document_id) AS rank 
FROM s1_search_1 ORDER BY rank 
 LIMIT 25), 
s2_scores AS 
(SELECT s1_feature_search.rank AS rank, CASE WHEN (abs(coalesce(nullif(s1_feature_search.score, 'NaN'::float8), 0)) < 1e-100) THEN 0 ELSE greatest(-1e100, least(1e100, coalesce(nullif(s1_feature_search.score, 'NaN'::float8), 0))) END AS x 
FROM s1_feature_search JOIN golden.documents AS d ON d.document_id = s1_feature_search.document_id), 
s2_values AS 
(SELECT s2_scores.rank AS rank, CASE WHEN (max(s2_scores.x) OVER () > min(s2_scores.x) OVER ()) THEN coalesce((s2_scores.x - avg(s2_scores.x) OVER ()) / CAST(nullif(stddev_pop(s2_scores.x) OVER (), 0) AS NUMERIC), 0) ELSE 0 END AS x 
FROM s2_scores), 
s2_score_normalize AS 
(SELECT s1_feature_search.document_id AS document_id, s2_values.x AS score, s1_feature_search.rank AS rank 
FROM s1_feature_search JOIN s2_values ON s2_values.rank = s1_feature_search.rank), 
s3_tested AS 
(SELECT s2_score_normalize.rank AS rank, nullif(s2_score_normalize.score, 'NaN'::float8) >= CAST(%(s3_min_score)s AS DOUBLE PRECISION) AS passes 
FROM s2_score_normalize JOIN golden.documents AS d ON d.document_id = s2_score_normalize.document_id), 
s3_score_threshold AS 
(SELECT s2_score_normalize.document_id AS document_id, s2_score_normalize.score AS score, s2_score_normalize.rank AS rank 
FROM s2_score_normalize JOIN s3_tested ON s3_tested.rank = s2_score_normalize.rank 
WHERE s3_tested.passes), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_feature_search), (SELECT count(*) AS count_2 
FROM s2_score_normalize), (SELECT count(*) AS count_3 
FROM s3_score_threshold)] AS counts, CAST(jsonb_build_array(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('search', 1, 'returned', (SELECT count(*) AS count_4 
FROM s1_search_1)))), (SELECT to_jsonb(count(*) > 0 AND count(*) FILTER (WHERE s3_tested.passes) = 0) AS to_jsonb_1 
FROM s3_tested)) AS TEXT) AS told), 
page AS 
(SELECT s3_score_threshold.document_id AS document_id, s3_score_threshold.score AS score, s3_score_threshold.rank AS rank 
FROM s3_score_threshold ORDER BY s3_score_threshold.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(NULL AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
