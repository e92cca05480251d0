DROP FUNCTION pgretrieve.forget_audit_events;
DROP TABLE pgretrieve.audit_events;
DROP FUNCTION pgretrieve.keep_audit_events;
ALTER TABLE pgretrieve.api_keys DROP COLUMN rate_limit_override;
