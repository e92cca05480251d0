WITH s1_documents AS 
(SELECT d.document_id AS document_id, CAST(NULL AS DOUBLE PRECISION) AS score, row_number() OVER (ORDER BY d.document_id) AS rank 
FROM golden.documents AS d), 
s1_tested AS 
(SELECT s1_documents.rank AS rank, CAST(CASE WHEN (abs(CASE WHEN (abs(CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END) <= 1e307) THEN CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END END) < 1e-307) THEN 0 ELSE CASE WHEN (abs(CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END) <= 1e307) THEN CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END END END AS DOUBLE PRECISION) > CAST(%(s1_min_score)s AS DOUBLE PRECISION) AS passes 
FROM s1_documents JOIN golden.documents AS d ON d.document_id = s1_documents.document_id), 
s1_score_threshold AS 
(SELECT s1_documents.document_id AS document_id, s1_documents.score AS score, s1_documents.rank AS rank 
FROM s1_documents JOIN s1_tested ON s1_tested.rank = s1_documents.rank 
WHERE s1_tested.passes IS NOT false), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_score_threshold)] AS counts, CAST(jsonb_build_array((SELECT to_jsonb(count(*) > 0 AND count(*) FILTER (WHERE s1_tested.passes) = 0) AS to_jsonb_1 
FROM s1_tested)) AS TEXT) AS told), 
page AS 
(SELECT s1_score_threshold.document_id AS document_id, s1_score_threshold.score AS score, s1_score_threshold.rank AS rank 
FROM s1_score_threshold ORDER BY s1_score_threshold.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(NULL AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
