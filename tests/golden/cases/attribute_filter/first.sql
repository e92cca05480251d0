WITH s1_attribute_filter AS 
(SELECT d.document_id AS document_id, CAST(NULL AS DOUBLE PRECISION) AS score, row_number() OVER (ORDER BY d.document_id) AS rank 
FROM golden.documents AS d 
WHERE coalesce(jsonb_path_exists(d.payload, CAST(%(s1_filter_path)s AS JSONPATH), CAST(%(s1_filter_value)s AS JSONB), true), false)), 
state AS 
(SELECT (SELECT pgretrieve.namespaces.version 
FROM pgretrieve.namespaces 
WHERE pgretrieve.namespaces.namespace_id = CAST(%(namespace_id)s AS TEXT)) AS namespace_version, (SELECT pgretrieve.retrievers.version 
FROM pgretrieve.retrievers 
WHERE pgretrieve.retrievers.retriever_id = CAST(%(retriever_id)s AS TEXT)) AS retriever_version, ARRAY[(SELECT count(*) AS count_1 
FROM s1_attribute_filter)] AS counts, CAST(NULL AS TEXT) AS told), 
page AS 
(SELECT s1_attribute_filter.document_id AS document_id, s1_attribute_filter.score AS score, s1_attribute_filter.rank AS rank 
FROM s1_attribute_filter ORDER BY s1_attribute_filter.rank 
 LIMIT CAST(%(page_limit)s AS BIGINT) OFFSET CAST(%(page_offset)s AS BIGINT))
 SELECT state.namespace_version, state.retriever_version, state.counts, state.told, CAST(NULL AS TEXT) AS fields, page.rank, page.document_id, page.score, d.collection_id, CAST(d.payload AS TEXT) AS payload, CAST(d.metadata AS TEXT) AS metadata, d.created_at, d.updated_at 
FROM state LEFT OUTER JOIN (page JOIN golden.documents AS d ON d.document_id = page.document_id) ON true ORDER BY page.rank
