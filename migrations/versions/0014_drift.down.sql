DROP TABLE pgretrieve.service_canaries, pgretrieve.service_probes;
