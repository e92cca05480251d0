-- put_lookup --
-- A look-up, in the place of the one of that name.
INSERT INTO pgretrieve.lookups AS l (name, query, parameters, timeout_ms, row_limit, description, created_by)
VALUES (:name, :query, CAST(:parameters AS jsonb), :timeout_ms, :row_limit, :description, :created_by)
ON CONFLICT (name) DO UPDATE SET query = excluded.query, parameters = excluded.parameters,
    timeout_ms = excluded.timeout_ms, row_limit = excluded.row_limit, description = excluded.description,
    created_by = excluded.created_by, created_at = now()
RETURNING name, query, parameters::text AS parameters, timeout_ms, row_limit, description, created_by, created_at;

-- find_lookups --
-- One, or all by name.
SELECT name, query, parameters::text AS parameters, timeout_ms, row_limit, description, created_by, created_at
FROM pgretrieve.lookups WHERE CAST(:name AS text) IS NULL OR name = :name ORDER BY name;

-- delete_lookup --
DELETE FROM pgretrieve.lookups WHERE name = :name;

-- lookup_limits --
-- Of the transaction that a look-up runs in.
SELECT set_config('transaction_read_only', 'on', true), set_config('statement_timeout', :timeout, true);

-- lookup_rows --
-- A stored query for all documents at once: each has a row of `given`, by its number. A line's end ends its comments.
SELECT given.lookup_row, CAST(to_jsonb(found) AS text)
FROM unnest(:arrays) WITH ORDINALITY AS given (:names, lookup_row) CROSS JOIN LATERAL (
:query
) AS found
LIMIT :most

-- lookup_array --
-- The values of one parameter, an element for each document.
CAST(CAST(%(:name)s AS text[]) AS :type[])
