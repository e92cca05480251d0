DROP TABLE pgretrieve.uploads;
DROP TABLE pgretrieve.object_blobs;
DROP TABLE pgretrieve.objects;
DROP TABLE pgretrieve.buckets;
DROP TABLE pgretrieve.blobs;
