-- Which model each service has now: vectors in the cache that another one made are not its answer.
CREATE TABLE pgretrieve.service_models (
    service text PRIMARY KEY,
    model text NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgretrieve.service_models IS 'The model of each inference service, as the embedding cache names it; workers keep it.';
COMMENT ON COLUMN pgretrieve.service_models.service IS 'The service.';
COMMENT ON COLUMN pgretrieve.service_models.model IS 'Its model, and the fingerprint of its settings.';
COMMENT ON COLUMN pgretrieve.service_models.noted_at IS 'Since when.';

CREATE TABLE pgretrieve.embedding_requests (
    service text NOT NULL,
    task text NOT NULL CHECK (task IN ('query', 'document')),
    input_hash bytea NOT NULL CHECK (octet_length(input_hash) = 32),
    input text NOT NULL CHECK (length(input) <= 10000),
    requested_by name NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    failed_at timestamptz,
    error text,
    PRIMARY KEY (service, task, input_hash)
);
-- Serves the count of what a role has asked for.
CREATE INDEX embedding_requests_role ON pgretrieve.embedding_requests (requested_by) WHERE failed_at IS NULL;
COMMENT ON TABLE pgretrieve.embedding_requests IS 'Texts that pgretrieve.request_embedding was called with: what is made is deleted, what failed stays for a day.';
COMMENT ON COLUMN pgretrieve.embedding_requests.service IS 'The service that is to embed it.';
COMMENT ON COLUMN pgretrieve.embedding_requests.task IS 'query or document.';
COMMENT ON COLUMN pgretrieve.embedding_requests.input_hash IS 'SHA-256 of the text.';
COMMENT ON COLUMN pgretrieve.embedding_requests.input IS 'The text.';
COMMENT ON COLUMN pgretrieve.embedding_requests.requested_by IS 'The role that asked for it.';
COMMENT ON COLUMN pgretrieve.embedding_requests.requested_at IS 'When.';
COMMENT ON COLUMN pgretrieve.embedding_requests.failed_at IS 'When it failed for good; asking again tries again.';
COMMENT ON COLUMN pgretrieve.embedding_requests.error IS 'Why.';

-- SECURITY DEFINER, here and below: callers see neither others' texts nor the cache; they need the text to get its vector.
CREATE FUNCTION pgretrieve.embed(service text, input text, task text DEFAULT 'query') RETURNS vector
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    hash bytea := sha256(convert_to(input, 'UTF8'));
    kept pgretrieve.embedding_cache.vector%TYPE;
    failure text;
BEGIN
    IF input IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT c.vector INTO kept FROM pgretrieve.embedding_cache c JOIN pgretrieve.service_models m USING (service, model)
    WHERE c.service = embed.service AND c.task = embed.task AND c.input_hash = hash;
    IF FOUND THEN
        RETURN kept;
    END IF;
    SELECT r.error INTO failure FROM pgretrieve.embedding_requests r
    WHERE r.service = embed.service AND r.task = embed.task AND r.input_hash = hash AND r.failed_at IS NOT NULL;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PR002', MESSAGE = format('The service %s did not embed this text: %s', service, failure),
            HINT = format('CALL pgretrieve.request_embedding(%L, %L, %L);  -- tries again', service, input, task);
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'PR001', MESSAGE = format('The service %s has not embedded this text yet.', service),
        HINT = format('CALL pgretrieve.request_embedding(%L, %L, %L, wait => ''30 s'');', service, input, task);
END $$;
COMMENT ON FUNCTION pgretrieve.embed IS 'The vector that a service has made of a text. Error PR001 where it has not yet: its hint is the CALL that asks for it; PR002 where it could not.';

CREATE FUNCTION pgretrieve.queue_embedding(service text, input text, task text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pgretrieve_queue, pg_catalog, pg_temp AS $$
DECLARE
    hash bytea := pg_catalog.sha256(pg_catalog.convert_to(input, 'UTF8'));
    asked pg_catalog.int8;
BEGIN
    IF service IS NULL OR input IS NULL OR input !~ '\S' OR coalesce(task, '') NOT IN ('query', 'document') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'request_embedding takes a service, a text that is not empty, and the task query or document.';
    ELSIF pg_catalog.length(input) > 10000 THEN
        RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded', MESSAGE = 'A text has at most 10000 characters.';
    ELSIF EXISTS (
            SELECT FROM pgretrieve.embedding_cache c JOIN pgretrieve.service_models m USING (service, model)
            WHERE c.service = queue_embedding.service AND c.task = queue_embedding.task AND c.input_hash = hash) THEN
        RETURN false;
    END IF;
    -- One request of a role after the other, so that they are counted.
    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('pgretrieve.request_embedding ' || session_user, 0));
    SELECT count(*) INTO asked FROM pgretrieve.embedding_requests r WHERE r.requested_by = session_user AND r.failed_at IS NULL;
    IF asked >= 100 THEN
        RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded', MESSAGE = 'You have 100 requests that are not answered yet.',
            HINT = 'Wait until a worker has answered some.';
    END IF;
    INSERT INTO pgretrieve.embedding_requests AS r (service, task, input_hash, input, requested_by)
    VALUES (queue_embedding.service, queue_embedding.task, hash, queue_embedding.input, session_user)
    ON CONFLICT ON CONSTRAINT embedding_requests_pkey DO UPDATE SET failed_at = NULL, error = NULL,
        requested_at = pg_catalog.now(), requested_by = session_user WHERE r.failed_at IS NOT NULL;
    IF FOUND THEN
        PERFORM procrastinate_defer_jobs_v1(ARRAY[ROW('default', 'embed_requested', 0, NULL, NULL,
            pg_catalog.jsonb_build_object('service', service, 'task', task, 'input_hash', pg_catalog.encode(hash, 'hex')), NULL)
        ]::procrastinate_job_to_defer_v1[]);
    END IF;
    RETURN true;
END $$;
COMMENT ON FUNCTION pgretrieve.queue_embedding IS 'Asks workers for a vector in the caller''s transaction; false: it is there already. 100 open requests of a role, 10000 characters.';

CREATE FUNCTION pgretrieve.embedding_state(service text, input text, task text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE
    WHEN EXISTS (SELECT FROM pgretrieve.embedding_cache c JOIN pgretrieve.service_models m USING (service, model)
        WHERE c.service = $1 AND c.task = $3 AND c.input_hash = sha256(convert_to($2, 'UTF8'))) THEN 'made'
    ELSE (SELECT CASE WHEN r.failed_at IS NULL THEN 'open' ELSE 'failed' END FROM pgretrieve.embedding_requests r
        WHERE r.service = $1 AND r.task = $3 AND r.input_hash = sha256(convert_to($2, 'UTF8'))) END $$;
COMMENT ON FUNCTION pgretrieve.embedding_state IS 'made, open, failed, or null where nobody has asked for it.';

-- It commits, so it can be neither SECURITY DEFINER nor called within a transaction; it names all by their schemas instead.
CREATE PROCEDURE pgretrieve.request_embedding(service text, input text, task text DEFAULT 'query', wait interval DEFAULT '0')
LANGUAGE plpgsql AS $$
DECLARE
    ends timestamptz := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) least(wait, '10 min'::pg_catalog.interval);
    pause float8 := 0.02;
    state text;
BEGIN
    IF NOT pgretrieve.queue_embedding(service, input, task) THEN
        RETURN;
    END IF;
    COMMIT;
    WHILE pg_catalog.clock_timestamp() OPERATOR(pg_catalog.<) ends LOOP
        state := pgretrieve.embedding_state(service, input, task);
        EXIT WHEN state OPERATOR(pg_catalog.<>) 'open' OR state IS NULL;
        COMMIT;
        PERFORM pg_catalog.pg_sleep(pause);
        pause := least(pause OPERATOR(pg_catalog.*) 1.5::pg_catalog.float8, 0.5::pg_catalog.float8);
    END LOOP;
    IF wait OPERATOR(pg_catalog.>) '0'::pg_catalog.interval THEN
        PERFORM pgretrieve.embed(service, input, task);  -- which says why, where it is not there
    END IF;
END $$;
COMMENT ON PROCEDURE pgretrieve.request_embedding IS 'Asks workers for the vector that pgretrieve.embed answers, and commits; waits for it, 10 minutes at most, where wait is above 0.';

-- Queries of administrators, which the stage sql_lookup runs by name.
CREATE TABLE pgretrieve.lookups (
    name text PRIMARY KEY,
    query text NOT NULL,
    parameters jsonb NOT NULL,
    timeout_ms integer NOT NULL CHECK (timeout_ms BETWEEN 1 AND 300000),
    row_limit integer NOT NULL CHECK (row_limit BETWEEN 1 AND 10000),
    description text NOT NULL DEFAULT '',
    created_by text,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgretrieve.lookups IS 'Stored look-ups: queries that an administrator registered, run by the stage sql_lookup through the analysts'' own login.';
COMMENT ON COLUMN pgretrieve.lookups.name IS 'What stages call it.';
COMMENT ON COLUMN pgretrieve.lookups.query IS 'A SELECT that reads its parameters as given.<name>.';
COMMENT ON COLUMN pgretrieve.lookups.parameters IS 'The SQL types of its parameters, by their names.';
COMMENT ON COLUMN pgretrieve.lookups.timeout_ms IS 'How long its statement may run.';
COMMENT ON COLUMN pgretrieve.lookups.row_limit IS 'How many rows it answers at most, for all documents together.';
COMMENT ON COLUMN pgretrieve.lookups.description IS 'In its maker''s words.';
COMMENT ON COLUMN pgretrieve.lookups.created_by IS 'The API key (its id) that registered it.';
COMMENT ON COLUMN pgretrieve.lookups.created_at IS 'When it was registered as it is.';
