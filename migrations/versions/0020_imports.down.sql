DROP TABLE pgretrieve.imports;
