-- find_canaries --
SELECT canary, vector FROM pgretrieve.service_canaries WHERE service = :service ORDER BY canary;

-- keep_canaries --
-- Those of whoever was first stay, unless they are to be accepted :anew.
INSERT INTO pgretrieve.service_canaries AS c (service, canary, model, revision, vector)
SELECT :service, given.canary, :model, :revision, given.vector
FROM unnest(CAST(:vectors AS vector[])) WITH ORDINALITY AS given (vector, canary)
ON CONFLICT (service, canary) DO UPDATE SET model = excluded.model, revision = excluded.revision, vector = excluded.vector,
    made_at = now() WHERE :anew;

-- insert_probe --
INSERT INTO pgretrieve.service_probes (service, model, revision, verdict, min_cosine, error)
VALUES (:service, :model, :revision, :verdict, :min_cosine, CAST(:error AS jsonb))
RETURNING service, verdict, min_cosine, probed_at, error ->> 'message';

-- last_probes --
-- The last comparison of each service that answered; None of :names is all.
SELECT DISTINCT ON (service) service, verdict, min_cosine, probed_at, error ->> 'message'
FROM pgretrieve.service_probes
WHERE verdict <> 'failed' AND (CAST(:names AS text[]) IS NULL OR service = ANY(CAST(:names AS text[])))
ORDER BY service, probe_id DESC;

-- services_to_probe --
-- Those that an index is mapped to, and that were not compared for so long; an hour where the last try failed.
SELECT DISTINCT m.inference_service FROM pgretrieve.vector_inference_map m
LEFT JOIN LATERAL (
    SELECT probed_at, verdict FROM pgretrieve.service_probes p WHERE p.service = m.inference_service
    ORDER BY probe_id DESC LIMIT 1) last ON true
WHERE last.probed_at IS NULL OR last.probed_at < now() - CASE last.verdict
    WHEN 'failed' THEN least(CAST(:every AS interval), interval '1 hour') ELSE CAST(:every AS interval) END
ORDER BY m.inference_service;
