-- Namespaces' own schemas stay: they are the users' data. The extension stays too, others may use it.
DROP TABLE pgretrieve.api_keys, pgretrieve.retriever_versions, pgretrieve.retrievers, pgretrieve.promotions,
    pgretrieve.vector_inference_map, pgretrieve.vector_configs, pgretrieve.namespace_identifiers, pgretrieve.namespaces;
