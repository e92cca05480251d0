-- insert_audit_event --
-- What a command does, it does as the login that it has of the database.
INSERT INTO pgretrieve.audit_events (actor_type, actor_id, actor_name, action, resource_type, resource_id, namespace_id,
    changes, reason, request_id, operation_id, remote_address)
VALUES (:actor_type, coalesce(CAST(:actor_id AS text), session_user), :actor_name, :action, :resource_type, :resource_id,
    :namespace_id, CAST(:changes AS jsonb), :reason, :request_id, :operation_id, :remote_address);

-- forget_audit_events --
SELECT pgretrieve.forget_audit_events(make_interval(days => :days), :at_most);
