DROP VIEW pgretrieve.index_builds;
DROP TABLE pgretrieve.loose_indexes;
