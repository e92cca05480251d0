WITH s1_search_1 AS 
(SELECT nearest_1.document_id AS document_id, 1 - nearest_1.distance AS score 
FROM (SELECT d.document_id AS document_id, d.v <=> CAST(%(s1_query_1)s AS VECTOR(16)) AS distance 
FROM golden.documents AS d 
WHERE d.v IS NOT NULL ORDER BY (d.v <=> CAST(%(s1_query_1)s AS VECTOR(16))) + 0 
 LIMIT 5) AS nearest_1), 
s1_feature_search AS 
(SELECT s1_search_1.document_id AS document_id, s1_search_1.score AS score, row_number() OVER (ORDER BY s1_search_1.score DESC, s1_search_1.document_id) AS rank 
FROM s1_search_1 ORDER BY rank 
 LIMIT 25), 
s2_first AS 
(SELECT s1_feature_search.rank AS rank, s1_feature_search.document_id AS document_id 
FROM s1_feature_search ORDER BY s1_feature_search.rank 
 LIMIT 3), 
s2_query AS 
(SELECT s2_query_given.n AS n, s2_query_given.vector AS vector 
FROM unnest(CAST(%(s2_query)s AS VECTOR(16)[])) WITH ORDINALITY AS s2_query_given(vector, n)), 
s2_scored AS 
(SELECT best.document_id AS document_id, sum(best.score) AS score 
FROM (SELECT m.document_id AS document_id, 1 - min(m.vector <=> s2_query.vector) AS score 
FROM (SELECT DISTINCT s2_first.document_id AS document_id 
FROM s2_first) AS among JOIN golden.documents_tokens AS m ON m.document_id = among.document_id JOIN s2_query ON true GROUP BY m.document_id, s2_query.n) AS best GROUP BY best.document_id), 
s2_maxsim_rerank AS 
(SELECT s1_feature_search.document_id AS document_id, s2_scored.score AS score, row_number() OVER (ORDER BY s2_first.rank IS NULL, s2_scored.score DESC NULLS LAST, s1_feature_search.rank) AS rank 
FROM s1_feature_search LEFT OUTER JOIN s2_first ON s2_first.rank = s1_feature_search.rank LEFT OUTER JOIN s2_scored ON s2_scored.document_id = s2_first.document_id), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_feature_search), (SELECT count(*) AS count_2 
FROM s2_maxsim_rerank)] AS counts, CAST(jsonb_build_array(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('search', 1, 'returned', (SELECT count(*) AS count_3 
FROM s1_search_1))))) AS TEXT) AS told), 
page AS 
(SELECT s2_maxsim_rerank.document_id AS document_id, s2_maxsim_rerank.score AS score, s2_maxsim_rerank.rank AS rank 
FROM s2_maxsim_rerank ORDER BY s2_maxsim_rerank.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(NULL AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
