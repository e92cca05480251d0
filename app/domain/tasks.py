"""Tasks: what takes longer than a request, how far it is, and how it ended.

A task counts items. Where workers do them one by one (`app.domain.work`), the last of them ends it; its state has
`queued` from the moment at which all of them stand in the work table.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import as_json, statement
from app.domain import access
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

    @property
    def percentage(self) -> float | None:
        """Of its items, those that are done or dead; None where nobody knows how many there are."""
        if self.status == "COMPLETED":
            return 100.0
        if self.total is None:
            return None
        return round(100.0 * min(self.done + self.failed, self.total) / self.total, 1) if self.total else 100.0


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
    binds = {"task_id": task_id, "visible": access.visible()}
    row = (await conn.execute(statement("find_task"), binds)).one_or_none() if "\0" not in task_id else None
    if row is None:
        raise NotFound("task", task_id)
    return Task(*row)


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


async def end_counted(conn: AsyncConnection, task_id: str) -> None:
    """End it if all its items stand in the work table and none is open: for who queued the last of them."""
    await conn.execute(statement("end_counted_tasks"), {"task_ids": [task_id]})


async def cancel(conn: AsyncConnection, task_id: str) -> Task:
    """End it now: what is not begun is not done, what is done stays. `Conflict` where it has ended."""
    task = await find(conn, task_id)
    if (await conn.execute(statement("cancel_task"), {"task_id": task_id})).one_or_none() is None:
        raise Conflict(f"The task {task_id!r} has ended: {task.status}.", code="task_ended")
    return await find(conn, task_id)
