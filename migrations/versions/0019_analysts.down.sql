DROP TRIGGER namespaces_granted ON pgretrieve.namespaces;
DROP FUNCTION pgretrieve.namespace_granted();
DROP FUNCTION pgretrieve.grant_analysts(name);
DROP SCHEMA pgretrieve_views CASCADE;
