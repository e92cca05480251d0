"""/v1/namespaces, listed; and their counts."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from app.api.listing import plain_filters
from app.api.namespace_models import ListInput, NamespaceList, shown
from app.api.paging import PAGED, PageInput, PageQuery, page_of, pagination
from app.api.wire import Input, Json, RuntimeDep
from app.db.engine import transaction
from app.domain.catalog import described
from app.domain.catalog.described import SORTABLE, TIMES, Description, Wanted
from app.domain.runtime import Runtime
from app.errors import InvalidRequest, NotFound, Problem, Problems

View = Literal["full", "summary"]
# Of one of many; those of 100 namespaces are counted for one answer.
BATCH_COUNT_LIMIT = 10_000


class StatsBatchInput(Input, frozen=True):
    """Ids or names of namespaces."""

    namespace_ids: Annotated[list[str], msgspec.Meta(max_length=100)]


class Stats(msgspec.Struct, kw_only=True):
    """What is in a namespace; where the count is not complete, it is an estimate."""

    namespace_id: str
    document_count: int
    document_count_complete: bool
    bucket_count: int = 0
    collection_count: int = 0
    object_count: int = 0


class StatsBatch(msgspec.Struct, kw_only=True):
    """Stats by the id or name that was asked for; those that do not exist are not there."""

    stats: dict[str, Stats]


@get("/", scope="read", operation_id="list_namespaces", **PAGED)
async def list_by_get(runtime: RuntimeDep, paging: PageQuery, view: FromQuery[View] = "full") -> NamespaceList:
    """A page of namespaces in the order of their ids; counts of documents are estimates here."""
    return await _list(runtime, ListInput(), paging, view)


@post(
    "/list",
    dto=Json[ListInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="list_namespaces_by_post",
    **PAGED,
)
async def list_by_post(
    runtime: RuntimeDep,
    paging: PageQuery,
    data: JSONBody[ListInput | None] = None,
    view: FromQuery[View] = "full",
) -> NamespaceList:
    """A page of the namespaces that are asked for; counts of documents are estimates here."""
    return await _list(runtime, data or ListInput(), paging, view)


async def _list(runtime: Runtime, asked: ListInput, paging: PageInput, view: View) -> NamespaceList:
    page = page_of(asked, paging, runtime.settings.max_page_size)
    wanted = _wanted(runtime, asked, page.after)
    async with transaction(runtime.engine, runtime.settings) as conn:
        found, total = await described.list_page(conn, wanted, page.size + 1)
    return NamespaceList(
        results=[shown(namespace, whole=view == "full") for namespace in found[: page.size]],
        pagination=pagination(page, [_place(namespace, wanted) for namespace in found], total),
        total_count=total,
    )


def _wanted(runtime: Runtime, asked: ListInput, after: str | None) -> Wanted:
    problems = Problems()
    filters = plain_filters(asked.filters, problems, runtime.limits.filters)
    order, descending = _order(asked, problems)
    if "\0" in (asked.search or ""):
        problems.add(("body", "search"), "nul_character", "No text holds U+0000.")
    problems.refuse()
    wanted = Wanted(filters, asked.search or "", asked.case_sensitive, order, descending)
    return wanted if after is None else replace(wanted, after=_after(after, order))


def _order(asked: ListInput, problems: Problems) -> tuple[str, bool]:
    name, given = ("sorts", asked.sorts) if asked.sorts else ("sort", [asked.sort] if asked.sort else [])
    if not given:
        return "namespace_id", False
    first = given[0]
    field, direction = first.get("field"), first.get("direction") or "asc"
    if len(given) > 1 or set(first) - {"field", "direction"} or field not in SORTABLE:
        message = f"Sort by one field, as {{field, direction}}; the fields are {', '.join(SORTABLE)}."
        problems.add(("body", name), "bad_sort", message)
    elif direction not in ("asc", "desc"):
        problems.add(("body", name), "bad_sort", "A direction is asc or desc.")
    return str(field), direction == "desc"


def _place(found: Description, wanted: Wanted) -> str:
    """Where a namespace stands in that order, for a cursor."""
    return msgspec.json.encode([getattr(found, wanted.order), found.namespace_id]).decode()


def _after(place: str, order: str) -> tuple[Any, str]:
    model: Any = tuple[datetime, str] if order in TIMES else tuple[str, str]
    try:
        found: tuple[Any, str] = msgspec.json.decode(place, type=model)
    except msgspec.DecodeError:
        message = "This is no cursor of a list in this order; start again without one."
        raise InvalidRequest([Problem(("body", "cursor"), "bad_cursor", message)]) from None
    return found


@get("/{namespace_id:str}/stats", scope="read", operation_id="get_namespace_stats")
async def get_stats(namespace_id: FromPath[str], runtime: RuntimeDep) -> Stats:
    """How much is in a namespace."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        return _stats(await described.describe(conn, namespace_id))


@post(
    "/stats/batch",
    dto=Json[StatsBatchInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="get_namespace_stats_batch",
)
async def get_stats_batch(data: JSONBody[StatsBatchInput], runtime: RuntimeDep) -> StatsBatch:
    """How much is in each of up to 100 namespaces."""
    found: dict[str, Stats] = {}
    async with transaction(runtime.engine, runtime.settings) as conn:
        for identifier in dict.fromkeys(data.namespace_ids):
            try:
                found[identifier] = _stats(await described.describe(conn, identifier, BATCH_COUNT_LIMIT))
            except NotFound:
                continue
    return StatsBatch(stats=found)


def _stats(found: Description) -> Stats:
    return Stats(
        namespace_id=found.namespace_id,
        document_count=found.estimated_documents,
        document_count_complete=found.counted,
        bucket_count=found.bucket_count,
        collection_count=found.collection_count,
        object_count=found.object_count,
    )


router = Router(
    "/namespaces",
    route_handlers=[list_by_get, list_by_post, get_stats, get_stats_batch],
    tags=["Namespaces"],
)
