"""Filling an index up: the walk over a namespace's documents that a back-fill (or a migration of models) does.

By keyset, a chunk at a time: in one transaction the chunk becomes work of low priority that the task counts, and the
cursor moves on; then that work is done. So a crash loses nothing and nothing is done twice: what is queued is in the
work table, what is embedded has its vector, and the cursor says the rest. While a provider is down its chunk waits and
no further one is queued. A job is a short slice, so that other jobs come between.
"""

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import statement
from app.domain.background import tasks, working
from app.domain.background.tasks import Task
from app.domain.catalog.namespaces import load_catalog
from app.domain.documents import sources
from app.domain.models import backfill
from app.domain.runtime import Runtime
from app.errors import Conflict, NotFound, PgretrieveError
from app.retrieval.catalog import Catalog, Source

# A slice ends after so long, that other jobs may run.
SLICE_S = 2.0
# Documents that one statement reads at most, where few of them are to be filled.
WINDOW = 10_000
# A chunk is what the rate allows in so long; who is behind by more does not catch up.
PACE_S = 5.0
# Seconds between looks at work that others have, or that waits for its provider.
LONGEST_WAIT = 30.0


class Stopped(Exception):
    """The task has ended while a chunk was taken: nothing of it stays."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The documents that were made work of, and the place up to which the walk has come; whether that is the end."""

    subjects: list[str]
    cursor: str | None
    at_end: bool


async def run_slice(runtime: Runtime, task_id: str, number: int) -> None:
    """Do the `number`-th slice of the task, and have a job do the next one. Slices that were done before are passed
    over: a job may be run again whose worker was lost."""
    ends = time.monotonic() + SLICE_S
    while True:
        pause = await advance(runtime, task_id, number)
        if pause is None:
            return
        if time.monotonic() + pause > ends:
            break
        await asyncio.sleep(pause)
    async with transaction(runtime.engine, runtime.settings) as conn:
        if await tasks.advance(conn, task_id, {"slice": number + 1}):
            await backfill.defer_slice(conn, task_id, number + 1, pause)


async def give_up(runtime: Runtime, task_id: str, error: Exception) -> None:
    """The task cannot go on: it fails, with what it has done until now."""
    told = error if isinstance(error, PgretrieveError) else PgretrieveError(f"It failed: {type(error).__name__}.")
    async with transaction(runtime.engine, runtime.settings) as conn:
        await tasks.end(conn, task_id, "FAILED", told)


async def advance(runtime: Runtime, task_id: str, number: int = 0) -> float | None:
    """Take one chunk and do it. Answers the seconds to wait before the next; None: it is over, or another's slice.

    The task fills its subject, or the shadow of it that its `about` names as `config`.
    """
    try:
        async with transaction(runtime.engine, runtime.settings) as conn:
            task = await tasks.find(conn, task_id)
            if task.state.get("slice", 0) != number or "queued" in task.state:
                return None
            if task.status == "PENDING" and not await tasks.begin(conn, task_id):
                return None
            catalog = await load_catalog(conn, task.namespace_id)
            source = backfill.source_of(catalog, str(task.about.get("config", task.subject)))
            if source is None:
                gone = Conflict(f"The index {task.subject!r} is mapped to no service and field any more.")
                await tasks.end(conn, task_id, "FAILED", gone)
                return None
            chunk, due, pause = await _take(conn, runtime, task, catalog, source)
    except (NotFound, Stopped):
        return None
    if todo := [*due, *chunk.subjects]:
        await working.do_all(runtime, task.namespace_id, todo)
    return None if chunk.at_end else pause


async def _take(
    conn: AsyncConnection, runtime: Runtime, task: Task, catalog: Catalog, source: Source
) -> tuple[Chunk, list[str], float]:
    """The next chunk, what is left of earlier ones, and the seconds to wait after it."""
    batch, rate = runtime.settings.work_batch, task.about.get("rate_per_minute")
    binds = {"task_id": task.task_id, "size": batch}
    left = (await conn.execute(statement("open_work_of_task"), binds)).one()
    now, next_at = time.time(), float(task.state.get("next_at", 0.0))
    size = min(batch - left.open, batch if rate is None else max(1, math.ceil(rate * PACE_S / 60)))
    nothing = Chunk([], task.state.get("cursor"), False)
    if size <= 0:  # what was taken before is not done: its provider is down, or others do it
        return nothing, left.due, 0.0 if left.due else min(max(left.pause, 0.5), LONGEST_WAIT)
    if next_at > now:
        return nothing, left.due, next_at - now
    chunk = await take_chunk(conn, task, catalog, source, size)
    taken = task.state.get("taken", 0) + len(chunk.subjects)
    if rate is not None:
        next_at = max(next_at, now - PACE_S) + len(chunk.subjects) * 60 / rate
    state: dict[str, Any] = {"cursor": chunk.cursor, "taken": taken, "next_at": next_at}
    total = taken if chunk.at_end else max(taken, task.total or 0)
    if not await tasks.advance(conn, task.task_id, state | (tasks.QUEUED if chunk.at_end else {}), total=total):
        raise Stopped
    if chunk.at_end:
        await tasks.end_counted(conn, task.task_id)
    return chunk, left.due, max(0.0, next_at - now)


async def take_chunk(conn: AsyncConnection, task: Task, catalog: Catalog, source: Source, size: int) -> Chunk:
    """Make work of the next `size` documents that have a source and no vector. What is queued already is the task's
    from now on, and what failed for good is tried anew."""
    c = catalog.relation.c
    empty = c[source.column].is_(None)
    text = sources.text_of(c.payload, sa.bindparam("field", type_=sa.Text))
    wanted = sa.case((empty, text.is_not(None)), else_=sa.false()).label("wanted")
    window = (
        sa.select(c.document_id, wanted)
        .where(c.document_id > sa.bindparam("cursor", type_=sa.Text))
        .order_by(c.document_id)
        .limit(sa.literal_column(str(WINDOW)))
        .cte("seen")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    chosen = sa.select(window.c.document_id).where(window.c.wanted).order_by(window.c.document_id)
    chosen_ = chosen.limit(sa.bindparam("size", type_=sa.Integer)).cte("chosen")
    queued = _queue(chosen_).cte("queued")
    asked = sa.select(
        sa.select(sa.func.array_agg(queued.c.subject)).scalar_subquery(),
        sa.select(sa.func.count()).select_from(chosen_).scalar_subquery(),
        sa.select(sa.func.max(chosen_.c.document_id)).scalar_subquery(),
        sa.select(sa.func.count()).select_from(window).scalar_subquery(),
        sa.select(sa.func.max(window.c.document_id)).scalar_subquery(),
    )
    binds = {"field": source.field, "cursor": task.state.get("cursor") or "", "size": size}
    binds |= {"namespace_id": task.namespace_id, "target": source.column, "task_id": task.task_id}
    subjects, count, last_chosen, seen, last_seen = (await conn.execute(asked, binds)).one()
    if count == size:
        return Chunk(subjects or [], last_chosen, False)
    return Chunk(subjects or [], last_seen or task.state.get("cursor"), seen < WINDOW)


WORK = sa.table(
    "work",
    *(sa.column(name) for name in ("namespace_id", "kind", "target", "subject", "priority", "task_id")),
    *(sa.column(name) for name in ("attempts", "due_at", "failed_at", "error")),
    schema="pgretrieve",
)


def _queue(chosen: sa.CTE) -> Any:
    bind = {name: sa.cast(sa.bindparam(name), sa.Text) for name in ("namespace_id", "target", "task_id")}
    priority = sa.literal_column(str(backfill.WORK_PRIORITY), sa.SmallInteger)
    rows = sa.select(
        bind["namespace_id"],
        sa.literal_column("'embed'", sa.Text),
        bind["target"],
        chosen.c.document_id,
        priority,
        bind["task_id"],
    )
    columns = ["namespace_id", "kind", "target", "subject", "priority", "task_id"]
    new = insert(WORK).from_select(columns, rows.order_by(chosen.c.document_id))
    tries = sa.case((WORK.c.failed_at.is_(None), WORK.c.attempts), else_=sa.literal_column("0"))
    anew = {"task_id": new.excluded.task_id, "attempts": tries, "failed_at": None, "error": None}
    return new.on_conflict_do_update(
        index_elements=["namespace_id", "kind", "target", "subject"],
        set_={**anew, "due_at": sa.func.least(WORK.c.due_at, sa.func.now())},
        where=sa.or_(WORK.c.task_id.is_(None), WORK.c.failed_at.is_not(None)),
    ).returning(WORK.c.subject)
