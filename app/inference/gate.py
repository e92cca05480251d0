"""The gate before a remote service: so many calls at once, so many in a minute; who cannot pass is told when to try."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.errors import InferenceUnavailable

MINUTE = 60.0


class Gate:
    """First come, first served. `per_minute` 0 is no limit. `settings` is how the names of the limits begin."""

    def __init__(self, name: str, concurrency: int, per_minute: int, settings: str = "PGRETRIEVE_INFERENCE") -> None:
        self._name = name
        self._settings = settings
        self._slots = asyncio.Semaphore(concurrency)
        self._per_minute = per_minute
        self._starts: deque[float] = deque(maxlen=per_minute)
        self._pacing = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, deadline: float) -> AsyncIterator[None]:
        """Wait for a turn until `deadline` (of the loop's clock), then hold a slot; else `inference_busy`."""
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
            wait = self._starts[0] + MINUTE - now()
            why = f"it was called as often as {self._settings}_REQUESTS_PER_MINUTE allows"
            raise self._busy(why, wait) from None

    def _busy(self, why: str, wait: float) -> InferenceUnavailable:
        return InferenceUnavailable(
            f"{self._name} is busy: {why}. Try again.",
            code="inference_busy",
            service=self._name,
            retryable=True,
            retry_after_seconds=max(1, math.ceil(wait)),
        )
