"""A replica that executions may read from: as long as it is known to be fresh, and for who has written, has that.

How far behind it is follows from where the primary was and when, and how far the replica has replayed: neither clocks
of two machines nor an idle primary deceive it, and a replica that does not answer grows old by itself.
"""

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import psycopg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.engine import connection
from app.db.statements import statement
from app.errors import PgretrieveError
from app.settings import Settings

LSN = re.compile(r"([0-9A-F]{1,8})/([0-9A-F]{1,8})")
# What a replica that cannot be asked answers with.
FAILURES = (SQLAlchemyError, psycopg.OperationalError, PgretrieveError, OSError)
POLL_S = 0.01
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reading:
    """What one request may read from: `after` is the write that it must see; `primary` once it has to be that."""

    after: int | None = None
    primary: bool = False
    used: bool = False


reading: ContextVar[Reading | None] = ContextVar("reading", default=None)
"""Of this request; None, as for jobs: the primary alone."""


def parse(token: str) -> int | None:
    """The place in the log that a token names; None where it is none."""
    found = LSN.fullmatch(token)
    return int(found[1], 16) << 32 | int(found[2], 16) if found else None


async def position(primary: AsyncEngine) -> str:
    """A place in the log that all that is committed until now lies before."""
    async with connection(primary) as conn:
        return str((await conn.execute(statement("written_until"))).scalar_one())


class Replica:
    """One replica, and what is known of it."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self.engine = engine
        self._limit = settings.replica_lag_s
        self._wait = settings.replica_wait_s
        self._samples: deque[tuple[float, int]] = deque(maxlen=1_000)
        self._replayed = 0
        self._fresh_at = float("-inf")

    @property
    def lag_s(self) -> float:
        """How old at most what it answers is; infinite before anything is known."""
        return time.monotonic() - self._fresh_at

    async def can_serve(self, wanted: Reading) -> bool:
        """Whether it is fresh enough, and has come, or comes within a while, to what this request must see."""
        if self.lag_s > self._limit:
            return False
        deadline = time.monotonic() + self._wait
        try:
            while wanted.after is not None and self._replayed < wanted.after:
                if time.monotonic() > deadline:
                    return False
                await self._ask()
                if self._replayed < wanted.after:
                    await asyncio.sleep(POLL_S)
        except FAILURES:
            return False
        return True

    async def look(self, primary: AsyncEngine) -> None:
        """Take a sample of both."""
        at = time.monotonic()
        async with connection(primary) as conn:
            place = parse((await conn.execute(statement("flushed_until"))).scalar_one())
        assert place is not None
        self._samples.append((at, place))
        await self._ask()
        while self._samples and self._samples[0][1] <= self._replayed:
            self._fresh_at = self._samples.popleft()[0]

    async def _ask(self) -> None:
        async with connection(self.engine) as conn:
            found = (await conn.execute(statement("replayed_until"))).scalar_one_or_none()
        # A server that is no replica has replayed nothing, and is not read from.
        self._replayed = (found and parse(found)) or 0

    @asynccontextmanager
    async def watched(self, primary: AsyncEngine) -> AsyncIterator[None]:
        """Looks four times in each time that it may lag, and closes its pool at the end."""
        task = asyncio.create_task(self._watch(primary), name="replica")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.engine.dispose()

    async def _watch(self, primary: AsyncEngine) -> None:
        answered = True
        while True:
            try:
                async with asyncio.timeout(max(self._limit, 1.0)):
                    await self.look(primary)
                answered = True
            except (*FAILURES, TimeoutError) as error:
                if answered:
                    log.warning("the replica is not read from: it, or the primary, does not answer (%s)", error)
                answered = False
            await asyncio.sleep(self._limit / 4)
