"""The worker: runs jobs until it is told to stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.domain.runtime import Runtime
from app.jobs.queue import worker_app
from app.jobs.tasks import register, revive_jobs


async def drain(url: str, runtime: Runtime) -> None:
    """Run the jobs that are due, and return when there are none left."""
    app = worker_app(url)
    register(app, url, runtime)
    async with app.open_async():
        await app.run_worker_async(wait=False, install_signal_handlers=False, listen_notify=False)


@asynccontextmanager
async def running(url: str, runtime: Runtime) -> AsyncIterator[None]:
    """A worker beside the service: wakes by LISTEN, polls as a fallback, ends its jobs within ten seconds."""
    app = worker_app(url)
    register(app, url, runtime)
    async with app.open_async():
        await revive_jobs(app)
        options = app.run_worker_async(
            install_signal_handlers=False,
            concurrency=2,
            shutdown_graceful_timeout=10,
            delete_jobs="successful",
        )
        worker = asyncio.create_task(options, name="worker")
        try:
            yield
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
