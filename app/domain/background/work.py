"""The work table: what is due is claimed for a while, made, and deleted; what fails is tried again, or kept as dead.

A claim is a lease: a worker that is gone loses it by time, and what comes anew takes it away at once, so that whoever
ends later ends nothing. Nothing here calls a provider.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import as_json, statement
from app.domain.runtime import Runtime
from app.errors import ExtractionFailed, InferenceUnavailable, PgretrieveError, Unavailable
from app.jobs import queue
from app.retrieval.catalog import Catalog
from app.settings import Settings

log = logging.getLogger(__name__)

# Seconds before the second try; doubled with each one, up to five minutes.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
LOST = {
    "code": "worker_lost",
    "message": "Workers began this again and again and never ended it.",
    "transient": True,
}


@dataclass(frozen=True, slots=True)
class Claimed:
    """One thing to make, and the lease under which it may be ended."""

    work_id: int
    kind: str
    target: str
    subject: str
    attempts: int
    lease: UUID
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter; its target is the vector index, by name, or the collection."""

    work_id: int
    kind: str
    target: str
    subject: str
    attempts: int
    failed_at: datetime
    error: Mapping[str, str]
    task_id: str | None
    created_at: datetime


async def claim(
    conn: AsyncConnection,
    settings: Settings,
    namespace_id: str,
    size: int,
    *,
    subjects: Sequence[str] | None = None,
    without: Collection[str] = (),
) -> list[Claimed]:
    """Up to `size` rows that are due, all of one kind and target, none of the targets `without`; of the documents
    `subjects` alone, where given."""
    binds = {"namespace_id": namespace_id, "size": size, "lease": lease_time(settings), "without": list(without)}
    binds["subjects"] = list(subjects) if subjects is not None else None
    return [Claimed(*row) for row in await conn.execute(statement("claim_work"), binds)]


def lease_time(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.work_lease_s)


@asynccontextmanager
async def renewing(runtime: Runtime, rows: Sequence[Claimed]) -> AsyncIterator[None]:
    """Keep these leases for as long as this takes; those that came anew meanwhile are lost all the same."""

    async def again() -> None:
        while True:
            await asyncio.sleep(runtime.settings.work_lease_s / 3)
            try:
                async with transaction(runtime.engine, runtime.settings) as conn:
                    await renew(conn, runtime.settings, rows)
            except (SQLAlchemyError, PgretrieveError) as error:  # the database may be back before the lease is over
                log.warning("leases were not renewed: %s", error)

    keeper = asyncio.create_task(again(), name="renewing")
    try:
        yield
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def renew(conn: AsyncConnection, settings: Settings, rows: Sequence[Claimed]) -> None:
    """Go on for longer than a lease lasts."""
    await conn.execute(statement("renew_work"), {**_held(rows), "lease": lease_time(settings)})


async def finish(conn: AsyncConnection, rows: Sequence[Claimed]) -> None:
    """These are made, or are not to be made any more."""
    if rows:
        await _counted(conn, "finish_work", _held(rows))


async def give_back(
    conn: AsyncConnection, settings: Settings, namespace_id: str, rows: Sequence[Claimed], error: PgretrieveError
) -> None:
    """These failed: for good where the error is theirs or they were tried too often, else until later."""
    told = as_json({"code": error.error_code, "message": error.message, "transient": may_pass(error)})
    dead = [row for row in rows if row.attempts >= settings.work_attempts or not may_pass(error)]
    if dead:
        await _counted(conn, "fail_work", {**_held(dead), "error": told})
    again = [row for row in rows if row not in dead]
    if again:
        pause = timedelta(seconds=_pause(again, error))
        await conn.execute(statement("postpone_work"), {**_held(again), "error": told, "pause": pause})
        await queue.defer(conn, "do_work", {"namespace_id": namespace_id}, after=pause)


def may_pass(error: PgretrieveError) -> bool:
    """Whether the same try may end otherwise later; what is wrong with the input never does."""
    if isinstance(error, ExtractionFailed):
        return error.retryable
    if isinstance(error, InferenceUnavailable):  # what it lacks may come, whatever it says of the very same call
        return True
    return isinstance(error, Unavailable) and error.details.get("retryable") is not False


def _pause(rows: Sequence[Claimed], error: PgretrieveError) -> float:
    asked = error.details.get("retry_after_seconds")
    doubled = FIRST_PAUSE * 2.0 ** min(max(row.attempts for row in rows) - 1, 16)
    return max(float(asked or 0), min(doubled, LONGEST_PAUSE))


async def sweep(conn: AsyncConnection, settings: Settings) -> list[str]:
    """Wake workers for what nobody has: after lost leases, lost jobs and pauses. Answers the namespaces.

    Tasks end, too, whose last items were taken away with their objects or indexes.
    """
    await _counted(conn, "bury_lost_work", {"attempts": settings.work_attempts, "error": as_json(LOST)})
    counted = list((await conn.execute(statement("counted_tasks"))).scalars())
    await conn.execute(statement("end_counted_tasks"), {"task_ids": counted})
    found = list((await conn.execute(statement("namespaces_with_work"))).scalars())
    for namespace_id in found:
        await conn.execute(statement("defer_work"), {"namespace_id": namespace_id})
    return found


async def redrive(
    conn: AsyncConnection,
    namespace_id: str,
    targets: Sequence[str] | None = None,
    task_id: str | None = None,
    *,
    transient: bool = False,
) -> int:
    """Try dead letters again: all of a namespace, or those of some targets or of one task; with `transient` only those
    whose reason may have passed. Answers how many."""
    binds: dict[str, Any] = {"namespace_id": namespace_id, "task_id": task_id, "transient": transient}
    binds["targets"] = list(targets) if targets else None
    count: int = (await conn.execute(statement("redrive_work"), binds)).scalar_one()
    if count:
        await conn.execute(statement("defer_work"), {"namespace_id": namespace_id})
    return count


async def list_dead(conn: AsyncConnection, catalog: Catalog, after: int, size: int) -> tuple[list[Dead], int]:
    """Dead letters after that number, the oldest first; and how many there are in all."""
    binds = {"namespace_id": catalog.namespace_id, "after": after, "size": size}
    names = {config.column: config.name for config in (*catalog.vector_configs, *catalog.shadows)}
    found = [Dead(*row) for row in await conn.execute(statement("list_dead_work"), binds)]
    shown = [
        replace(dead, target=names.get(dead.target, dead.target)) if dead.kind == "embed" else dead for dead in found
    ]
    total: int = (await conn.execute(statement("count_dead_work"), {"namespace_id": catalog.namespace_id})).scalar_one()
    return shown, total


def target_of(catalog: Catalog, name: str) -> str:
    """What the work table calls a vector index, or a collection."""
    configs = (*catalog.vector_configs, *catalog.shadows)
    return next((config.column for config in configs if config.name == name), name)


async def _counted(conn: AsyncConnection, name: str, binds: dict[str, Any]) -> None:
    """A statement that ends rows and answers the tasks that count them; those that are then done end, too."""
    task_ids = list((await conn.execute(statement(name), binds)).scalars())
    if task_ids:
        await conn.execute(statement("end_counted_tasks"), {"task_ids": task_ids})


def _held(rows: Sequence[Claimed]) -> dict[str, Any]:
    return {"ids": [row.work_id for row in rows], "leases": [row.lease for row in rows]}
