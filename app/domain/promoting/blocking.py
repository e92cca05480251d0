"""Who blocks a transaction that waits for a lock. It is asked while it waits, for afterwards nobody knows."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import statement
from app.domain.runtime import Runtime
from app.errors import PgretrieveError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Blocker:
    """A backend that is waited for. Its query is left out: it may hold values of other people's documents."""

    pid: int
    application_name: str | None
    state: str  # as pg_stat_activity has it; unknown where this role may not see it
    transaction_s: float | None
    waiting: bool  # for a lock itself

    def __str__(self) -> str:
        told = [repr(self.application_name) if self.application_name else "", self.state]
        since = f" for {self.transaction_s:.0f} s" if self.transaction_s is not None else ""
        return f"process {self.pid} ({', '.join(filter(None, told))}{since})"

    def shown(self) -> dict[str, Any]:
        seconds = None if self.transaction_s is None else round(self.transaction_s, 3)
        return {
            "pid": self.pid,
            "application_name": self.application_name,
            "state": self.state,
            "transaction_seconds": seconds,
            "waiting": self.waiting,
        }


@dataclass(slots=True)
class Watch:
    """Those that were seen last."""

    seen: Sequence[Blocker] = field(default=())


@asynccontextmanager
async def watching(runtime: Runtime, conn: AsyncConnection, watch: Watch, timeout_ms: int) -> AsyncIterator[None]:
    """Note in `watch` who blocks `conn` meanwhile, on another connection.

    It looks twice in each `timeout_ms`, so that no wait of that length is missed, and what takes less than half of it
    costs nothing.
    """
    pid = (await conn.execute(statement("own_backend"))).scalar_one()
    task = asyncio.create_task(_look(runtime, pid, watch, timeout_ms / 2000))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _look(runtime: Runtime, pid: int, watch: Watch, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            async with transaction(runtime.engine, runtime.settings) as conn:
                rows = (await conn.execute(statement("blockers"), {"pid": pid})).all()
        except (PgretrieveError, SQLAlchemyError) as error:
            log.warning("who blocks process %d cannot be told: %s", pid, error)
            return
        if rows:
            watch.seen = [_blocker(row) for row in rows]


def _blocker(row: Any) -> Blocker:
    state = "prepared transaction" if row.pid == 0 else row.state or "unknown"
    return Blocker(row.pid, row.application_name, state, row.transaction_s, row.waiting)
