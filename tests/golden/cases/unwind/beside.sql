WITH s1_documents AS 
(SELECT d.document_id AS document_id, CAST(NULL AS DOUBLE PRECISION) AS score, row_number() OVER (ORDER BY d.document_id) AS rank 
FROM golden.documents AS d), 
s1_taken AS 
(SELECT s1_documents.document_id AS document_id, s1_documents.score AS score, s1_documents.rank AS rank, d.payload AS fields, nullif(d.payload #> CAST(%(s1_field)s AS TEXT[]), 'null'::jsonb) AS value, jsonb_typeof(nullif(d.payload #> CAST(%(s1_field)s AS TEXT[]), 'null'::jsonb)) AS kind 
FROM s1_documents JOIN golden.documents AS d ON d.document_id = s1_documents.document_id), 
s1_elements AS 
(SELECT s1_taken.rank AS rank, anon_1.element AS element, CASE WHEN (s1_taken.kind = 'array') THEN anon_1.number - 1 END AS index, row_number() OVER (ORDER BY s1_taken.rank, anon_1.number) AS place 
FROM s1_taken LEFT OUTER JOIN jsonb_array_elements(CASE WHEN (s1_taken.kind = 'array') THEN s1_taken.value ELSE CASE WHEN (s1_taken.value IS NOT NULL) THEN jsonb_build_array(s1_taken.value) END END) WITH ORDINALITY AS anon_1(element, number) ON true ORDER BY place 
 LIMIT 10001), 
s1_unwind AS 
(SELECT s1_taken.document_id AS document_id, s1_taken.score AS score, s1_elements.place AS rank, CASE WHEN (s1_elements.element IS NOT NULL) THEN (s1_taken.fields || jsonb_build_object(CAST(%(s1_output_2)s AS TEXT), to_jsonb(s1_elements.index))) || jsonb_build_object(CAST(%(s1_output_3)s AS TEXT), CASE WHEN (jsonb_typeof(s1_taken.fields -> CAST(%(s1_output_3)s AS TEXT)) = 'object') THEN s1_taken.fields -> CAST(%(s1_output_3)s AS TEXT) ELSE '{}'::jsonb END || jsonb_build_object(CAST(%(s1_output_4)s AS TEXT), s1_elements.element)) ELSE s1_taken.fields || jsonb_build_object(CAST(%(s1_output)s AS TEXT), CAST(NULL AS JSONB)) END AS fields 
FROM s1_taken JOIN golden.documents AS d ON d.document_id = s1_taken.document_id JOIN s1_elements ON s1_elements.rank = s1_taken.rank 
WHERE s1_elements.place <= 10000), 
s2_attribute_filter AS 
(SELECT s1_unwind.document_id AS document_id, s1_unwind.score AS score, s1_unwind.rank AS rank, s1_unwind.fields AS fields 
FROM s1_unwind JOIN golden.documents AS d ON d.document_id = s1_unwind.document_id 
WHERE coalesce(jsonb_path_exists(s1_unwind.fields, CAST(%(s2_filter_path)s AS JSONPATH), CAST(%(s2_filter_value)s AS JSONB), true), false)), 
s3_sort_attribute AS 
(SELECT s2_attribute_filter.document_id AS document_id, s2_attribute_filter.score AS score, row_number() OVER (ORDER BY nullif(s2_attribute_filter.fields #> CAST(%(s3_field)s AS TEXT[]), 'null'::jsonb) DESC NULLS LAST, s2_attribute_filter.rank) AS rank, s2_attribute_filter.fields AS fields 
FROM s2_attribute_filter JOIN golden.documents AS d ON d.document_id = s2_attribute_filter.document_id), 
s4_limit AS 
(SELECT s3_sort_attribute.document_id AS document_id, s3_sort_attribute.score AS score, s3_sort_attribute.rank AS rank, s3_sort_attribute.fields AS fields 
FROM s3_sort_attribute ORDER BY s3_sort_attribute.rank 
 LIMIT 3 OFFSET 0), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_unwind), (SELECT count(*) AS count_2 
FROM s2_attribute_filter), (SELECT count(*) AS count_3 
FROM s3_sort_attribute), (SELECT count(*) AS count_4 
FROM s4_limit)] AS counts, CAST(jsonb_build_array((SELECT to_jsonb(count(*) > 10000) AS to_jsonb_1 
FROM s1_elements)) AS TEXT) AS told), 
page AS 
(SELECT s4_limit.document_id AS document_id, s4_limit.score AS score, s4_limit.rank AS rank, s4_limit.fields AS fields 
FROM s4_limit ORDER BY s4_limit.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(page.fields AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
