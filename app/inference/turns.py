"""Turns at what serves a few at a time: queries first, then what is written now, back-fills last.

Who has a turn keeps it, so a query waits for what runs, one batch at most, and for no other back-fill. How urgent a
call is, its caller says once (`urgency`), not every function between.
"""

import asyncio
import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum
from itertools import count


class Urgency(IntEnum):
    """The lower comes first."""

    QUERY = 0
    WRITE = 1
    BACKFILL = 2


_urgency: ContextVar[Urgency] = ContextVar("urgency", default=Urgency.QUERY)


@contextmanager
def urgency(level: Urgency) -> Iterator[None]:
    """Calls to services within are so urgent; without it they are queries."""
    token = _urgency.set(level)
    try:
        yield
    finally:
        _urgency.reset(token)


def is_backfill() -> bool:
    return _urgency.get() is Urgency.BACKFILL


class Turns:
    """So many at once; those who wait go by urgency, and first come, first served among equals."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: list[tuple[Urgency, int, asyncio.Future[None]]] = []
        self._numbers = count()

    async def acquire(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (_urgency.get(), next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given just as the caller gave up
                self.release()
            raise

    def release(self) -> None:
        while self._waiting:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
