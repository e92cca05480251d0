DROP FUNCTION pgretrieve.payload_cells;
