-- has_catalog --
-- Whether any migration has run: its version table exists.
SELECT to_regclass('pgretrieve.alembic_version') IS NOT NULL;

-- schema_revision --
-- The revision that the database's schema is at.
SELECT version_num FROM pgretrieve.alembic_version;

-- set_time_limits --
-- Bounds every wait of the transaction that runs it. SET LOCAL, so that poolers in transaction mode work.
SELECT set_config('statement_timeout', :statement, true), set_config('lock_timeout', :lock, true);

-- ping --
-- Whether the database answers.
SELECT 1;

-- swap_search_path --
-- Sets the search_path for the rest of the transaction and answers the one before; procrastinate's SQL is unqualified.
WITH before AS MATERIALIZED (SELECT current_setting('search_path') AS path)
SELECT before.path, set_config('search_path', :path, true) FROM before;
