WITH s1_documents AS 
(SELECT d.document_id AS document_id, CAST(NULL AS DOUBLE PRECISION) AS score, row_number() OVER (ORDER BY d.document_id) AS rank 
FROM golden.documents AS d), 
s1_scores AS 
(SELECT s1_documents.rank AS rank, CASE WHEN (abs(coalesce(CAST(CASE WHEN (abs(CASE WHEN (abs(CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END) <= 1e307) THEN CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END END) < 1e-307) THEN 0 ELSE CASE WHEN (abs(CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END) <= 1e307) THEN CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END END END AS DOUBLE PRECISION), 0)) < 1e-100) THEN 0 ELSE greatest(-1e100, least(1e100, coalesce(CAST(CASE WHEN (abs(CASE WHEN (abs(CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END) <= 1e307) THEN CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END END) < 1e-307) THEN 0 ELSE CASE WHEN (abs(CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END) <= 1e307) THEN CASE WHEN (jsonb_typeof(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(d.payload #> CAST(%(s1_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END END END AS DOUBLE PRECISION), 0))) END AS x 
FROM s1_documents JOIN golden.documents AS d ON d.document_id = s1_documents.document_id), 
s1_powers AS 
(SELECT s1_scores.rank AS rank, CASE WHEN (s1_scores.x - max(s1_scores.x) OVER () < -700) THEN 0 ELSE exp(greatest(s1_scores.x - max(s1_scores.x) OVER (), -700)) END AS x 
FROM s1_scores), 
s1_values AS 
(SELECT s1_powers.rank AS rank, s1_powers.x / CAST(sum(s1_powers.x) OVER () AS DOUBLE PRECISION) AS x 
FROM s1_powers), 
s1_score_normalize AS 
(SELECT s1_documents.document_id AS document_id, s1_documents.score AS score, s1_documents.rank AS rank, d.payload || jsonb_build_object(CAST(%(s1_output)s AS TEXT), CASE WHEN (jsonb_typeof(d.payload -> CAST(%(s1_output)s AS TEXT)) = 'object') THEN d.payload -> CAST(%(s1_output)s AS TEXT) ELSE '{}'::jsonb END || jsonb_build_object(CAST(%(s1_output_2)s AS TEXT), to_jsonb(s1_values.x))) AS fields 
FROM s1_documents JOIN golden.documents AS d ON d.document_id = s1_documents.document_id JOIN s1_values ON s1_values.rank = s1_documents.rank), 
s2_sort_relevance AS 
(SELECT s1_score_normalize.document_id AS document_id, s1_score_normalize.score AS score, row_number() OVER (ORDER BY CAST(CASE WHEN (abs(CASE WHEN (abs(CASE WHEN (jsonb_typeof(nullif(s1_score_normalize.fields #> CAST(%(s2_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(s1_score_normalize.fields #> CAST(%(s2_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END) <= 1e307) THEN CASE WHEN (jsonb_typeof(nullif(s1_score_normalize.fields #> CAST(%(s2_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(s1_score_normalize.fields #> CAST(%(s2_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END END) < 1e-307) THEN 0 ELSE CASE WHEN (abs(CASE WHEN (jsonb_typeof(nullif(s1_score_normalize.fields #> CAST(%(s2_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(s1_score_normalize.fields #> CAST(%(s2_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END) <= 1e307) THEN CASE WHEN (jsonb_typeof(nullif(s1_score_normalize.fields #> CAST(%(s2_score_field)s AS TEXT[]), 'null'::jsonb)) = 'number') THEN CAST(nullif(s1_score_normalize.fields #> CAST(%(s2_score_field)s AS TEXT[]), 'null'::jsonb) AS NUMERIC) END END END AS DOUBLE PRECISION) DESC NULLS LAST, s1_score_normalize.rank) AS rank, s1_score_normalize.fields AS fields 
FROM s1_score_normalize JOIN golden.documents AS d ON d.document_id = s1_score_normalize.document_id), 
s3_limit AS 
(SELECT s2_sort_relevance.document_id AS document_id, s2_sort_relevance.score AS score, s2_sort_relevance.rank AS rank, s2_sort_relevance.fields AS fields 
FROM s2_sort_relevance ORDER BY s2_sort_relevance.rank 
 LIMIT 2 OFFSET 0), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_score_normalize), (SELECT count(*) AS count_2 
FROM s2_sort_relevance), (SELECT count(*) AS count_3 
FROM s3_limit)] AS counts, CAST(NULL AS TEXT) AS told), 
page AS 
(SELECT s3_limit.document_id AS document_id, s3_limit.score AS score, s3_limit.rank AS rank, s3_limit.fields AS fields 
FROM s3_limit ORDER BY s3_limit.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(page.fields AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
