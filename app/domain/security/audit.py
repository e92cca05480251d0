"""The audit log: who changed the configuration. Written by what changes it, on its connection and in its transaction.

So there is an event if and only if the change is committed. What is shared by several operations records nothing.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import as_json, statement
from app.domain.runtime import Runtime
from app.domain.security import access
from app.errors import NotFound
from app.telemetry import request_id

LONGEST_TEXT, MOST_VALUES = 200, 50
FORGOTTEN_AT_ONCE = 1_000
COLUMNS = (
    *("audit_id", "happened_at", "actor_type", "actor_id", "actor_name", "action", "resource_type", "resource_id"),
    *("namespace_id", "reason", "request_id", "operation_id", "remote_address"),
)
EVENTS = sa.table("audit_events", *map(sa.column, COLUMNS), sa.column("changes", sa.Text), schema="pgretrieve")


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known of the request, or the command, beside who sent it and its id."""

    operation_id: str | None = None
    reason: str | None = None
    remote_address: str | None = None


UNKNOWN = Circumstances()
_circumstances: ContextVar[Circumstances] = ContextVar("circumstances", default=UNKNOWN)


def enter(circumstances: Circumstances) -> None:
    """From here to its end, what this task changes is done under these circumstances."""
    _circumstances.set(circumstances)


async def record(
    conn: AsyncConnection,
    resource_type: str,
    done: str,
    resource_id: str,
    namespace_id: str | None = None,
    **changes: Any,
) -> None:
    """Write one event: the action is `resource_type` and `done` together. `changes` are names and small values, never
    a secret, a vector or a content; what is long is cut."""
    principal, circumstances = access.principal(), _circumstances.get()
    binds = {
        "actor_type": "command" if principal is None else "api_key",
        "actor_id": principal and principal.key_id,
        "actor_name": principal and principal.name,
        "action": f"{resource_type}_{done}",
        "resource_type": resource_type,
        "resource_id": resource_id,
        "namespace_id": namespace_id,
        "changes": as_json({name: _brief(value) for name, value in changes.items() if value is not None}),
        "reason": circumstances.reason,
        "request_id": request_id.get() or None,
        "operation_id": circumstances.operation_id,
        "remote_address": circumstances.remote_address,
    }
    await conn.execute(statement("insert_audit_event"), binds)


def _brief(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else f"{value[:LONGEST_TEXT]}…"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {_brief(key): _brief(item) for key, item in list(value.items())[:MOST_VALUES]}
    if isinstance(value, list | tuple | set | frozenset):
        return [_brief(item) for item in list(value)[:MOST_VALUES]]
    return value


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it is stored."""

    audit_id: int
    happened_at: datetime
    actor_type: str
    actor_id: str
    actor_name: str | None
    action: str
    resource_type: str
    resource_id: str
    namespace_id: str | None
    reason: str | None
    request_id: str | None
    operation_id: str | None
    remote_address: str | None
    changes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events; None: any. `start` is the first moment, `end` the first that is too late."""

    resource_type: str | None = None
    resource_id: str | None = None
    actor_id: str | None = None
    action: str | None = None
    namespace_id: str | None = None
    start: datetime | None = None
    end: datetime | None = None


async def list_page(
    conn: AsyncConnection, wanted: Wanted, *, before: int | None, skip: int, limit: int
) -> tuple[list[Event], int]:
    """A page of events, the newest first, below the event `before`; and how many there are in all."""
    equal = ("resource_type", "resource_id", "actor_id", "action", "namespace_id")
    conditions: list[Any] = [EVENTS.c[n] == getattr(wanted, n) for n in equal if getattr(wanted, n) is not None]
    if wanted.start is not None:
        conditions.append(EVENTS.c.happened_at >= wanted.start)
    if wanted.end is not None:
        conditions.append(EVENTS.c.happened_at < wanted.end)
    total = (await conn.execute(sa.select(sa.func.count()).select_from(EVENTS).where(*conditions))).scalar_one()
    if before is not None:
        conditions.append(EVENTS.c.audit_id < before)
    page = _select().where(*conditions).order_by(EVENTS.c.audit_id.desc()).offset(skip).limit(limit)
    return [_event(row) for row in (await conn.execute(page)).mappings()], total


async def find(conn: AsyncConnection, audit_id: str) -> Event:
    """An event by its id; `NotFound` also where it is too old."""
    row = None
    if audit_id.isdecimal() and len(audit_id) <= 18:
        row = (await conn.execute(_select().where(EVENTS.c.audit_id == int(audit_id)))).mappings().one_or_none()
    if row is None:
        raise NotFound("audit event", audit_id)
    return _event(row)


def _select() -> sa.Select[Any]:
    # As text, so that numbers keep their digits.
    return sa.select(*(EVENTS.c[name] for name in COLUMNS), sa.cast(EVENTS.c.changes, sa.Text).label("changes"))


def _event(row: Mapping[Any, Any]) -> Event:
    return Event(**{**row, "changes": msgspec.json.decode(row["changes"])})


async def forget_old(runtime: Runtime) -> int:
    """Remove what is older than the settings keep, in batches of a transaction each. Answers how many."""
    days, forgotten = runtime.settings.audit_retention_days, 0
    while days:
        async with transaction(runtime.engine, runtime.settings) as conn:
            binds = {"days": days, "at_most": FORGOTTEN_AT_ONCE}
            found: int = (await conn.execute(statement("forget_audit_events"), binds)).scalar_one()
        forgotten += found
        if found < FORGOTTEN_AT_ONCE:
            break
    return forgotten
