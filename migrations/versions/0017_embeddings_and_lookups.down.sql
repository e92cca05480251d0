DROP TABLE pgretrieve.lookups;
DROP PROCEDURE pgretrieve.request_embedding;
DROP FUNCTION pgretrieve.embedding_state;
DROP FUNCTION pgretrieve.queue_embedding;
DROP FUNCTION pgretrieve.embed;
DROP TABLE pgretrieve.embedding_requests;
DROP TABLE pgretrieve.service_models;
DELETE FROM pgretrieve_queue.procrastinate_jobs WHERE task_name = 'embed_requested';
