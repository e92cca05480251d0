-- The cells of points, as app/retrieval/geo_cells.py has them: level << 48 | x << 24 | y, at levels 0, 2, …, 14.
CREATE FUNCTION pgretrieve.payload_cells(payload jsonb, path jsonpath) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 100 AS $$
DECLARE
    point jsonb;
    lat numeric;
    lon numeric;
    found bigint[] := '{}';
BEGIN
    FOR point IN
        SELECT p FROM pg_catalog.jsonb_path_query(payload, path, '{}', true) AS value,
            pg_catalog.jsonb_path_query(value, 'strict $.**{0 to 3} ? (
                @.type() == "object" && @.lat.type() == "number" && @.lon.type() == "number"
                || @.type() == "array" && @.size() == 2 && @[0].type() == "number" && @[1].type() == "number")',
                '{}', true) AS p
    LOOP
        lat := coalesce(point ->> 'lat', point ->> 1)::numeric;
        lon := coalesce(point ->> 'lon', point ->> 0)::numeric;
        CONTINUE WHEN NOT (lat BETWEEN -90 AND 90 AND lon BETWEEN -180 AND 180);
        found := found || ARRAY(
            SELECT (level::bigint << 48)
                | (least(pg_catalog.floor((lon + 180) / 360 * (1 << level))::bigint, (1 << level) - 1) << 24)
                | least(pg_catalog.floor((lat + 90) / 180 * (1 << level))::bigint, (1 << level) - 1)
            FROM pg_catalog.generate_series(0, 14, 2) AS level);
    END LOOP;
    RETURN found;
END $$;
-- Until ensure-indexes has built what was declared before.
UPDATE pgretrieve.payload_indexes SET state = 'failed' WHERE type = 'geo';
COMMENT ON FUNCTION pgretrieve.payload_cells IS 'The cells of a grid in which the points at a path lie, at each of its levels.';
