"""The gate before a remote service: so many calls at once, so many in a minute; who cannot pass is told when to try."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.errors import InferenceUnavailable
from app.inference.turns import Turns, is_backfill

MINUTE = 60.0
# Of the calls of a minute, what back-fills leave to others.
RESERVED = 0.25


class Gate:
    """The most urgent first, then first come, first served. `per_minute` 0 is no limit. `settings` is how the names of
    the limits begin."""

    def __init__(self, name: str, concurrency: int, per_minute: int, settings: str = "PGRETRIEVE_INFERENCE") -> None:
        self._name = name
        self._settings = settings
        self._slots = Turns(concurrency)
        self._per_minute = per_minute
        self._starts: deque[float] = deque(maxlen=per_minute)
        self._pacing = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, deadline: float) -> AsyncIterator[None]:
        """Wait for a turn until `deadline` (of the loop's clock), then hold a slot; else `inference_busy`."""
        if self._per_minute and is_backfill():
            await self._leave_room(deadline)
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            raise self._busy(f"as many calls as {self._settings}_CONCURRENCY allows are running", 1) from None
        try:
            if self._per_minute:
                await self._pace(deadline)
            yield
        finally:
            self._slots.release()

    async def _pace(self, deadline: float) -> None:
        """Wait until fewer than `per_minute` calls began within the last minute. Retries count as calls do."""
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout_at(deadline), self._pacing:
                if len(self._starts) == self._per_minute and (free := self._starts[0] + MINUTE) > now():
                    if free > deadline:  # waiting would be in vain
                        raise TimeoutError
                    await asyncio.sleep(free - now())
                self._starts.append(now())
        except TimeoutError:
            raise self._too_often(self._starts[0]) from None

    async def _leave_room(self, deadline: float) -> None:
        """A back-fill waits, holding nothing, until the last minute has room for it and for those who will come."""
        now, share = asyncio.get_running_loop().time, max(1, int(self._per_minute * (1 - RESERVED)))
        while len(self._starts) >= share and (free := self._starts[-share] + MINUTE) > now():
            if free > deadline:
                raise self._too_often(self._starts[-share])
            await asyncio.sleep(free - now())

    def _too_often(self, start: float) -> InferenceUnavailable:
        """Until a minute has passed since this call began."""
        wait = start + MINUTE - asyncio.get_running_loop().time()
        return self._busy(f"it was called as often as {self._settings}_REQUESTS_PER_MINUTE allows", wait)

    def _busy(self, why: str, wait: float) -> InferenceUnavailable:
        return InferenceUnavailable(
            f"{self._name} is busy: {why}. Try again.",
            code="inference_busy",
            service=self._name,
            retryable=True,
            retry_after_seconds=max(1, math.ceil(wait)),
        )
