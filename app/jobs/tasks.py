"""What the worker can do: one function a task, each on connections that it opens itself."""

import logging

import procrastinate
from procrastinate import RetryStrategy
from sqlalchemy import make_url, pool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.db.ddl import create_index_concurrently
from app.db.statements import statement
from app.domain.namespaces import load_catalog
from app.errors import NotFound
from app.retrieval.catalog import IndexState
from app.settings import Settings

log = logging.getLogger(__name__)


def register(app: procrastinate.App, url: str, settings: Settings) -> None:
    """Give the worker its tasks. `url` is the direct one: index builds hold a connection for hours."""

    @app.task(name="build_index", retry=RetryStrategy(max_attempts=3, wait=5))
    async def build(namespace_id: str, name: str) -> None:
        await build_index(url, settings, namespace_id, name)

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


async def build_index(url: str, settings: Settings, namespace_id: str, name: str) -> None:
    """Build a vector index beside readers and writers, and tell the catalog how it ended."""
    target = make_url(url).set(drivername="postgresql+psycopg")
    arguments = {"application_name": "pgretrieve-index-build"}
    engine = create_async_engine(target, poolclass=pool.NullPool, isolation_level="AUTOCOMMIT", connect_args=arguments)
    try:
        async with engine.connect() as conn:
            await _build(conn, settings, namespace_id, name)
    finally:
        await engine.dispose()


async def _build(conn: AsyncConnection, settings: Settings, namespace_id: str, name: str) -> None:
    try:
        catalog = await load_catalog(conn, namespace_id)
    except NotFound:
        return  # deleted since the job was deferred
    config = catalog.by_name.get(name)
    if config is None:
        return
    limits = {
        "memory": f"{settings.index_build_memory_mb}MB",
        "timeout": f"{settings.index_build_timeout_s}s",
    }
    await conn.execute(statement("set_build_limits"), limits)
    try:
        await create_index_concurrently(conn, catalog.schema, config, settings)
    except DBAPIError:
        await conn.rollback()  # gives a new connection where the server ended this one
        await _set_state(conn, namespace_id, name, "failed")
        raise
    place = {"schema": catalog.schema, "index_name": config.index_name}
    valid = (await conn.execute(statement("index_is_valid"), place)).scalar_one()
    await _set_state(conn, namespace_id, name, "ready" if valid else "failed")
    log.info("built index %s of %s: %s", name, namespace_id, "ready" if valid else "invalid")


async def _set_state(conn: AsyncConnection, namespace_id: str, name: str, state: IndexState) -> None:
    # One statement, so that in autocommit the state and the version change together.
    await conn.execute(statement("finish_index"), {"namespace_id": namespace_id, "name": name, "state": state})
