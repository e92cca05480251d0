"""The one thread in which a local model loads and runs."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from app.inference.turns import Turns, Urgency, urgency

T = TypeVar("T")
Args = TypeVarTuple("Args")


class ModelThread:
    """Runs functions one after the other, the most urgent first, beside the event loop.

    One thread is the lock: a model is loaded once, and two runs never fight for the same cores. A caller with
    much to do submits many short functions, so that a query waits for one of them and not for a whole batch;
    one that gives up leaves at most one running, as what it has queued is cancelled with it.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._turns = Turns(1)

    async def run(self, function: Callable[[*Args], T], *args: *Args) -> T:
        await self._turns.acquire()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        finally:
            self._turns.release()

    async def close(self) -> None:
        # Queued functions still run: cancelling them would look to their callers like their own cancellation.
        with urgency(Urgency.BACKFILL):
            await self._turns.acquire()
        await asyncio.to_thread(self._pool.shutdown)
        self._turns.release()
