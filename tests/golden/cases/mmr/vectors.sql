WITH RECURSIVE s1_search_1 AS 
(SELECT nearest_1.document_id AS document_id, 1 - nearest_1.distance AS score 
FROM (SELECT d.document_id AS document_id, d.v <=> CAST(%(s1_query_1)s AS VECTOR(16)) AS distance 
FROM golden.documents AS d 
WHERE d.v IS NOT NULL ORDER BY (d.v <=> CAST(%(s1_query_1)s AS VECTOR(16))) + 0 
 LIMIT 6) AS nearest_1), 
s1_feature_search AS 
(SELECT s1_search_1.document_id AS document_id, s1_search_1.score AS score, row_number() OVER (ORDER BY s1_search_1.score DESC, s1_search_1.document_id) AS rank 
FROM s1_search_1 ORDER BY rank 
 LIMIT 25), 
s2_candidates AS 
(SELECT row_number() OVER (ORDER BY s1_feature_search.rank) AS n, s1_feature_search.rank AS rank, least(1e300, greatest(-1e300, coalesce(s1_feature_search.score, 0))) AS relevance, l2_normalize(d.v) AS v0 
FROM s1_feature_search JOIN golden.documents AS d ON d.document_id = s1_feature_search.document_id ORDER BY s1_feature_search.rank 
 LIMIT 500), 
s2_selected(step, n, rank, mmr, nearest) AS 
(SELECT 1 AS step, start.n AS n, start.rank AS rank, start.mmr AS mmr, (SELECT array_agg(CASE WHEN (c.n = start.n) THEN 'Infinity'::float8 ELSE least(1e300, greatest(-1e300, coalesce(-(c.v0 <#> chosen.v0), 0))) * 1 END ORDER BY c.n) AS array_agg_1 
FROM s2_candidates AS c JOIN s2_candidates AS chosen ON chosen.n = start.n) AS nearest 
FROM (SELECT first.n AS n, first.rank AS rank, CAST(%(s2_lambda)s AS DOUBLE PRECISION) * first.relevance AS mmr 
FROM s2_candidates AS first ORDER BY first.relevance DESC, first.n 
 LIMIT 1) AS start UNION ALL SELECT s2_selected.step + 1 AS anon_1, next.n AS n, next.rank AS rank, next.mmr AS mmr, (SELECT array_agg(CASE WHEN (c.n = next.n) THEN 'Infinity'::float8 ELSE greatest(s2_selected.nearest[c.n], least(1e300, greatest(-1e300, coalesce(-(c.v0 <#> chosen.v0), 0))) * 1) END ORDER BY c.n) AS array_agg_2 
FROM s2_candidates AS c JOIN s2_candidates AS chosen ON chosen.n = next.n) AS anon_2 
FROM s2_selected JOIN LATERAL (SELECT open.n AS n, open.rank AS rank, CAST(%(s2_lambda)s AS DOUBLE PRECISION) * open.relevance - (1 - CAST(%(s2_lambda)s AS DOUBLE PRECISION)) * s2_selected.nearest[open.n] AS mmr 
FROM s2_candidates AS open 
WHERE s2_selected.nearest[open.n] < 'Infinity'::float8 ORDER BY CAST(%(s2_lambda)s AS DOUBLE PRECISION) * open.relevance - (1 - CAST(%(s2_lambda)s AS DOUBLE PRECISION)) * s2_selected.nearest[open.n] DESC, open.n 
 LIMIT 1) AS next ON true 
WHERE s2_selected.step < 4), 
s2_mmr AS 
(SELECT s1_feature_search.document_id AS document_id, s1_feature_search.score AS score, s2_selected.step AS rank, d.payload || jsonb_build_object(CAST(%(s2_output)s AS TEXT), CASE WHEN (jsonb_typeof(d.payload -> CAST(%(s2_output)s AS TEXT)) = 'object') THEN d.payload -> CAST(%(s2_output)s AS TEXT) ELSE '{}'::jsonb END || jsonb_build_object(CAST(%(s2_output_2)s AS TEXT), to_jsonb(s2_selected.mmr))) AS fields 
FROM s1_feature_search JOIN golden.documents AS d ON d.document_id = s1_feature_search.document_id JOIN s2_selected ON s2_selected.rank = s1_feature_search.rank), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_feature_search), (SELECT count(*) AS count_2 
FROM s2_mmr)] AS counts, CAST(jsonb_build_array(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('search', 1, 'returned', (SELECT count(*) AS count_3 
FROM s1_search_1))))) AS TEXT) AS told), 
page AS 
(SELECT s2_mmr.document_id AS document_id, s2_mmr.score AS score, s2_mmr.rank AS rank, s2_mmr.fields AS fields 
FROM s2_mmr ORDER BY s2_mmr.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(page.fields AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
