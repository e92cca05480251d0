"""/v1/namespaces/…/work: what workers could not do (dead letters), and having it done again."""

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, JSONBody

from app.api.paging import PAGED, PageQuery, Pagination, page_of, pagination
from app.api.wire import Input, Json, RuntimeDep
from app.db.engine import transaction
from app.domain.background import work
from app.domain.catalog.namespaces import load_catalog
from app.domain.security import audit
from app.errors import InvalidRequest, Problem


class RedriveInput(Input, frozen=True):
    """Which dead letters: of these `targets` (vector indexes by name, collections by id), of this task; else all."""

    targets: Annotated[list[str], msgspec.Meta(min_length=1, max_length=500)] | None = None
    task_id: str | None = None


class DeadShown(msgspec.Struct, kw_only=True):
    """Something that failed for good. `embed`: the vector of the document `subject` in the index `target`; `extract`:
    the documents of the collection `target` from the object `subject`; `gather`: what the task `subject` asks of it."""

    work_id: int
    kind: str
    target: str
    subject: str
    attempts: int
    error: str
    error_code: str
    task_id: str | None
    created_at: datetime
    failed_at: datetime


class DeadList(msgspec.Struct, kw_only=True):
    """A page of dead letters, the oldest first."""

    results: list[DeadShown]
    pagination: Pagination


class Redriven(msgspec.Struct, kw_only=True):
    """How many dead letters are tried again."""

    namespace_id: str
    redriven: int


@get("/{namespace_id:str}/work/dead", scope="read", operation_id="list_dead_work", **PAGED)
async def list_dead(namespace_id: FromPath[str], runtime: RuntimeDep, paging: PageQuery) -> DeadList:
    """What could not be embedded or extracted, and why."""
    page = page_of(None, paging, runtime.settings.max_page_size)
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_id)
        dead, total = await work.list_dead(conn, catalog, _number(page.after), page.size + 1)
    return DeadList(
        results=[
            DeadShown(
                work_id=letter.work_id,
                kind=letter.kind,
                target=letter.target,
                subject=letter.subject,
                attempts=letter.attempts,
                error=letter.error["message"],
                error_code=letter.error["code"],
                task_id=letter.task_id,
                created_at=letter.created_at,
                failed_at=letter.failed_at,
            )
            for letter in dead[: page.size]
        ],
        pagination=pagination(page, [str(letter.work_id) for letter in dead], total),
    )


def _number(after: str | None) -> int:
    if after is None:
        return 0
    if not after.isdecimal() or len(after) > 18:
        message = "This is no cursor of this list; start again without one."
        raise InvalidRequest([Problem(("query", "cursor"), "bad_cursor", message)])
    return int(after)


@post(
    "/{namespace_id:str}/work/redrive",
    dto=Json[RedriveInput],
    return_dto=None,
    status_code=200,
    scope="manage",
    operation_id="redrive_dead_work",
)
async def redrive(
    namespace_id: FromPath[str], runtime: RuntimeDep, data: JSONBody[RedriveInput | None] = None
) -> Redriven:
    """Try dead letters again, with all their attempts; the tasks that count them go on."""
    asked = data or RedriveInput()
    given = [*(asked.targets or ()), asked.task_id or ""]
    if any("\0" in text for text in given):
        raise InvalidRequest([Problem(("body",), "nul_character", "No id or name holds U+0000.")])
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_id)
        targets = None if asked.targets is None else [work.target_of(catalog, name) for name in asked.targets]
        count = await work.redrive(conn, catalog.namespace_id, targets, asked.task_id)
        about = {"count": count, "targets": asked.targets, "task_id": asked.task_id}
        await audit.record(conn, "dead_work", "redriven", catalog.namespace_id, catalog.namespace_id, **about)
    return Redriven(namespace_id=catalog.namespace_id, redriven=count)


router = Router("/namespaces", route_handlers=[list_dead, redrive], tags=["Tasks"])
