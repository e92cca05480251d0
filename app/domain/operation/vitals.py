"""Whether this process can serve, and what waits in the queue: asked of the database seldom, and briefly."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import sqlalchemy as sa
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.db import migrate
from app.db.statements import statement
from app.domain.runtime import Runtime
from app.errors import PgretrieveError, Unavailable

READY_FOR_S = 1.0  # one look at the database serves all who ask within it, for nobody needs a key to ask
QUEUE_FOR_S = 10.0
WORKER_ALIVE_S = 60.0

GAUGES = {
    "pgretrieve_database_up": "Whether the database answered the last time that it was asked.",
    "pgretrieve_jobs_waiting": "Background jobs that wait to be run, those of a later time included.",
    "pgretrieve_jobs_running": "Background jobs that run, in all workers.",
    "pgretrieve_jobs_failed": "Background jobs that failed for good and are kept.",
    "pgretrieve_jobs_oldest_seconds": "How long the job that has been due for longest has waited.",
    "pgretrieve_work_waiting": "Pieces of content that are yet to be embedded or extracted.",
    "pgretrieve_work_dead": "Pieces of content whose making failed for good: dead letters.",
    "pgretrieve_work_oldest_seconds": "How long the oldest piece that is due has waited.",
    "pgretrieve_workers_alive": "Workers that showed a sign of life within a minute.",
}


async def ready(runtime: Runtime) -> dict[str, str]:
    """What was checked, each ok; `Unavailable` says what is not. Past the pool, which may be busy for good reason."""
    known = runtime.vitals
    async with known.lock:
        if known.ready is None or known.ready_until < time.monotonic():
            known.ready = await _look(runtime)
            known.ready_until = time.monotonic() + READY_FOR_S
    if isinstance(known.ready, Unavailable):
        raise Unavailable(known.ready.message, code=known.ready.error_code)
    return known.ready


async def _look(runtime: Runtime) -> dict[str, str] | Unavailable:
    seconds = runtime.settings.health_timeout_s
    try:
        async with asyncio.timeout(seconds), _apart(runtime) as conn:
            await conn.execute(statement("ping"))
            revision = await conn.run_sync(migrate.revision)
            # A newer one is that of the next version, which this one still works with: expand, migrate, contract.
            if revision is None or (revision != migrate.head() and migrate.knows(revision)):
                message = f"The schema is at revision {revision or 'none'}; run `pgretrieve migrate`."
                return Unavailable(message, code="schema_outdated")
            if runtime.settings.health_worker and not await _workers(conn):
                return Unavailable("No worker has shown a sign of life for a minute.", code="no_worker")
    except (SQLAlchemyError, psycopg.Error, OSError, TimeoutError) as error:
        what = f"within {seconds:g} s" if isinstance(error, TimeoutError) else f"({type(error).__name__})"
        return Unavailable(f"The database does not answer {what}.", code="database_unavailable")
    return {"database": "ok", "schema": revision, **({"worker": "ok"} if runtime.settings.health_worker else {})}


async def _workers(conn: AsyncConnection) -> int:
    return int((await conn.execute(statement("workers_alive"), {"seconds": WORKER_ALIVE_S})).scalar_one())


@asynccontextmanager
async def _apart(runtime: Runtime) -> AsyncIterator[AsyncConnection]:
    """A connection that is not the pool's."""
    arguments = {"application_name": "pgretrieve-health", "connect_timeout": 10, "prepare_threshold": None}
    engine = create_async_engine(runtime.engine.url, poolclass=sa.NullPool, connect_args=arguments)
    try:
        async with engine.connect() as conn:
            yield conn
    finally:
        await engine.dispose()


async def refresh(runtime: Runtime) -> None:
    """Ask what waits, unless that was asked a moment ago; a database that does not answer is a metric, too."""
    known, seconds = runtime.vitals, runtime.settings.health_timeout_s
    async with known.lock:
        if known.queue_until > time.monotonic():
            return
        try:
            async with asyncio.timeout(seconds), _apart(runtime) as conn:
                found = (await conn.execute(statement("vitals"), {"seconds": WORKER_ALIVE_S})).one()
            known.queue = {f"pgretrieve_{name}": float(value) for name, value in found._mapping.items()}
            known.queue["pgretrieve_database_up"] = 1.0
        except (SQLAlchemyError, psycopg.Error, PgretrieveError, OSError, TimeoutError):
            known.queue = {"pgretrieve_database_up": 0.0}
        known.queue_until = time.monotonic() + QUEUE_FOR_S


class Collected(CollectorRegistry):
    """What the process counts, and beside it what is looked up: the pool, and what waits."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(auto_describe=False)
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect()
        pool: Any = self._runtime.engine.pool
        connections = GaugeMetricFamily("pgretrieve_pool_connections", "Connections of the pool.", labels=["state"])
        connections.add_metric(["in_use"], pool.checkedout())
        connections.add_metric(["idle"], pool.checkedin())
        yield connections
        yield GaugeMetricFamily("pgretrieve_pool_size", "Connections that the pool may hold.", pool.size())
        if self._runtime.replica is not None:
            lag = self._runtime.replica.lag_s
            yield GaugeMetricFamily("pgretrieve_replica_lag_seconds", "How old at most what the replica has is.", lag)
        for name, value in self._runtime.vitals.queue.items():
            yield GaugeMetricFamily(name, GAUGES[name], value)
