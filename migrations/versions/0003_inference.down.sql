DROP TABLE pgretrieve.embedding_cache, pgretrieve.inference_services;
