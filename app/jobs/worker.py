"""The worker: runs jobs until it is told to stop."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import procrastinate

from app import tracing
from app.db.engine import create_engine, transaction
from app.domain.background import work
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.jobs.queue import worker_app
from app.jobs.tasks import register, revive_jobs
from app.jobs.watching import metrics_served, watched
from app.settings import Settings

log = logging.getLogger(__name__)

# Between the tries of a worker to reach a database that went away.
PAUSE_S = 1.0


async def drain(url: str, runtime: Runtime) -> None:
    """Run the jobs that are due, and return when there are none left."""
    app = worker_app(url)
    register(app, url, runtime)
    async with app.open_async():
        await app.run_worker_async(
            wait=False, install_signal_handlers=False, listen_notify=False, worker_middleware=[watched]
        )


@asynccontextmanager
async def alone(url: str, settings: Settings) -> AsyncIterator[None]:
    """A worker with a pool and services of its own."""
    direct = settings.direct_database_url.get_secret_value() if settings.direct_database_url else url
    engine = create_engine(direct, settings, application_name="pgretrieve-worker")
    runtime = Runtime(settings, engine, Inference.from_settings(settings))
    traces = tracing.provider(settings, "worker")
    try:
        with metrics_served(runtime):
            async with running(direct, runtime):
                yield
    finally:
        await runtime.close()
        tracing.stop(traces)


@asynccontextmanager
async def running(url: str, runtime: Runtime) -> AsyncIterator[None]:
    """A worker beside the service: wakes by LISTEN, polls as a fallback, lets its jobs end for a while. It ends with
    the block, and not before: after a restart of the database it goes on by itself."""
    app = await _open(url, runtime)
    worker = asyncio.create_task(_keep_running(app, url, runtime), name="worker")
    try:
        yield
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


async def _open(url: str, runtime: Runtime) -> procrastinate.App:
    """Connect, and take up what workers that are gone have left."""
    app = worker_app(url)
    register(app, url, runtime)
    await app.open_async()
    try:
        await revive_jobs(app)
        async with transaction(runtime.engine, runtime.settings) as conn:
            await work.sweep(conn, runtime.settings)
    except BaseException:
        await app.close_async()
        raise
    return app


async def _keep_running(app: procrastinate.App, url: str, runtime: Runtime) -> None:
    """Procrastinate's worker stops, with a line in the log, as soon as it cannot reach the database."""
    settings = runtime.settings
    while True:
        try:
            await app.run_worker_async(
                install_signal_handlers=False,
                concurrency=settings.worker_concurrency,
                shutdown_graceful_timeout=settings.worker_stop_s,
                delete_jobs="successful",
                worker_middleware=[watched],
            )
        except Exception:
            log.exception("the worker has failed")
        finally:
            await app.close_async()
        app = await _reopen(url, runtime)


async def _reopen(url: str, runtime: Runtime) -> procrastinate.App:
    while True:
        await asyncio.sleep(PAUSE_S)
        try:
            app = await _open(url, runtime)
        except Exception as error:  # whatever it is now, it may pass, and nobody else would begin again
            log.warning("the worker cannot begin again yet: %s", error)
        else:
            log.warning("the worker has begun again")
            return app
