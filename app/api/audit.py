"""/v1/organizations/audit/logs: who changed what, for administrators' keys. No route changes or removes events."""

from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Router, get
from litestar.connection import ASGIConnection
from litestar.handlers import HTTPRouteHandler
from litestar.handlers.base import BaseRouteHandler
from litestar.params import FromPath, FromQuery

from app.api.paging import PageInput, Pagination, page_of, pagination
from app.api.wire import RuntimeDep
from app.db.engine import transaction
from app.domain.security import audit
from app.domain.security.audit import Circumstances, Event, Wanted
from app.errors import InvalidRequest, NotOffered, Problem, Problems

REASON = "X-Change-Reason"
LONGEST_REASON, MOST_SKIPPED = 500, 10_000
# What changes the configuration needs one of these; a test holds every route to it.
AUDITED_SCOPES = ("manage", "admin")


class AuditEvent(msgspec.Struct, kw_only=True):
    """An event. `actor_type` is `api_key`, or `command` (then `actor_id` is the login of the database); `changes` has
    names and small values only; there are none of what was refused or rolled back, so `status` is always `success`."""

    audit_id: str
    timestamp: datetime
    resource_type: str
    resource_id: str
    action: str
    actor_id: str
    actor_type: str
    actor_key_name: str | None
    namespace_id: str | None
    status: str = "success"
    changes: dict[str, Any]
    reason: str | None
    ip_address: str | None
    request_id: str | None
    operation_id: str | None


class AuditList(msgspec.Struct, kw_only=True):
    """A page of events, the newest first. `pagination.next_cursor` leads on, however many there are."""

    results: list[AuditEvent]
    total: int
    skip: int
    limit: int
    pagination: Pagination


def note(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """What the events of this request shall have beside its key; 422 for a reason that is none."""
    assert isinstance(handler, HTTPRouteHandler)
    if handler.opt["scope"] not in AUDITED_SCOPES or "GET" in handler.http_methods:
        return
    client = connection.client if connection.app.state.audit_addresses else None
    operation = handler.operation_id if isinstance(handler.operation_id, str) else None
    audit.enter(Circumstances(operation, _reason(connection.headers.get(REASON)), client and client.host))


def _reason(given: str | None) -> str | None:
    """The header, which may be UTF-8 although HTTP reads it as Latin-1."""
    if given is None or not given.strip():
        return None
    try:
        reason = given.strip().encode("latin-1").decode()
    except UnicodeError:
        reason = given.strip()
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        message = f"A reason has {LONGEST_REASON} printable characters at most."
        raise InvalidRequest([Problem(("header", REASON), "bad_reason", message)])
    return reason


@get("/logs", scope="admin", operation_id="list_audit_events")
async def list_events(
    runtime: RuntimeDep,
    resource_type: FromQuery[str | None] = None,
    resource_id: FromQuery[str | None] = None,
    actor_id: FromQuery[str | None] = None,
    action: FromQuery[str | None] = None,
    namespace_id: FromQuery[str | None] = None,
    start: FromQuery[str | None] = None,
    end: FromQuery[str | None] = None,
    skip: FromQuery[int] = 0,
    limit: FromQuery[int | None] = None,
    cursor: FromQuery[str | None] = None,
) -> AuditList:
    """A page of events, the newest first: of a resource, a key (`actor_id`), an action, a namespace, a time (ISO 8601;
    from `start` until before `end`)."""
    problems = Problems()
    wanted = Wanted(
        resource_type=resource_type,
        resource_id=resource_id,
        actor_id=actor_id,
        action=action,
        namespace_id=namespace_id,
        start=_time("start", start, problems),
        end=_time("end", end, problems),
    )
    for name, value in asdict(wanted).items():
        if isinstance(value, str) and "\0" in value:
            problems.add(("query", name), "nul_character", "No id or name holds U+0000.")
    if not 0 <= skip <= MOST_SKIPPED:
        message = f"skip is from 0 to {MOST_SKIPPED:,}; `cursor` leads further."
        problems.add(("query", "skip"), "out_of_range", message)
    problems.refuse()
    page = page_of(None, PageInput(limit=limit, cursor=cursor), runtime.settings.max_page_size)
    async with transaction(runtime.engine, runtime.settings) as conn:
        found, total = await audit.list_page(conn, wanted, before=_place(page.after), skip=skip, limit=page.size + 1)
    return AuditList(
        results=[_shown(event) for event in found[: page.size]],
        total=total,
        skip=skip,
        limit=page.size,
        pagination=pagination(page, [str(event.audit_id) for event in found], total),
    )


def _time(name: str, given: str | None, problems: Problems) -> datetime | None:
    if given is None:
        return None
    for text in (given, given.replace(" ", "+")):  # a plus that was not written %2B
        with suppress(ValueError):
            time = datetime.fromisoformat(text)
            return time if time.tzinfo else time.replace(tzinfo=UTC)
    problems.add(("query", name), "bad_time", f"{given!r} is no time; write 2030-01-31T12:00:00Z.")
    return None


def _place(after: str | None) -> int | None:
    if after is None:
        return None
    if not after.isdecimal() or len(after) > 18:
        message = "This is no cursor of this list; start again without one."
        raise InvalidRequest([Problem(("query", "cursor"), "bad_cursor", message)])
    return int(after)


@get("/logs/{audit_id:str}", scope="admin", operation_id="get_audit_event")
async def get_event(audit_id: FromPath[str], runtime: RuntimeDep) -> AuditEvent:
    """An event by its id."""
    if audit_id == "export":
        message = "Exports of the audit log: not offered by this server. GET /v1/organizations/audit/logs has pages."
        raise NotOffered(message, operation="GET", feature="exports of the audit log", retryable=False)
    async with transaction(runtime.engine, runtime.settings) as conn:
        return _shown(await audit.find(conn, audit_id))


def _shown(event: Event) -> AuditEvent:
    return AuditEvent(
        audit_id=str(event.audit_id),
        timestamp=event.happened_at,
        resource_type=event.resource_type,
        resource_id=event.resource_id,
        action=event.action,
        actor_id=event.actor_id,
        actor_type=event.actor_type,
        actor_key_name=event.actor_name,
        namespace_id=event.namespace_id,
        changes=event.changes,
        reason=event.reason,
        ip_address=event.remote_address,
        request_id=event.request_id,
        operation_id=event.operation_id,
    )


router = Router("/organizations/audit", route_handlers=[list_events, get_event], tags=["Audit log"])
