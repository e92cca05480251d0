-- What each role must and must not be able to do. `pgretrieve roles --check` tries each of these as that role, in one
-- transaction that is rolled back; `must not` means that PostgreSQL refuses it for want of a privilege.

-- api must: create a namespace's schema and hand it over --
CREATE SCHEMA pgretrieve_probe;
CREATE TABLE pgretrieve_probe.documents (document_id text PRIMARY KEY, payload jsonb, acl jsonb, readers text[]);
SELECT pgretrieve.hand_over('pgretrieve_probe');

-- api must: write documents --
INSERT INTO pgretrieve_probe.documents VALUES ('probe', '{}', NULL, NULL), ('hidden', '{}', '{}', '{somebody}');

-- api must: enter a namespace into the catalogue --
INSERT INTO pgretrieve.namespaces (namespace_id, namespace_name, schema_name, mode, dynamic_vector_indexes)
VALUES ('pgretrieve_probe', 'pgretrieve_probe', 'pgretrieve_probe', 'standalone', false);

-- api must: make a key --
INSERT INTO pgretrieve.api_keys (key_id, key_hash, name, scopes) VALUES ('pgretrieve_probe', sha256('probe'), 'probe', '{read}');

-- api must: defer a job --
SELECT pgretrieve.defer_work('pgretrieve_probe');

-- api must not: drop a table of the catalogue --
DROP TABLE pgretrieve.promotions;

-- api must not: create a table in the catalogue --
CREATE TABLE pgretrieve.probe ();

-- api must not: rewrite what was promoted --
UPDATE pgretrieve.promotions SET promoted_by = promoted_by;

-- api must not: delete what was promoted --
DELETE FROM pgretrieve.promotions;

-- api must: note who changed what --
INSERT INTO pgretrieve.audit_events (actor_type, actor_id, action, resource_type, resource_id, changes)
VALUES ('command', 'probe', 'probe_probed', 'probe', 'probe', '{}');

-- api must not: rewrite who changed what --
UPDATE pgretrieve.audit_events SET actor_id = actor_id;

-- api must not: remove who changed what --
DELETE FROM pgretrieve.audit_events;

-- api must not: remove all of it, with the setting that lets the retention do so --
SET LOCAL pgretrieve.forgetting_audit_events = 'on';
DELETE FROM pgretrieve.audit_events;

-- api must not: empty the list of who changed what --
TRUNCATE pgretrieve.audit_events;

-- api must not: take off what keeps it --
DROP TRIGGER keep ON pgretrieve.audit_events;

-- api must not: say that the schema is another one --
UPDATE pgretrieve.alembic_version SET version_num = version_num;

-- api must not: drop a view --
DROP VIEW pgretrieve.all_namespaces;

-- api must not: make itself the migrator --
GRANT pgretrieve_migrator TO pgretrieve_api;

-- worker must: build an index --
CREATE INDEX probe_index ON pgretrieve_probe.documents (payload);

-- worker must: write what it made into documents --
UPDATE pgretrieve_probe.documents SET payload = '{"made": true}';

-- worker must: take jobs --
UPDATE pgretrieve_queue.procrastinate_jobs SET priority = priority;

-- worker must: end work --
DELETE FROM pgretrieve.work WHERE namespace_id = 'pgretrieve_probe';

-- worker must: forget who changed what, where it is old --
SELECT pgretrieve.forget_audit_events('365 days', 1);

-- worker must not: remove who changed what --
DELETE FROM pgretrieve.audit_events;

-- worker must not: read keys --
SELECT FROM pgretrieve.api_keys;

-- worker must not: make a key --
INSERT INTO pgretrieve.api_keys (key_id, key_hash, name, scopes) VALUES ('probe', sha256('probe'), 'probe', '{*}');

-- worker must not: create a schema --
CREATE SCHEMA pgretrieve_another_probe;

-- worker must not: drop a table of the catalogue --
DROP TABLE pgretrieve.work;

-- worker must not: rewrite what was promoted --
UPDATE pgretrieve.promotions SET promoted_by = promoted_by;

-- analyst must: read the views --
SELECT count(*) FROM pgretrieve.all_namespaces, pgretrieve.all_vector_configs, pgretrieve.all_sizes;

-- analyst must: read who made which vector --
SELECT count(*) FROM pgretrieve.vector_provenance WHERE namespace_id = 'none';

-- analyst must: read the documents of a namespace that has just been created --
SELECT count(*) FROM pgretrieve_probe.documents;

-- analyst must: find no document whose access list names none of their roles --
DO $$ BEGIN ASSERT (SELECT array_agg(document_id) FROM pgretrieve_probe.documents) = '{probe}'; END $$;

-- worker must: find documents whatever their access lists are --
DO $$ BEGIN ASSERT (SELECT count(*) FROM pgretrieve_probe.documents) = 2; END $$;

-- analyst must not: end row-level security --
ALTER TABLE pgretrieve_probe.documents DISABLE ROW LEVEL SECURITY;

-- analyst must not: read keys --
SELECT FROM pgretrieve.api_keys;

-- analyst must not: read the settings of services --
SELECT FROM pgretrieve.inference_services;

-- analyst must not: read what retrievers send to other hosts --
SELECT FROM pgretrieve.retrievers;

-- analyst must not: read the work table --
SELECT FROM pgretrieve.work;

-- analyst must not: read jobs --
SELECT FROM pgretrieve_queue.procrastinate_jobs;

-- analyst must not: read embedded texts' vectors --
SELECT FROM pgretrieve.embedding_cache;

-- analyst must not: read the secrets of uploads --
SELECT FROM pgretrieve.uploads;

-- analyst must not: change a document --
UPDATE pgretrieve_probe.documents SET payload = '{}';

-- analyst must not: delete a document --
DELETE FROM pgretrieve_probe.documents;

-- analyst must not: create a table in a namespace --
CREATE TABLE pgretrieve_probe.mine ();

-- analyst must not: change the catalogue --
DELETE FROM pgretrieve.namespaces;

-- analyst must not: delete documents through a function --
SELECT pgretrieve.forget_sources('{}', '{}');

-- analyst must not: start a job --
SELECT pgretrieve.defer_work('pgretrieve_probe');

-- analyst must not: read who changed what --
SELECT FROM pgretrieve.audit_events;

-- analyst must not: forget who changed what --
SELECT pgretrieve.forget_audit_events('365 days', 1);

-- migrator must: change a table of the catalogue --
ALTER TABLE pgretrieve.promotions ADD COLUMN probe text;

-- migrator must not: rewrite who changed what, though the table is its own --
UPDATE pgretrieve.audit_events SET actor_id = actor_id;

-- migrator must: change the documents of a namespace --
ALTER TABLE pgretrieve_probe.documents ADD COLUMN probe text;

-- migrator must: create a schema --
CREATE SCHEMA pgretrieve_another_probe;

-- migrator must not: create a role --
CREATE ROLE pgretrieve_probe;

-- migrator must not: read files of the server --
SELECT pg_read_file('PG_VERSION');
