DROP SCHEMA pgretrieve_queue CASCADE;
