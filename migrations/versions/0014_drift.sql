-- What mapped services made of fixed texts when they were first seen, and what became of it since.
CREATE TABLE pgretrieve.service_canaries (
    service text NOT NULL,
    canary smallint NOT NULL,
    model text NOT NULL,
    revision text NOT NULL,
    vector vector NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, canary)
);
COMMENT ON TABLE pgretrieve.service_canaries IS 'Vectors of fixed texts as a service made them when an index was first mapped to it, or when that was accepted anew.';
COMMENT ON COLUMN pgretrieve.service_canaries.service IS 'The inference service.';
COMMENT ON COLUMN pgretrieve.service_canaries.canary IS 'The number of the text.';
COMMENT ON COLUMN pgretrieve.service_canaries.model IS 'The model by its name.';
COMMENT ON COLUMN pgretrieve.service_canaries.revision IS 'The fingerprint of the service''s definition.';
COMMENT ON COLUMN pgretrieve.service_canaries.vector IS 'What the service made of the text.';
COMMENT ON COLUMN pgretrieve.service_canaries.made_at IS 'When.';

CREATE TABLE pgretrieve.service_probes (
    probe_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service text NOT NULL,
    model text NOT NULL,
    revision text NOT NULL,
    probed_at timestamptz NOT NULL DEFAULT now(),
    verdict text NOT NULL CHECK (verdict IN ('first', 'same', 'changed', 'failed')),
    min_cosine double precision,
    error jsonb
);
-- Serves the last probe of a service.
CREATE INDEX service_probes_service ON pgretrieve.service_probes (service, probe_id DESC);
COMMENT ON TABLE pgretrieve.service_probes IS 'Each comparison of a service with what it made of the same texts at first: whether its provider has changed the model.';
COMMENT ON COLUMN pgretrieve.service_probes.probe_id IS 'Its number.';
COMMENT ON COLUMN pgretrieve.service_probes.service IS 'The inference service.';
COMMENT ON COLUMN pgretrieve.service_probes.model IS 'The model by its name.';
COMMENT ON COLUMN pgretrieve.service_probes.revision IS 'The fingerprint of the service''s definition.';
COMMENT ON COLUMN pgretrieve.service_probes.probed_at IS 'When.';
COMMENT ON COLUMN pgretrieve.service_probes.verdict IS 'first: there was nothing to compare with; same; changed; failed: the service did not answer.';
COMMENT ON COLUMN pgretrieve.service_probes.min_cosine IS 'The least cosine similarity of one of the texts with itself.';
COMMENT ON COLUMN pgretrieve.service_probes.error IS 'Why it failed: {code, message}.';
