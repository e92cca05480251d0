"""/v1/retrievers: stored, read, listed, changed, cloned, deleted."""

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, Router, delete, get, patch, post
from litestar.datastructures import State
from litestar.params import FromPath, JSONBody

from app.api.paging import PAGED, PageInput, PageQuery, Pagination, page_of, pagination
from app.api.wire import Input, Json, NotOffered, RuntimeDep, namespace_of
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog
from app.domain.retrieving import retriever_lists, retrievers
from app.domain.retrieving.definitions import DEFINITION
from app.domain.retrieving.retriever_lists import Wanted
from app.domain.retrieving.retrievers import Retriever
from app.domain.runtime import Runtime
from app.errors import InvalidRequest, NotFound, Problem, Problems
from app.retrieval.stages import REGISTRY

AnyRequest = Request[Any, Any, State]
Unset = msgspec.UnsetType
UNSET = msgspec.UNSET
NEXT_STEP = "Send the id or name of a namespace that exists in X-Namespace; GET /v1/namespaces lists them."


class Named(Input, frozen=True, kw_only=True):
    """What a new retriever may have beside its stages."""

    retriever_name: str
    input_schema: dict[str, Any] | None = None
    collection_identifiers: list[str] | None = None
    collection_ids: list[str] | None = None
    description: str | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None
    display_config: dict[str, Any] | None = None
    budget_limits: dict[str, Any] | None = None
    visibility: NotOffered = "private"
    marketplace_listing_id: NotOffered = None
    requires_subscription: NotOffered = False

    def definition(self) -> dict[str, Any]:
        """The fields that are given."""
        fields = {name: getattr(self, name) for name in DEFINITION}
        fields["collection_identifiers"] = self.collection_identifiers or self.collection_ids
        return {name: value for name, value in fields.items() if value is not None}


class RetrieverInput(Named, frozen=True, kw_only=True):
    """A retriever: a pipeline of stages, and the inputs that its templates use."""

    stages: list[Any]


class CloneInput(Named, frozen=True, kw_only=True):
    """The new name, and what is to differ from the source; null and what is left out are as there."""

    stages: list[Any] | None = None


class RetrieverPatch(Input, frozen=True):
    """What of a retriever changes; stages are replaced as a whole, and null empties what may be empty.

    An input schema may change in any way, since each version is kept and callers of a name get the present one.
    """

    retriever_name: str | Unset = UNSET
    stages: list[Any] | Unset = UNSET
    input_schema: dict[str, Any] | Unset | None = UNSET
    collection_identifiers: list[str] | Unset | None = UNSET
    collection_ids: list[str] | Unset | None = UNSET
    description: str | Unset | None = UNSET
    tags: list[str] | Unset | None = UNSET
    metadata: dict[str, Any] | Unset | None = UNSET
    display_config: dict[str, Any] | Unset | None = UNSET
    budget_limits: dict[str, Any] | Unset | None = UNSET
    visibility: NotOffered = "private"
    marketplace_listing_id: NotOffered = None
    requires_subscription: NotOffered = False

    def changes(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in ("retriever_name", *DEFINITION)}
        if given["collection_identifiers"] is UNSET:
            given["collection_identifiers"] = self.collection_ids
        return {name: value for name, value in given.items() if value is not UNSET}


class SortInput(Input, frozen=True):
    """A field of a retriever, and which way."""

    field: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    direction: Literal["asc", "desc"] | None = None


class ListInput(PageInput, frozen=True):
    """A page of retrievers: those with a text in their id, name, description or tags, and whose fields the filters
    keep; in an order of your own, else in that of their ids."""

    filters: Any = None
    sort: SortInput | None = None
    sorts: Annotated[list[SortInput], msgspec.Meta(max_length=8)] | None = None
    search: str | None = None
    case_sensitive: bool | None = None

    def wanted(self, runtime: Runtime) -> Wanted:
        problems = Problems()
        filters = retriever_lists.parse_filters(self.filters, problems, runtime.limits.filters)
        sorts = self.sorts or ([self.sort] if self.sort else [])
        if self.sort and self.sorts and self.sorts != [self.sort]:
            problems.add(("body", "sort"), "bad_value", "`sort` is the one entry of `sorts`; give one of them.")
        for name, text in (("search", self.search), *(("sorts", sort.field) for sort in sorts)):
            if text and "\0" in text:
                problems.add(("body", name), "nul_character", "PostgreSQL has no U+0000 in texts.")
        problems.refuse()
        order = tuple((sort.field, sort.direction == "desc") for sort in sorts)
        return Wanted(self.search, filters, order, bool(self.case_sensitive))


class RetrieverList(msgspec.Struct, kw_only=True):
    """A page of retrievers."""

    results: list[dict[str, Any]]
    total: int
    pagination: Pagination
    warnings: list[dict[str, Any]] = []


def shown(found: Retriever) -> dict[str, Any]:
    """A retriever as the public API shows it; each stage's parameters also beside its config."""
    definition = found.definition
    stages = [
        {
            **stage,
            "stage_name": stage.get("stage_name") or stage["config"]["stage_id"],
            "stage_type": REGISTRY[stage["config"]["stage_id"]].stage_type,
            "parameters": stage["config"].get("parameters", {}),
        }
        for stage in definition["stages"]
    ]
    fusions = [s["parameters"].get("fusion", "rrf") for s in stages if s["config"]["stage_id"] == "feature_search"]
    collections = definition.get("collection_identifiers") or []
    return {
        "retriever_id": found.retriever_id,
        "retriever_name": found.retriever_name,
        "description": definition.get("description"),
        "stages": stages,
        "input_schema": definition.get("input_schema") or {},
        "collection_ids": collections,
        "collection_identifiers": collections,
        "fusion": fusions[0] if fusions else None,
        "budget_limits": definition.get("budget_limits"),
        "tags": definition.get("tags"),
        "metadata": definition.get("metadata"),
        "display_config": definition.get("display_config"),
        "version": found.version,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
    }


@post("/", dto=Json[RetrieverInput], return_dto=None, status_code=200, scope="manage", operation_id="create_retriever")
async def create_retriever(data: JSONBody[RetrieverInput], request: AnyRequest, runtime: RuntimeDep) -> dict[str, Any]:
    """Store a retriever; of a name that exists, a new version. `If-None-Match: *` makes that a 409 instead."""
    only_new = request.headers.get("if-none-match") == "*"
    async with transaction(runtime.engine, runtime.settings) as conn:
        namespace = namespace_of(request)
        stored = await retrievers.put(
            conn, namespace, data.retriever_name, data.definition(), runtime.limits, only_new=only_new
        )
    return shown(stored)


@get("/{retriever_id:str}", scope="read", operation_id="get_retriever")
async def get_retriever(retriever_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep) -> dict[str, Any]:
    """A retriever by id or name."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        return shown(await retrievers.find(conn, catalog.namespace_id, retriever_id))


@get("/", scope="read", operation_id="list_retrievers", **PAGED)
async def list_by_get(request: AnyRequest, runtime: RuntimeDep, paging: PageQuery) -> Response[RetrieverList]:
    """A page of retrievers."""
    return await _list(request, runtime, None, paging)


@post(
    "/list",
    dto=Json[ListInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="list_retrievers_by_post",
    **PAGED,
)
async def list_by_post(
    request: AnyRequest, runtime: RuntimeDep, paging: PageQuery, data: JSONBody[ListInput | None] = None
) -> Response[RetrieverList]:
    """A page of retrievers."""
    return await _list(request, runtime, data, paging)


async def _list(
    request: AnyRequest, runtime: Runtime, data: ListInput | None, paging: PageInput
) -> Response[RetrieverList]:
    page = page_of(data, paging, runtime.settings.max_page_size)
    wanted = (data or ListInput()).wanted(runtime)
    namespace = namespace_of(request)
    async with transaction(runtime.engine, runtime.settings) as conn:
        try:
            catalog = await load_catalog(conn, namespace)
        except NotFound:
            warning = {"resource": "namespace", "reason": "unresolved", "id": namespace, "next_step": NEXT_STEP}
            empty = RetrieverList(results=[], total=0, pagination=pagination(page, [], 0), warnings=[warning])
            return Response(empty, headers={"X-Namespace-Unresolved": "true"}, status_code=200)
        found, total = await retriever_lists.find_all(
            conn, catalog.namespace_id, wanted, after=_place(page.after), limit=page.size + 1
        )
    places = [f"{place} {retriever.retriever_id}" for place, retriever in found]
    results = [shown(retriever) for _, retriever in found[: page.size]]
    listed = RetrieverList(results=results, total=total, pagination=pagination(page, places, total))
    return Response(listed, status_code=200)


def _place(cursor: str | None) -> tuple[int, str] | None:
    """A cursor of a list of retrievers: a place in its order, and the id there."""
    if cursor is None:
        return None
    place, _, retriever_id = cursor.partition(" ")
    if not place.isdecimal() or len(place) > 12 or not retriever_id or "\0" in retriever_id:
        message = "This is no cursor of ours; start again without one."
        raise InvalidRequest([Problem(("body", "cursor"), "bad_cursor", message)])
    return int(place), retriever_id


@patch(
    "/{retriever_id:str}", dto=Json[RetrieverPatch], return_dto=None, scope="manage", operation_id="update_retriever"
)
async def update_retriever(
    retriever_id: FromPath[str], data: JSONBody[RetrieverPatch], request: AnyRequest, runtime: RuntimeDep
) -> dict[str, Any]:
    """Change a retriever: a new version, checked like a new one."""
    changes = data.changes()
    if not changes:
        raise InvalidRequest([Problem(("body",), "nothing_to_change", "Give at least one field to change.")])
    async with transaction(runtime.engine, runtime.settings) as conn:
        changed = await retrievers.change(conn, namespace_of(request), retriever_id, changes, runtime.limits)
    return {"retriever": shown(changed)}


@post(
    "/{retriever_id:str}/clone",
    dto=Json[CloneInput],
    return_dto=None,
    status_code=200,
    scope="manage",
    operation_id="clone_retriever",
)
async def clone_retriever(
    retriever_id: FromPath[str], data: JSONBody[CloneInput], request: AnyRequest, runtime: RuntimeDep
) -> dict[str, Any]:
    """A new retriever like this one, but for what the body says; a name that is taken is a 409."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        made, source = await retrievers.clone(
            conn, namespace_of(request), retriever_id, data.retriever_name, data.definition(), runtime.limits
        )
    return {"retriever": shown(made), "source_retriever_id": source}


@delete("/{retriever_id:str}", status_code=200, scope="manage", operation_id="delete_retriever")
async def delete_retriever(retriever_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep) -> dict[str, Any]:
    """Delete a retriever and its versions."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        deleted = await retrievers.delete(conn, catalog.namespace_id, retriever_id)
    return {"success": True, "message": f"Retriever {deleted!r} is deleted.", "retriever_id": deleted}


router = Router(
    "/retrievers",
    route_handlers=[
        create_retriever,
        get_retriever,
        list_by_get,
        list_by_post,
        update_retriever,
        delete_retriever,
        clone_retriever,
    ],
    tags=["Retrievers"],
)
