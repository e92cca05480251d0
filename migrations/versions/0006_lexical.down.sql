SELECT pgretrieve.lexical_drop(n.schema_name) FROM pgretrieve.namespaces n JOIN pgretrieve.lexical_indexes USING (namespace_id);
DROP FUNCTION pgretrieve.lexical_merge, pgretrieve.lexical_is_due, pgretrieve.lexical_fill, pgretrieve.lexical_create,
    pgretrieve.lexical_drop, pgretrieve.lexical_changed, pgretrieve.lexical_removal, pgretrieve.lexical_insertion,
    pgretrieve.lexical_words;
DROP TABLE pgretrieve.lexical_indexes;
