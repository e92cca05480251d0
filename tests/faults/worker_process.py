"""A worker as a process of its own, to be killed: `python -m tests.faults.worker_process URL`."""

import asyncio
import sys

from app.db.engine import create_engine
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.jobs import worker
from app.settings import Settings


async def run(url: str) -> None:
    settings = Settings()
    runtime = Runtime(settings, create_engine(url, settings), Inference.from_settings(settings))
    async with worker.running(url, runtime):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
