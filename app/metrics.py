"""What this process counts, for Prometheus. Labels are names of ours and of services, never what callers send."""

from prometheus_client import Counter, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
JOB_SECONDS = (0.01, 0.1, 1, 10, 60, 600, 3600)

service_calls = Counter(
    "pgretrieve_service_calls",
    "Calls of inference services, rerankers and language models, each with its retries: ok, failed, or refused (the "
    "input is at fault).",
    ["service", "outcome"],
)
service_seconds = Histogram(
    "pgretrieve_service_call_seconds",
    "How long those calls took, with waiting for a turn and retries.",
    ["service"],
    buckets=SECONDS,
)
searches = Counter(
    "pgretrieve_searches",
    "Searches that were run, by strategy, where there was one to choose: exact, hnsw or hnsw_iterative.",
    ["strategy"],
)
reads = Counter(
    "pgretrieve_replica_reads",
    "Statements that a replica could have answered, by what became of it: replica, or the primary, as it was too_old, "
    "behind a change of the catalog, or failed.",
    ["outcome"],
)
refused = Counter(
    "pgretrieve_rate_limited_requests",
    "Requests that were refused since their key had used up its limit, by the scope of the route.",
    ["scope"],
)
slow_statements = Counter(
    "pgretrieve_slow_statements", "Statements of retrievers that took longer than PGRETRIEVE_SLOW_STATEMENT_MS."
)
jobs = Counter("pgretrieve_jobs", "Background jobs that ran in this process: ok, or failed.", ["task", "outcome"])
job_seconds = Histogram("pgretrieve_job_seconds", "How long those took.", ["task"], buckets=JOB_SECONDS)
