"""Settings that are right each for itself and contradict each other."""

from collections.abc import Iterator

from sqlalchemy import make_url

from app.db.embedded.tuning import MIB, available_memory
from app.doctor.findings import Finding, fail, ok, warn
from app.settings import Settings

CLIENT_WAITS_S = 30  # the official client's read timeout
POOLER_PORTS = (6432, 6543)
CHECK = "settings"


def findings(settings: Settings) -> Iterator[Finding]:
    found = [*_database(settings), *_indexes(settings), *_limits(settings), *_times(settings)]
    yield from found or [ok(CHECK, "do not contradict each other")]


def _database(settings: Settings) -> Iterator[Finding]:
    if settings.database_url is None:
        if settings.direct_database_url is not None:
            message = "DIRECT_DATABASE_URL is set without DATABASE_URL: jobs would run on another database"
            yield fail(CHECK, message, "Set DATABASE_URL too, or remove DIRECT_DATABASE_URL.")
        return
    url = make_url(settings.database_url.get_secret_value())
    pooled = url.port in POOLER_PORTS or "pooler" in (url.host or "")
    if pooled and settings.direct_database_url is None:
        message = f"DATABASE_URL looks like a pooler ({url.host}:{url.port}), and DIRECT_DATABASE_URL is not set"
        todo = "Set DIRECT_DATABASE_URL to the server itself: the worker listens, and index builds hold a session."
        yield warn(CHECK, message, todo)
    if pooled and settings.prepare_statements:
        message = "DATABASE_URL looks like a pooler, and statements are prepared"
        todo = "PgBouncer before 1.21, or without max_prepared_statements: set PGRETRIEVE_PREPARE_STATEMENTS=false."
        yield warn(CHECK, message, todo)


def _indexes(settings: Settings) -> Iterator[Finding]:
    if settings.hnsw_ef_construction < 2 * settings.hnsw_m:
        message = (
            f"PGRETRIEVE_HNSW_EF_CONSTRUCTION ({settings.hnsw_ef_construction}) is less than twice "
            f"PGRETRIEVE_HNSW_M ({settings.hnsw_m}): pgvector refuses to build any index"
        )
        yield fail(CHECK, message, f"Set PGRETRIEVE_HNSW_EF_CONSTRUCTION to {2 * settings.hnsw_m} or more.")
    memory = available_memory() // MIB
    if settings.database_url is None and settings.index_build_memory_mb > memory // 2:
        message = f"PGRETRIEVE_INDEX_BUILD_MEMORY_MB ({settings.index_build_memory_mb}) is over half of {memory} MB"
        yield warn(CHECK, message, f"Set it to {memory // 4} or less, or an index build may end the server.")


def _limits(settings: Settings) -> Iterator[Finding]:
    for name in ("max_document_bytes", "max_input_bytes"):
        if getattr(settings, name) > settings.max_body_bytes:
            message = f"PGRETRIEVE_{name.upper()} is more than PGRETRIEVE_MAX_BODY_BYTES, so it is never reached"
            yield warn(CHECK, message, "Raise PGRETRIEVE_MAX_BODY_BYTES, or lower the other.")


def _times(settings: Settings) -> Iterator[Finding]:
    if settings.lock_timeout_ms >= settings.statement_timeout_ms:
        message = "PGRETRIEVE_LOCK_TIMEOUT_MS is not below PGRETRIEVE_STATEMENT_TIMEOUT_MS: DDL never gives way"
        yield warn(CHECK, message, "Set it to a second or so: everyone waits behind DDL that waits.")
    longest = {
        "PGRETRIEVE_STATEMENT_TIMEOUT_MS": settings.statement_timeout_ms / 1000,
        "PGRETRIEVE_LOCK_TIMEOUT_MS times PGRETRIEVE_LOCK_ATTEMPTS": (
            settings.lock_timeout_ms * settings.lock_attempts / 1000
        ),
        "PGRETRIEVE_INFERENCE_TIMEOUT_S": settings.inference_timeout_s,
        "PGRETRIEVE_POOL_TIMEOUT_S": settings.pool_timeout_s,
    }
    for name, seconds in longest.items():
        if seconds >= CLIENT_WAITS_S:
            message = f"{name} is {seconds:g} s; the official client waits {CLIENT_WAITS_S} s for an answer"
            yield warn(CHECK, message, "Lower it, or callers see a time-out instead of what went wrong.")
