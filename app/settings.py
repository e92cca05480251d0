"""Every setting, read once from the environment and passed on; nothing imports an instance.

Names are `PGRETRIEVE_` plus the field in capitals, but for the three that have a name of their own.
`docs/settings.md` is generated from the descriptions below, and a test proves that it is current.
"""

from pathlib import Path
from typing import Any, Literal

from platformdirs import user_data_path
from pydantic import Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsConfigDict

from app.settings_operation import Operation


class Settings(Operation):
    """What a deployment can choose. Times are in the unit that the name ends with."""

    model_config = SettingsConfigDict(env_prefix="PGRETRIEVE_", frozen=True, extra="ignore", populate_by_name=True)

    # Where things are
    database_url: SecretStr | None = Field(
        None,
        validation_alias="DATABASE_URL",
        description="PostgreSQL to use (16 or newer, pgvector 0.8.4 or newer), as `postgresql://…`. "
        "Without it an embedded server is started in the data directory.",
    )
    direct_database_url: SecretStr | None = Field(
        None,
        validation_alias="DIRECT_DATABASE_URL",
        description="The same database without a pooler between, for the worker and for migrations. "
        "Default: `DATABASE_URL`.",
    )
    read_database_url: SecretStr | None = Field(
        None,
        validation_alias="READ_DATABASE_URL",
        description="A streaming replica of the same database, which executions of retrievers read from while it is "
        "fresh ([replicas](replicas.md)). Default: none.",
    )
    analyst_database_url: SecretStr | None = Field(
        None,
        description="The same database as the analysts' own login, which may only read: stored look-ups (the stage "
        "`sql_lookup`) run as that. Without it there are none.",
    )
    data_dir: Path = Field(
        default_factory=lambda: user_data_path("pgretrieve"),
        description="Where the embedded server keeps its data, and the first start its root key.",
    )
    host: str = Field("127.0.0.1", description="Address that `serve` listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port that `serve` listens on; 0 picks a free one.")
    root_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="API key with every right, 16 characters or more. Without it `serve` makes one at its "
        "first start and keeps it in `root.key` (mode 600) in the data directory.",
    )
    public_url: str | None = Field(
        None,
        pattern="^https?://[^/?#]+(/[^?#]*)?$",
        description="Address at which clients reach this server, as `https://api.example.com`, for the addresses of "
        "uploads. Default: that of the request.",
    )
    worker: bool = Field(True, description="Whether `serve` runs the worker for background jobs.")

    # The database
    pool_size: int = Field(10, ge=1, le=500, description="Connections that the service holds at most.")
    pool_timeout_s: float = Field(5.0, gt=0, description="How long a request waits for a connection (503 after it).")
    replica_lag_s: float = Field(
        5.0, gt=0, description="How old what the replica answers may be; when it is older, the primary is read."
    )
    replica_wait_s: float = Field(
        0.5,
        ge=0,
        description="How long a read that must see a write waits for the replica, before the primary is read.",
    )
    prepare_statements: bool = Field(
        True, description="Set to false behind a pooler that cannot hold prepared statements."
    )
    statement_timeout_ms: int = Field(20_000, ge=100, description="Longest run of one statement of a request.")
    lock_timeout_ms: int = Field(
        1_500,
        ge=10,
        description="How long promotion and other DDL wait for a lock before they back off. Autovacuum lets go only of "
        "who waits longer than PostgreSQL's `deadlock_timeout` (1 s).",
    )
    lock_attempts: int = Field(
        5, ge=1, le=20, description="How often DDL is tried, with jitter, before it answers 409."
    )

    proof_rows: int = Field(
        64, ge=5, le=1_000, description="Stored rows that a promotion's proof embeds anew, at most."
    )
    proof_timeout_s: float = Field(
        15.0,
        gt=0,
        description="Longest proof of one request, for all its indexes; what it has by then is judged. It comes before "
        "the promotion, for which `PGRETRIEVE_REQUEST_TIMEOUT_S` must leave time.",
    )

    # Limits of a request
    max_body_bytes: int = Field(64 * 2**20, ge=1024, description="Largest request body, in bytes (413 above it).")
    max_documents: int = Field(1_000, ge=1, description="Documents in one upsert.")
    max_document_bytes: int = Field(2**20, ge=1024, description="Largest payload plus metadata of one document.")
    max_multi_vectors: int = Field(1_024, ge=1, description="Vectors in one multi-vector.")
    max_groups: int = Field(10_000, ge=1, description="Groups in one aggregation, and values in one `distinct`.")
    idempotency_hours: float = Field(24, gt=0, description="How long the answer to an idempotency key is kept.")
    max_dimension: int = Field(
        16_000, ge=1, le=16_000, description="Largest dimension; pgvector's own limit is 16,000."
    )
    max_vector_configs: int = Field(64, ge=1, le=500, description="Vector configs in one namespace.")
    max_stages: int = Field(20, ge=1, description="Stages in one retriever.")
    max_searches: int = Field(10, ge=1, description="Searches in one `feature_search` stage.")
    max_query_vectors: int = Field(256, ge=1, description="Vectors in one multi-vector that is searched for.")
    max_query_contents: int = Field(16, ge=1, description="Texts and vectors in one query of several.")
    max_facets: int = Field(20, ge=1, description="Facets of one `feature_search` stage.")
    max_top_k: int = Field(5_000, ge=1, description="Largest `top_k` and `final_top_k`.")
    max_host_rows: int = Field(
        1_000, ge=1, le=10_000, description="Documents that go from a statement to a stage on the host; more are told."
    )
    max_query_words: int = Field(256, ge=1, le=10_000, description="Words of one lexical query that count, the first.")
    max_filter_depth: int = Field(8, ge=1, le=50, description="How deep filters may nest.")
    max_filter_conditions: int = Field(200, ge=1, description="Conditions in one filter.")
    max_page_size: int = Field(1_000, ge=1, description="Largest `limit` of a list.")
    max_input_bytes: int = Field(
        8 * 2**20, ge=1024, description="Largest `inputs` of one execution; images in base64 are the large ones."
    )
    max_result_page: int = Field(
        500, ge=1, le=10_000, description="Documents in one page of an execution; larger asks are cut to it and told."
    )
    max_batch_queries: int = Field(16, ge=1, le=1_000, description="Queries in one `execute/batch`.")
    max_batch_concurrency: int = Field(
        5, ge=1, le=100, description="Queries of one batch that run at a time; keep it well below the pool's size."
    )
    request_timeout_s: float = Field(
        25.0,
        gt=0,
        description="Longest time from a request's last byte to its answer's first (503 after it). The official "
        "client waits 30 seconds.",
    )
    legacy_results: bool = Field(
        True,
        description="Whether an execution's answer has its documents as `results`, too, which langchain-mixpeek reads.",
    )
    max_clone_documents: int = Field(
        50_000, ge=1, description="Documents in a namespace that is cloned, which is done within the request."
    )

    # Buckets and their blobs
    blob_store: str | None = Field(
        None,
        pattern="^(file:///|s3://[^/]+)",
        description="Where blobs lie: `file:///folder` or `s3://bucket/prefix`. Default: `blobs` in the data folder.",
    )
    blob_store_endpoint: str | None = Field(
        None, description="Endpoint of an S3-compatible store, as `https://minio.example.com`. Default: Amazon's."
    )
    blob_store_region: str | None = Field(None, description="Region of the S3 bucket. Default: `AWS_REGION`'s.")
    blob_store_access_key_id: SecretStr | None = Field(
        None, description="Access key of the S3 store. Without it the usual `AWS_…` variables or roles are used."
    )
    blob_store_secret_access_key: SecretStr | None = Field(None, description="The secret of that access key.")
    blob_store_timeout_s: float = Field(
        20.0, gt=0, description="Longest request to the S3 store; a large blob is written in several."
    )
    blob_store_retries: int = Field(
        3, ge=0, le=10, description="Retries of a request that failed for a passing reason."
    )
    blob_grace_hours: float = Field(
        24, ge=1, description="How long blobs that no object refers to are kept; longer than any request takes."
    )
    max_blob_bytes: int = Field(
        2**30,
        ge=1,
        description="Largest blob. One within a request's body is limited by `PGRETRIEVE_MAX_BODY_BYTES`, too.",
    )
    max_object_bytes: int = Field(2**20, ge=1024, description="Largest fields of one object, without its blobs.")
    max_object_blobs: int = Field(100, ge=1, description="Blobs of one object.")
    max_batch_objects: int = Field(100, ge=1, description="Objects, or uploads, in one batch.")
    max_schema_fields: int = Field(500, ge=1, description="Fields in the schema of one bucket, nested ones included.")
    upload_hours: float = Field(
        168, ge=0, description="How long an upload is kept after its address has ended, with what no object took of it."
    )

    # Vector indexes
    hnsw_m: int = Field(16, ge=2, le=100, description="HNSW: links of an element in each layer.")
    hnsw_ef_construction: int = Field(64, ge=4, le=1000, description="HNSW: candidate list while building.")
    hnsw_ef_search: int = Field(
        64,
        ge=1,
        le=1000,
        description="HNSW: candidates of a search for up to 16 rows of up to 100,000 documents at a recall of 0.97; "
        "more are taken for more rows, documents and recall, and with filters.",
    )
    estimate_seconds: float = Field(
        60, ge=0, description="How long the estimate of what a filter keeps is believed; 0 asks for each execution."
    )
    index_advice_documents: int = Field(
        1_000,
        ge=0,
        description="Documents from which on an answer warns of a filter that no payload index serves.",
    )
    adaptive_indexes: int = Field(
        8, ge=0, le=100, description="Payload indexes of a namespace that are made from what filters use; 0 makes none."
    )
    adaptive_index_uses: int = Field(
        20, ge=1, description="Uses of a field without an index, in one process, after which one is built."
    )
    adaptive_index_documents: int = Field(10_000, ge=0, description="Documents below which none is.")
    index_build_memory_mb: int = Field(256, ge=16, description="`maintenance_work_mem` of an index build.")
    index_build_workers: int = Field(
        2,
        ge=0,
        le=64,
        description="Processes that help with an index build, at most (`max_parallel_maintenance_workers`); the "
        "server's `max_parallel_workers` and the build's memory bound them, too.",
    )
    index_build_timeout_s: int = Field(6 * 3600, ge=60, description="Longest build of one vector index.")

    # Work: what is embedded and extracted in the background
    worker_concurrency: int = Field(2, ge=1, le=100, description="Jobs that a worker runs at a time.")
    worker_stop_s: float = Field(
        10.0, ge=0, description="How long jobs that have begun may run on when their worker is told to stop."
    )
    work_lease_s: float = Field(
        120.0, ge=5, description="How long a worker has for what it has taken, before another may take it."
    )
    work_attempts: int = Field(
        20, ge=1, le=1000, description="Tries of one piece of work, with growing pauses, before it is a dead letter."
    )
    migration_queries: int = Field(
        200, ge=1, le=10_000, description="Queries that a migration of models samples from executions, to compare on."
    )
    work_batch: int = Field(64, ge=1, le=2048, description="Texts that a worker takes at a time.")

    drift_probe_hours: float = Field(
        24.0,
        ge=0,
        description="How often mapped services are asked whether they make of fixed texts what they made at first; 0: "
        "never.",
    )

    # Imports
    max_import_bytes: int = Field(
        2**30,
        ge=1024,
        description="Largest Parquet file that is imported over HTTP; it lies in the folder for temporary files "
        "meanwhile. JSON lines, which are stored while they come, have no such limit.",
    )
    source_api_key: SecretStr | None = Field(
        None, description="Key for the server of Qdrant or Chroma that `pgretrieve import --from` reads."
    )

    # Inference
    openai_api_key: SecretStr | None = Field(
        None, validation_alias="OPENAI_API_KEY", description="Key for the `openai_*` services."
    )
    openai_base_url: str | None = Field(
        None,
        validation_alias="OPENAI_BASE_URL",
        description="Another endpoint that speaks OpenAI's protocol.",
    )
    clip_checkpoint: str | None = Field(
        None,
        description="An open_clip checkpoint of ViT-B-32 for `clip_vit_b32`: a file (`.pt` or `.safetensors`), or the "
        "name of published weights (`laion2b_s34b_b79k`) that lie in the cache of Hugging Face. Nothing is downloaded.",
    )
    model_dir: Path | None = Field(
        None, description="Folder of models that stored services of the providers `onnx` and `open_clip` may name."
    )
    secret_prefix: str = Field(
        "PGRETRIEVE_SECRET_",
        pattern="^[A-Z][A-Z0-9_]*_$",
        description="How the names of the environment variables begin that stored services may refer to as secrets.",
    )
    inference_timeout_s: float = Field(
        15.0, gt=0, description="Longest call to an inference service, with its retries and the wait for its turn."
    )
    inference_retries: int = Field(2, ge=0, le=10, description="Retries of a call that failed for a passing reason.")
    inference_batch: int = Field(64, ge=1, le=2048, description="Inputs in one call to a service.")
    inference_concurrency: int = Field(
        8, ge=1, le=1000, description="Calls of a process to one remote service at a time; others wait."
    )
    inference_requests_per_minute: int = Field(
        3_000, ge=0, description="Calls of a process to one remote service in a minute; 0 is no limit."
    )
    inference_cache_mb: int = Field(
        64, ge=0, description="Memory of a process for vectors of texts that it embedded before; 0 keeps none."
    )
    inference_cache_rows: int = Field(
        100_000,
        ge=0,
        description="Vectors of remote services that are kept in the database, the newest; 0 keeps none.",
    )
    inference_threads: int = Field(2, ge=1, le=256, description="Threads of the local models.")
    max_text_chars: int = Field(100_000, ge=1, description="Longest text that is embedded, in characters.")
    max_image_bytes: int = Field(
        20 * 2**20, ge=1024, description="Largest file of an image that is embedded, in bytes."
    )
    max_image_pixels: int = Field(
        50_000_000, ge=1024, le=89_000_000, description="Most pixels of an image that is decoded."
    )
    inference_queue: int = Field(
        256,
        ge=1,
        description="Inputs that wait for one local image model; more are refused (503) until it has caught up.",
    )
    max_inference_texts: int = Field(256, ge=1, description="Texts or images in one `POST /v1/inference`.")
    rerankers: dict[str, dict[str, Any]] = Field(
        {},
        description="Further rerankers for the stage `rerank`, as JSON: "
        '`{"mine": {"kind": "tei", "base_url": "http://…"}}` ([kinds](services.md#rerankers)).',
    )

    # Extractors
    extract_max_bytes: int = Field(
        64 * 2**20, ge=1024, description="Most bytes of an object's blobs that an extractor reads, all together."
    )
    extract_max_inflated_bytes: int = Field(
        256 * 2**20, ge=1024, description="Most bytes that a compressed file (DOCX, Parquet) may say it unfolds to."
    )
    extract_max_chars: int = Field(20_000_000, ge=1, description="Longest text of one file, in characters.")
    extract_max_pages: int = Field(5_000, ge=1, description="Pages of one PDF.")
    extract_max_documents: int = Field(
        100_000, ge=1, description="Documents that an extractor makes of one object: chunks, or rows."
    )
    extract_max_pixels: int = Field(
        64_000_000, ge=1, le=89_478_485, description="Pixels of one image; Pillow itself warns above 89,478,485."
    )
    extract_image_px: int = Field(
        1_024, ge=32, le=8_192, description="Longest side of the image that is handed to an image service, in pixels."
    )
    thumbnail_px: int = Field(320, ge=16, le=4_096, description="Longest side of a thumbnail, in pixels.")
    thumbnail_format: Literal["webp", "jpeg"] = Field("webp", description="What thumbnails are.")
    extract_processes: int = Field(
        2, ge=1, le=64, description="Processes of a worker that read files; each reads one object at a time."
    )
    extract_timeout_s: float = Field(
        60.0, gt=0, description="Longest work on one object, after which its process is ended."
    )
    extract_memory_mb: int = Field(
        1_024, ge=256, description="Memory of the process that reads files, on Linux; without it a file is refused."
    )

    # Language models and other servers
    chat_base_url: str | None = Field(
        None,
        description="Endpoint that speaks OpenAI's chat protocol, for the stages that ask a language model. "
        "Default: that of the `openai_*` services, with its key.",
    )
    chat_api_key: SecretStr | None = Field(None, description="Key for that endpoint, where it asks for one.")
    chat_model: str = Field("gpt-4o-mini", description="Model that is asked where a stage names none.")
    chat_timeout_s: float = Field(20.0, gt=0, description="Longest call to it, with its retries and its wait.")
    chat_concurrency: int = Field(8, ge=1, le=1000, description="Calls of a process to it at a time; others wait.")
    chat_max_prompt_chars: int = Field(200_000, ge=100, description="Longest prompt, in characters.")
    chat_max_calls: int = Field(100, ge=1, description="Calls to it by one stage of one execution.")
    chat_max_tokens: int = Field(
        200_000, ge=1, description="Tokens, read and written, after which one stage of one execution makes no call."
    )
    fetch_networks: str = Field(
        "",
        description="Networks outside the public Internet that `api_call` and URLs of content may reach all the same, "
        "as `10.1.0.0/16,fd00::/8`.",
    )
    fetch_max_bytes: int = Field(10 * 2**20, ge=1024, description="Largest answer that `api_call` reads, in bytes.")
    fetch_timeout_s: float = Field(
        10.0, gt=0, description="Longest time for the content of one URL, redirects included."
    )
    fetch_redirects: int = Field(3, ge=0, le=20, description="Redirects that are followed for the content of one URL.")
    secret_hosts: str = Field(
        "",
        description="Hosts that `api_call` may send secrets to, as `api.example.com,*.example.org`. None by default, "
        "since whoever writes a retriever chooses where its requests go.",
    )


def ordered() -> list[tuple[str, FieldInfo]]:
    """Every setting, this class's own first."""
    own = Settings.__annotations__
    return sorted(Settings.model_fields.items(), key=lambda field: field[0] not in own)
