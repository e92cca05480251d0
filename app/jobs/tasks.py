"""What the worker can do: one function a task, each on connections that it opens itself."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import procrastinate
from procrastinate import JobContext, RetryStrategy
from sqlalchemy import make_url, pool
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.db.engine import transaction
from app.db.statements import statement
from app.domain.background import requested, work, working
from app.domain.catalog import lexical
from app.domain.catalog.namespaces import load_catalog
from app.domain.content import blobs
from app.domain.indexing import index_builds, index_repair, payload_builds
from app.domain.models import drift, filling_up, migrating
from app.domain.retrieving import functions
from app.domain.runtime import Runtime
from app.domain.security import audit
from app.errors import NotFound
from app.inference.base import Task
from app.retrieval.catalog import FieldIndex
from app.settings import Settings

# After the first try.
BUILD_RETRIES = 3
log = logging.getLogger(__name__)

# Of one slice, with growing pauses: more than half an hour in all. What a provider refuses is tried by the work itself.
BACKFILL_TRIES = 10
# Of a text that an analyst waits for.
REQUEST_TRIES = 4


def register(app: procrastinate.App, url: str, runtime: Runtime) -> None:
    """Give the worker its tasks. `url` is the direct one: index builds hold a connection for hours."""
    _register_work(app, runtime)
    _register_vector_indexes(app, url, runtime)
    _register_migrations(app, runtime)
    _register_indexes(app, url, runtime.settings)
    _register_upkeep(app, url, runtime)
    _register_blobs(app, url, runtime)


def _register_work(app: procrastinate.App, runtime: Runtime) -> None:
    @app.task(name="do_work", retry=RetryStrategy(max_attempts=10, exponential_wait=2))
    async def do_work(namespace_id: str) -> None:
        await working.do_all(runtime, namespace_id)

    @app.task(name="backfill", pass_context=True, retry=RetryStrategy(max_attempts=BACKFILL_TRIES, exponential_wait=2))
    async def backfill(context: procrastinate.JobContext, task_id: str, number: int) -> None:
        try:
            await filling_up.run_slice(runtime, task_id, number)
        except Exception as error:
            if context.job.attempts >= BACKFILL_TRIES:
                await filling_up.give_up(runtime, task_id, error)
            raise

    @app.periodic(cron="* * * * *")
    @app.task(name="probe_services", queueing_lock="probe_services", lock="probe_services")
    async def probe(timestamp: int) -> None:  # noqa: ARG001 - procrastinate says when
        await drift.probe_due(runtime)

    @app.task(name="embed_requested", pass_context=True, retry=RetryStrategy(max_attempts=REQUEST_TRIES, wait=2))
    async def embed_requested(context: procrastinate.JobContext, service: str, task: Task, input_hash: str) -> None:
        last = context.job.attempts >= REQUEST_TRIES
        await requested.answer(runtime, service, task, bytes.fromhex(input_hash), last=last)

    @app.periodic(cron="* * * * *")
    @app.task(name="sweep_requests", queueing_lock="sweep_requests", lock="sweep_requests")
    async def sweep_requests(timestamp: int) -> None:  # noqa: ARG001 - procrastinate says when
        await requested.sweep(runtime)

    @app.periodic(cron="* * * * *")
    @app.task(name="sweep_work", queueing_lock="sweep_work", lock="sweep_work")
    async def sweep(timestamp: int) -> None:  # noqa: ARG001 - procrastinate says when
        async with transaction(runtime.engine, runtime.settings) as conn:
            await work.sweep(conn, runtime.settings)


def _register_migrations(app: procrastinate.App, runtime: Runtime) -> None:
    @app.task(name="migrate_model", retry=RetryStrategy(max_attempts=10, exponential_wait=2))
    async def migrate_model(migration_id: str) -> None:
        await migrating.advance(runtime, migration_id)

    @app.periodic(cron="* * * * *")
    @app.task(name="sweep_migrations", queueing_lock="sweep_migrations", lock="sweep_migrations")
    async def sweep(timestamp: int) -> None:  # noqa: ARG001 - procrastinate says when
        async with transaction(runtime.engine, runtime.settings) as conn:
            await migrating.sweep(conn)


def _register_vector_indexes(app: procrastinate.App, url: str, runtime: Runtime) -> None:
    @app.task(name="build_index", pass_context=True, retry=RetryStrategy(max_attempts=BUILD_RETRIES, wait=5))
    async def build(context: JobContext, namespace_id: str, name: str, task_id: str | None = None) -> None:
        last = context.job.attempts >= BUILD_RETRIES
        async with connecting(url, runtime.settings) as conn:
            await index_builds.run(runtime, conn, namespace_id, name, task_id, last=last)

    @app.task(name="drop_loose_indexes", retry=RetryStrategy(max_attempts=3, wait=5))
    async def drop_loose(namespace_id: str) -> None:
        async with connecting(url, runtime.settings) as conn:
            with suppress(NotFound):  # deleted meanwhile, with all its indexes
                dropped = await index_builds.drop_loose(conn, await load_catalog(conn, namespace_id))
                log.info("dropped what builds had left in %s: %s", namespace_id, ", ".join(dropped) or "nothing")

    @app.periodic(cron="* * * * *")
    @app.task(name="sweep_indexes", queueing_lock="sweep_indexes", lock="sweep_indexes")
    async def sweep(timestamp: int) -> None:  # noqa: ARG001 - procrastinate says when
        async with transaction(runtime.engine, runtime.settings) as conn:
            await index_repair.defer_sweeps(conn)


def _register_indexes(app: procrastinate.App, url: str, settings: Settings) -> None:
    @app.task(name="build_payload_index", retry=RetryStrategy(max_attempts=3, wait=5))
    async def build_payload(namespace_id: str, number: int) -> None:
        async with connecting(url, settings) as conn:
            if await payload_builds.build(conn, namespace_id, number):
                log.info("built payload index %d of %s", number, namespace_id)

    @app.task(name="drop_payload_index", retry=RetryStrategy(max_attempts=3, wait=5))
    async def drop_payload(schema: str, index: dict[str, Any]) -> None:
        async with connecting(url, settings) as conn:
            await payload_builds.drop(conn, schema, FieldIndex(**index))

    @app.task(name="build_lexical_index", retry=RetryStrategy(max_attempts=3, wait=5))
    async def build_lexical(namespace_id: str) -> None:
        async with connecting(url, settings) as conn:
            built = await lexical.build(conn, namespace_id)
            await functions.follow(conn, namespace_id)
        log.info("built the lexical index of %s: %s", namespace_id, "ready" if built else "another one by now")


def _register_blobs(app: procrastinate.App, url: str, runtime: Runtime) -> None:
    @app.periodic(cron="17 * * * *")
    @app.task(name="sweep_blobs", queueing_lock="sweep_blobs", lock="sweep_blobs")
    async def sweep(timestamp: int) -> None:  # noqa: ARG001 - procrastinate says when
        async with connecting(url, runtime.settings) as conn:
            swept = await blobs.sweep(conn, runtime.blobs, runtime.settings)
        log.info("swept %d uploads, %d blobs and %d files that nobody knew", swept.uploads, swept.blobs, swept.strays)


def _register_upkeep(app: procrastinate.App, url: str, runtime: Runtime) -> None:
    settings = runtime.settings

    @app.periodic(cron="23 * * * *")
    @app.task(name="forget_audit_events", queueing_lock="forget_audit_events", lock="forget_audit_events")
    async def forget(timestamp: int) -> None:  # noqa: ARG001 - procrastinate says when
        log.info("removed %d audit events that were too old", await audit.forget_old(runtime))

    @app.periodic(cron="* * * * *")
    @app.task(name="analyze_documents", queueing_lock="analyze_documents", lock="analyze_documents")
    async def analyze(timestamp: int) -> None:  # noqa: ARG001 - procrastinate says when
        async with connecting(url, settings) as conn:
            for schema in await payload_builds.analyze_grown(conn):
                log.info("took new statistics of %s", schema)

    @app.periodic(cron="* * * * *")
    @app.task(name="merge_lexical_indexes", queueing_lock="merge_lexical_indexes", lock="merge_lexical_indexes")
    async def merge(timestamp: int) -> None:  # noqa: ARG001 - procrastinate says when
        async with connecting(url, settings) as conn:
            for schema in await lexical.merge_due(conn):
                log.info("merged the postings of %s", schema)

    @app.periodic(cron="* * * * *")
    @app.task(name="revive_jobs", queueing_lock="revive_jobs")
    async def every_minute(timestamp: int) -> None:  # noqa: ARG001 - procrastinate says when
        await revive_jobs(app)


async def revive_jobs(app: procrastinate.App) -> int:
    """Give jobs back whose worker is gone: nobody else would, and their locks would hold up others for ever."""
    stalled = list(await app.job_manager.get_stalled_jobs())
    for job in stalled:
        log.warning("the worker of job %s (%s) is gone; it is run again", job.id, job.task_name)
        await app.job_manager.retry_job(job)
    return len(stalled)


@asynccontextmanager
async def connecting(url: str, settings: Settings) -> AsyncIterator[AsyncConnection]:
    """A connection of the job's own, in autocommit, with the limits of index builds."""
    target = make_url(url).set(drivername="postgresql+psycopg")
    arguments = {"application_name": "pgretrieve-index-build"}
    engine = create_async_engine(target, poolclass=pool.NullPool, isolation_level="AUTOCOMMIT", connect_args=arguments)
    limits = {
        "memory": f"{settings.index_build_memory_mb}MB",
        "workers": str(settings.index_build_workers),
        "timeout": f"{settings.index_build_timeout_s}s",
    }
    try:
        async with engine.connect() as conn:
            await conn.execute(statement("set_build_limits"), limits)
            yield conn
    finally:
        await engine.dispose()
