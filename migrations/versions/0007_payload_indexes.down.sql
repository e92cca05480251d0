-- Indexes in namespaces' schemas call these functions.
DROP FUNCTION pgretrieve.analyze_documents, pgretrieve.payload_text, pgretrieve.payload_number, pgretrieve.payload_short_number, pgretrieve.payload_keys,
    pgretrieve.payload_key CASCADE;
ALTER TABLE pgretrieve.payload_indexes DROP COLUMN origin, DROP COLUMN state, DROP COLUMN number;
