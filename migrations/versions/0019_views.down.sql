DROP FUNCTION pgretrieve.hand_over;
DROP VIEW pgretrieve.all_namespaces, pgretrieve.all_vector_configs, pgretrieve.all_mappings, pgretrieve.all_promotions,
    pgretrieve.all_retrievers, pgretrieve.all_tasks, pgretrieve.all_open_work, pgretrieve.all_dead_letters, pgretrieve.all_sizes;
