"""The worker: runs jobs until it is told to stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app import tracing
from app.db.engine import create_engine, transaction
from app.domain import work
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.jobs.queue import worker_app
from app.jobs.tasks import register, revive_jobs
from app.jobs.watching import metrics_served, watched
from app.settings import Settings


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
    """A worker beside the service: wakes by LISTEN, polls as a fallback, and lets its jobs end for a while."""
    settings = runtime.settings
    app = worker_app(url)
    register(app, url, runtime)
    async with app.open_async():
        await revive_jobs(app)
        async with transaction(runtime.engine, settings) as conn:
            await work.sweep(conn, settings)
        options = app.run_worker_async(
            install_signal_handlers=False,
            concurrency=settings.worker_concurrency,
            shutdown_graceful_timeout=settings.worker_stop_s,
            delete_jobs="successful",
            worker_middleware=[watched],
        )
        worker = asyncio.create_task(options, name="worker")
        try:
            yield
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
