"""Tasks: what takes longer than a request, how far it is, and how it ended.

A task counts items. Where workers do them one by one (`app.domain.background.work`), the last of them ends it; its
state has `queued` from the moment at which all of them stand in the work table.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import as_json, statement
from app.domain.indexing.build_progress import percentage_of
from app.domain.security import access
from app.errors import Conflict, NotFound, PgretrieveError

Status = Literal["PENDING", "IN_PROGRESS", "COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED"]
ENDED: tuple[Status, ...] = ("COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED")
# In the state of a task whose items all stand in the work table.
QUEUED = {"queued": True}


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it stands; `about` is what its starter asked for, `state` where it goes on after an interruption."""

    task_id: str
    namespace_id: str
    kind: str
    subject: str | None
    status: Status
    total: int | None
    done: int
    failed: int
    about: Mapping[str, Any]
    state: Mapping[str, Any]
    error: Mapping[str, str] | None
    cancel_requested: bool
    created_by: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    build: Mapping[str, Any] | None = None  # of an index, while it runs: phase, tuples, blocks

    @property
    def percentage(self) -> float | None:
        """Of its items, those that are done or dead; of an index build, what PostgreSQL tells of it. None where nobody
        knows how many there are."""
        if self.status == "COMPLETED":
            return 100.0
        if self.build is not None:
            return percentage_of(self.build)
        if self.status == "PENDING":
            return 0.0
        if self.total is None:
            return None
        return round(100.0 * min(self.done + self.failed, self.total) / self.total, 1) if self.total else 100.0


_tasks = sa.table(
    "tasks",
    *(sa.column(name, sa.Text) for name in ("task_id", "namespace_id", "kind", "subject", "status")),
    *(sa.column(name, sa.BigInteger) for name in ("total", "done", "failed")),
    *(sa.column(name, JSONB) for name in ("about", "state", "error")),
    sa.column("cancel_requested", sa.Boolean),
    sa.column("created_by", sa.Text),
    *(sa.column(name, sa.TIMESTAMP(timezone=True)) for name in ("created_at", "started_at", "finished_at")),
    schema="pgretrieve",
)
_BUILD = ("phase", "tuples_done", "tuples_total", "blocks_done", "blocks_total")
_builds = sa.table(
    "index_builds", *(sa.column(name) for name in ("namespace_id", "index_name", *_BUILD)), schema="pgretrieve"
)
_SELECTED: sa.Select[Any] = sa.select(
    *_tasks.c,
    sa.select(
        sa.func.jsonb_build_object(*(part for n in _BUILD for part in (sa.literal(n), _builds.c[n])), type_=JSONB)
    )
    .where(
        _tasks.c.status == "IN_PROGRESS",
        _builds.c.namespace_id == _tasks.c.namespace_id,
        _builds.c.index_name == _tasks.c.state["index_name"].astext,
    )
    .limit(1)
    .scalar_subquery(),
)
SORTABLE = {name: _tasks.c[name] for name in ("created_at", "status", "kind", "task_id")}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tasks, in which order, after which one: its value of the order, and its id."""

    namespace_id: str | None = None
    status: str | None = None
    kinds: Sequence[str] | None = None
    other_than: Sequence[str] | None = None
    search: str | None = None
    order: str = "created_at"
    descending: bool = True
    after: tuple[str, str] | None = None


async def create(
    conn: AsyncConnection,
    namespace_id: str,
    kind: str,
    *,
    subject: str | None = None,
    total: int | None = None,
    about: Mapping[str, Any] | None = None,
) -> str:
    """A new task, in the caller's transaction, beside the job that will do it. Answers its id."""
    task_id = f"task_{secrets.token_hex(12)}"
    binds = {"task_id": task_id, "namespace_id": namespace_id, "kind": kind, "subject": subject, "total": total}
    await conn.execute(statement("insert_task"), {**binds, "about": as_json(about or {}), "created_by": access.actor()})
    return task_id


async def find(conn: AsyncConnection, task_id: str) -> Task:
    """Raises `NotFound` where there is none that the caller may see."""
    row = None
    if "\0" not in task_id:
        row = (await conn.execute(_SELECTED.where(_visible(), _tasks.c.task_id == task_id))).one_or_none()
    if row is None:
        raise NotFound("task", task_id)
    return Task(*row)


async def list_page(conn: AsyncConnection, wanted: Wanted, limit: int, *, total: bool) -> tuple[list[Task], int | None]:
    """A page of the tasks that the caller may see; and how many there are in all, where that is asked for."""
    where = [_visible(), *_conditions(wanted)]
    key, own = SORTABLE[wanted.order], _tasks.c.task_id
    page = _SELECTED.where(*where).limit(limit)
    if wanted.after is not None:
        place = sa.tuple_(
            *(sa.cast(value, column.type) for value, column in zip(wanted.after, (key, own), strict=True))
        )
        here = sa.tuple_(key, own)
        page = page.where(here < place if wanted.descending else here > place)
    page = page.order_by(*((key.desc(), own.desc()) if wanted.descending else (key, own)))
    found = [Task(*row) for row in await conn.execute(page)]
    count = sa.select(sa.func.count()).select_from(_tasks).where(*where)
    return found, (await conn.execute(count)).scalar_one() if total else None


def _visible() -> sa.ColumnElement[bool]:
    visible = access.visible()
    return sa.true() if visible is None else _tasks.c.namespace_id.in_(visible)


def _conditions(wanted: Wanted) -> Iterator[sa.ColumnElement[bool]]:
    if wanted.namespace_id is not None:
        yield _tasks.c.namespace_id == wanted.namespace_id
    if wanted.status is not None:
        yield _tasks.c.status == wanted.status
    if wanted.kinds is not None:
        yield _tasks.c.kind.in_(wanted.kinds)
    if wanted.other_than is not None:
        yield _tasks.c.kind.not_in(wanted.other_than)
    if wanted.search:
        texts = (_tasks.c.task_id, _tasks.c.kind, _tasks.c.subject, _tasks.c.error["message"].astext)
        yield sa.or_(*(text.icontains(wanted.search, autoescape=True) for text in texts))


async def begin(conn: AsyncConnection, task_id: str) -> bool:
    """Whether the task is to be done: not where it has ended, was cancelled, or went with its namespace."""
    return (await conn.execute(statement("begin_task"), {"task_id": task_id})).rowcount > 0


async def advance(
    conn: AsyncConnection, task_id: str, state: Mapping[str, Any], *, done: int | None = None, total: int | None = None
) -> bool:
    """Note how far it is; whether it is to go on."""
    binds = {"task_id": task_id, "state": as_json(state), "done": done, "total": total}
    return (await conn.execute(statement("advance_task"), binds)).rowcount > 0


async def end(
    conn: AsyncConnection, task_id: str, status: Status = "COMPLETED", error: PgretrieveError | None = None
) -> None:
    """It has ended; one that has ended before stays as it is."""
    told = None if error is None else as_json({"code": error.error_code, "message": error.message})
    await conn.execute(statement("end_task"), {"task_id": task_id, "status": status, "error": told})


async def is_open(conn: AsyncConnection, task_id: str) -> bool:
    """Whether who does it is to go on."""
    found: bool = (await conn.execute(statement("task_is_open"), {"task_id": task_id})).scalar_one()
    return found


async def end_counted(conn: AsyncConnection, task_id: str) -> None:
    """End it if all its items stand in the work table and none is open: for who queued the last of them."""
    await conn.execute(statement("end_counted_tasks"), {"task_ids": [task_id]})


async def cancel(conn: AsyncConnection, task_id: str) -> Task:
    """End it now: what is not begun is not done, what is done stays. `Conflict` where it has ended."""
    task = await find(conn, task_id)
    if (await conn.execute(statement("cancel_task"), {"task_id": task_id})).one_or_none() is None:
        raise Conflict(f"The task {task_id!r} has ended: {task.status}.", code="task_ended")
    await conn.execute(statement("forget_work_of_task"), {"task_id": task_id})
    await conn.execute(statement("forget_awaited_work"), {"task_id": task_id})
    return await find(conn, task_id)
