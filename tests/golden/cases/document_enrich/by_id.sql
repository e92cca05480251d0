WITH s1_documents AS 
(SELECT d.document_id AS document_id, CAST(NULL AS DOUBLE PRECISION) AS score, row_number() OVER (ORDER BY d.document_id) AS rank 
FROM golden.documents AS d), 
s1_keys AS 
(SELECT s1_documents.rank AS rank, to_jsonb(s1_documents.document_id) AS key 
FROM s1_documents JOIN golden.documents AS d ON d.document_id = s1_documents.document_id 
WHERE coalesce(jsonb_path_exists(d.payload, CAST(%(s1_when_path)s AS JSONPATH), CAST(%(s1_when_value)s AS JSONB), true), false)), 
s1_matches AS 
(SELECT DISTINCT ON (to_jsonb(target.document_id)) to_jsonb(target.document_id) AS key, CASE WHEN (nullif(target.payload #> CAST(%(s1_merged_field)s AS TEXT[]), 'null'::jsonb) IS NOT NULL) THEN jsonb_build_object(CAST(%(s1_key)s AS TEXT), nullif(target.payload #> CAST(%(s1_merged_field)s AS TEXT[]), 'null'::jsonb)) ELSE '{}'::jsonb END || CASE WHEN (nullif(target.payload #> CAST(%(s1_merged_field_2)s AS TEXT[]), 'null'::jsonb) IS NOT NULL) THEN jsonb_build_object(CAST(%(s1_key_2)s AS TEXT), CASE WHEN (nullif(target.payload #> CAST(%(s1_merged_field_2)s AS TEXT[]), 'null'::jsonb) IS NOT NULL) THEN jsonb_build_object(CAST(%(s1_key_3)s AS TEXT), nullif(target.payload #> CAST(%(s1_merged_field_2)s AS TEXT[]), 'null'::jsonb)) ELSE '{}'::jsonb END) ELSE '{}'::jsonb END AS found 
FROM golden.documents AS target 
WHERE target.collection_id = CAST(%(s1_collection)s AS TEXT) AND target.document_id IN (SELECT s1_keys.key #>> '{}'::text[] AS anon_1 
FROM s1_keys 
WHERE jsonb_typeof(s1_keys.key) = 'string') ORDER BY to_jsonb(target.document_id), target.document_id), 
s1_document_enrich AS 
(SELECT s1_documents.document_id AS document_id, s1_documents.score AS score, s1_documents.rank AS rank, CASE WHEN (s1_matches.found IS NOT NULL) THEN d.payload || CASE WHEN ((s1_matches.found #> CAST(%(s1_found_field)s AS TEXT[])) IS NOT NULL OR (s1_matches.found #> CAST(%(s1_found_field_2)s AS TEXT[])) IS NOT NULL) THEN jsonb_build_object(CAST(%(s1_key_4)s AS TEXT), (CASE WHEN (jsonb_typeof(d.payload -> CAST(%(s1_key_4)s AS TEXT)) = 'object') THEN d.payload -> CAST(%(s1_key_4)s AS TEXT) ELSE '{}'::jsonb END || CASE WHEN ((s1_matches.found #> CAST(%(s1_found_field)s AS TEXT[])) IS NOT NULL) THEN jsonb_build_object(CAST(%(s1_key_5)s AS TEXT), s1_matches.found #> CAST(%(s1_found_field)s AS TEXT[])) ELSE '{}'::jsonb END) || CASE WHEN ((s1_matches.found #> CAST(%(s1_found_field_2)s AS TEXT[])) IS NOT NULL) THEN jsonb_build_object(CAST(%(s1_key_6)s AS TEXT), CASE WHEN (jsonb_typeof((d.payload -> CAST(%(s1_key_4)s AS TEXT)) -> CAST(%(s1_key_6)s AS TEXT)) = 'object') THEN (d.payload -> CAST(%(s1_key_4)s AS TEXT)) -> CAST(%(s1_key_6)s AS TEXT) ELSE '{}'::jsonb END || CASE WHEN ((s1_matches.found #> CAST(%(s1_found_field_2)s AS TEXT[])) IS NOT NULL) THEN jsonb_build_object(CAST(%(s1_key_7)s AS TEXT), s1_matches.found #> CAST(%(s1_found_field_2)s AS TEXT[])) ELSE '{}'::jsonb END) ELSE '{}'::jsonb END) ELSE '{}'::jsonb END ELSE d.payload END AS fields 
FROM s1_documents JOIN golden.documents AS d ON d.document_id = s1_documents.document_id LEFT OUTER JOIN s1_keys ON s1_keys.rank = s1_documents.rank LEFT OUTER JOIN s1_matches ON s1_matches.key = s1_keys.key), 
s2_attribute_filter AS 
(SELECT s1_document_enrich.document_id AS document_id, s1_document_enrich.score AS score, s1_document_enrich.rank AS rank, s1_document_enrich.fields AS fields 
FROM s1_document_enrich JOIN golden.documents AS d ON d.document_id = s1_document_enrich.document_id 
WHERE coalesce(jsonb_path_exists(s1_document_enrich.fields, CAST(%(s2_filter_path)s AS JSONPATH), CAST(%(s2_filter_value)s AS JSONB), true), false)), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_document_enrich), (SELECT count(*) AS count_2 
FROM s2_attribute_filter)] AS counts, CAST(jsonb_build_array((SELECT to_jsonb(count(*)) AS to_jsonb_1 
FROM s1_keys JOIN s1_matches ON s1_matches.key = s1_keys.key)) AS TEXT) AS told), 
page AS 
(SELECT s2_attribute_filter.document_id AS document_id, s2_attribute_filter.score AS score, s2_attribute_filter.rank AS rank, s2_attribute_filter.fields AS fields 
FROM s2_attribute_filter ORDER BY s2_attribute_filter.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(page.fields AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
