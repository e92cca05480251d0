-- How many requests a key may send.
ALTER TABLE pgretrieve.api_keys ADD COLUMN rate_limit_override integer CHECK (rate_limit_override > 0);
COMMENT ON COLUMN pgretrieve.api_keys.rate_limit_override IS 'Requests that it may send in a minute; null is what the settings say.';

-- Who changed what: written in the transaction of the change, so that there is an event if and only if there is the change.
CREATE TABLE pgretrieve.audit_events (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    happened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor_type text NOT NULL CHECK (actor_type IN ('api_key', 'command')),
    actor_id text NOT NULL,
    actor_name text,
    action text NOT NULL,
    resource_type text NOT NULL,
    resource_id text NOT NULL,
    namespace_id text,
    changes jsonb NOT NULL CHECK (jsonb_typeof(changes) = 'object'),
    reason text CHECK (length(reason) <= 500),
    request_id text,
    operation_id text,
    remote_address text
);
CREATE INDEX audit_events_time ON pgretrieve.audit_events (happened_at);
CREATE INDEX audit_events_resource ON pgretrieve.audit_events (resource_id, audit_id);
CREATE INDEX audit_events_actor ON pgretrieve.audit_events (actor_id, audit_id);
CREATE INDEX audit_events_namespace ON pgretrieve.audit_events (namespace_id, audit_id);

COMMENT ON TABLE pgretrieve.audit_events IS 'Who changed the configuration, when and why. Rows are added, and removed by forget_audit_events alone.';
COMMENT ON COLUMN pgretrieve.audit_events.audit_id IS 'In the order in which they were written, not committed.';
COMMENT ON COLUMN pgretrieve.audit_events.happened_at IS 'When it was written, shortly before the change was committed.';
COMMENT ON COLUMN pgretrieve.audit_events.actor_type IS 'api_key, or command: one of pgretrieve, on the database itself.';
COMMENT ON COLUMN pgretrieve.audit_events.actor_id IS 'The id of the key; of a command, the login of the database.';
COMMENT ON COLUMN pgretrieve.audit_events.actor_name IS 'The name that the key had then.';
COMMENT ON COLUMN pgretrieve.audit_events.action IS 'What was done, as namespace_created.';
COMMENT ON COLUMN pgretrieve.audit_events.resource_type IS 'The kind of what was changed, as namespace.';
COMMENT ON COLUMN pgretrieve.audit_events.resource_id IS 'Its id, or its name where it has none.';
COMMENT ON COLUMN pgretrieve.audit_events.namespace_id IS 'The namespace that it lies in; null: it concerns the whole server.';
COMMENT ON COLUMN pgretrieve.audit_events.changes IS 'What is known of the change in short: names of fields, small values; no secret, no content.';
COMMENT ON COLUMN pgretrieve.audit_events.reason IS 'What the caller gave as X-Change-Reason.';
COMMENT ON COLUMN pgretrieve.audit_events.request_id IS 'The id of the request, as in the logs.';
COMMENT ON COLUMN pgretrieve.audit_events.operation_id IS 'The operation of the API, as in its OpenAPI document.';
COMMENT ON COLUMN pgretrieve.audit_events.remote_address IS 'Where the request came from, if the settings keep that.';

CREATE FUNCTION pgretrieve.keep_audit_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('pgretrieve.forgetting_audit_events', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'Audit events are not changed or removed.'
        USING ERRCODE = 'insufficient_privilege', HINT = 'pgretrieve.forget_audit_events removes those that are old enough.';
END $$;
COMMENT ON FUNCTION pgretrieve.keep_audit_events IS 'Refuses what would change or remove audit events.';
CREATE TRIGGER keep BEFORE UPDATE OR DELETE OR TRUNCATE ON pgretrieve.audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION pgretrieve.keep_audit_events();

-- With its owner's rights: nobody else has any to delete. The floor is here, so that whoever calls it keeps a month.
CREATE FUNCTION pgretrieve.forget_audit_events(older_than interval, at_most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog SET pgretrieve.forgetting_audit_events = 'on' AS $$
DECLARE
    forgotten bigint;
BEGIN
    IF now() - older_than > now() - interval '30 days' THEN
        RAISE EXCEPTION 'Audit events are kept for 30 days at least.' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM pgretrieve.audit_events WHERE audit_id IN (
        SELECT audit_id FROM pgretrieve.audit_events WHERE happened_at < now() - older_than
        ORDER BY happened_at LIMIT at_most);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END $$;
COMMENT ON FUNCTION pgretrieve.forget_audit_events IS 'Removes the oldest audit events, at most so many; answers how many.';
REVOKE ALL ON FUNCTION pgretrieve.forget_audit_events FROM PUBLIC;
