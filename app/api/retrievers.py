"""/v1/retrievers: stored, read, changed, deleted; and executed."""

import secrets
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, delete, get, patch, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody

from app.api.paging import PAGED, PageInput, PageQuery, Pagination, page_of, pagination
from app.api.wire import Input, Json, NotOffered, RuntimeDep, namespace_of, not_in_query
from app.db.engine import transaction
from app.domain import execution, retrievers
from app.domain.execution import Execution, Outcome
from app.domain.namespaces import load_catalog
from app.domain.retrievers import Retriever
from app.domain.runtime import Runtime
from app.errors import NotFound
from app.retrieval.executor import Page
from app.retrieval.stages import REGISTRY
from app.telemetry import Timings

AnyRequest = Request[Any, Any, State]
Unset = msgspec.UnsetType
UNSET = msgspec.UNSET
NEXT_STEP = "Send the id or name of a namespace that exists in X-Namespace; GET /v1/namespaces lists them."


class RetrieverInput(Input, frozen=True):
    """A retriever: a pipeline of stages, and the inputs that its templates use."""

    retriever_name: str
    stages: list[Any]
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
        fields = {name: getattr(self, name) for name in retrievers.DEFINITION}
        fields["collection_identifiers"] = self.collection_identifiers or self.collection_ids or []
        return {name: value for name, value in fields.items() if value is not None}


class RetrieverPatch(Input, frozen=True):
    """What of a retriever changes; stages are replaced as a whole."""

    retriever_name: str | Unset = UNSET
    stages: list[Any] | Unset = UNSET
    input_schema: dict[str, Any] | Unset = UNSET
    collection_identifiers: list[str] | Unset = UNSET
    description: str | Unset | None = UNSET
    tags: list[str] | Unset = UNSET
    metadata: dict[str, Any] | Unset = UNSET
    display_config: dict[str, Any] | Unset = UNSET
    visibility: NotOffered = "private"
    marketplace_listing_id: NotOffered = None
    requires_subscription: NotOffered = False


class ListInput(PageInput, frozen=True):
    """A page of retrievers."""

    filters: NotOffered = None
    sort: NotOffered = None
    sorts: NotOffered = None
    search: NotOffered = None
    case_sensitive: NotOffered = False


class ExecuteInput(Input, frozen=True):
    """Inputs for the retriever's templates, filters AND-ed with its own, and a page of its rows.

    Nothing is cached and every read is consistent, so `skip_cache` and `consistency` change nothing.
    """

    inputs: dict[str, Any] | None = None
    filters: Any = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] | None = None
    page_size: Annotated[int, msgspec.Meta(ge=1, le=500)] | None = None
    return_vectors: bool = False
    explain: bool = False
    skip_cache: bool = False
    consistency: dict[str, Any] | None = None
    pagination: NotOffered = None
    stream: NotOffered = False
    expand: NotOffered = None
    return_presigned_urls: NotOffered = False
    write_token: NotOffered = None
    target_collection_id: NotOffered = None
    settings: NotOffered = None


class RetrieverList(msgspec.Struct, kw_only=True):
    """A page of retrievers."""

    results: list[dict[str, Any]]
    total: int
    pagination: Pagination
    warnings: list[dict[str, Any]] = []


def _shown(found: Retriever) -> dict[str, Any]:
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
    collections = definition.get("collection_identifiers", [])
    return {
        "retriever_id": found.retriever_id,
        "retriever_name": found.retriever_name,
        "description": definition.get("description"),
        "stages": stages,
        "input_schema": definition.get("input_schema", {}),
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


@post("/", dto=Json[RetrieverInput], return_dto=None, status_code=200, operation_id="create_retriever")
async def create_retriever(data: JSONBody[RetrieverInput], request: AnyRequest, runtime: RuntimeDep) -> dict[str, Any]:
    """Store a retriever; of a name that exists, a new version. `If-None-Match: *` makes that a 409 instead."""
    only_new = request.headers.get("if-none-match") == "*"
    async with transaction(runtime.engine, runtime.settings) as conn:
        namespace = namespace_of(request)
        stored = await retrievers.put(
            conn, namespace, data.retriever_name, data.definition(), runtime.limits, only_new=only_new
        )
    return _shown(stored)


@get("/{retriever_id:str}", operation_id="get_retriever")
async def get_retriever(retriever_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep) -> dict[str, Any]:
    """A retriever by id or name."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        return _shown(await retrievers.find(conn, catalog.namespace_id, retriever_id))


@get("/", operation_id="list_retrievers", **PAGED)
async def list_by_get(request: AnyRequest, runtime: RuntimeDep, paging: PageQuery) -> Response[RetrieverList]:
    """A page of retrievers."""
    return await _list(request, runtime, None, paging)


@post("/list", dto=Json[ListInput], return_dto=None, status_code=200, operation_id="list_retrievers_by_post", **PAGED)
async def list_by_post(
    request: AnyRequest, runtime: RuntimeDep, paging: PageQuery, data: JSONBody[ListInput | None] = None
) -> Response[RetrieverList]:
    """A page of retrievers."""
    return await _list(request, runtime, data, paging)


async def _list(
    request: AnyRequest, runtime: Runtime, wanted: PageInput | None, paging: PageInput
) -> Response[RetrieverList]:
    page = page_of(wanted, paging, runtime.settings.max_page_size)
    namespace = namespace_of(request)
    async with transaction(runtime.engine, runtime.settings) as conn:
        try:
            catalog = await load_catalog(conn, namespace)
        except NotFound:
            warning = {"resource": "namespace", "reason": "unresolved", "id": namespace, "next_step": NEXT_STEP}
            empty = RetrieverList(results=[], total=0, pagination=pagination(page, [], 0), warnings=[warning])
            return Response(empty, headers={"X-Namespace-Unresolved": "true"}, status_code=200)
        found, total = await retrievers.find_all(conn, catalog.namespace_id, after=page.after, limit=page.size + 1)
    ids = [retriever.retriever_id for retriever in found]
    shown = [_shown(retriever) for retriever in found[: page.size]]
    listed = RetrieverList(results=shown, total=total, pagination=pagination(page, ids, total))
    return Response(listed, status_code=200)


@patch("/{retriever_id:str}", dto=Json[RetrieverPatch], return_dto=None, operation_id="update_retriever")
async def update_retriever(
    retriever_id: FromPath[str], data: JSONBody[RetrieverPatch], request: AnyRequest, runtime: RuntimeDep
) -> dict[str, Any]:
    """Change a retriever: a new version, checked like a new one."""
    given = {name: getattr(data, name) for name in data.__struct_fields__}
    changes = {name: value for name, value in given.items() if value is not UNSET}
    async with transaction(runtime.engine, runtime.settings) as conn:
        changed = await retrievers.change(conn, namespace_of(request), retriever_id, changes, runtime.limits)
    return {"retriever": _shown(changed)}


@delete("/{retriever_id:str}", status_code=200, operation_id="delete_retriever")
async def delete_retriever(retriever_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep) -> dict[str, Any]:
    """Delete a retriever and its versions."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        deleted = await retrievers.delete(conn, catalog.namespace_id, retriever_id)
    return {"success": True, "message": f"Retriever {deleted!r} is deleted.", "retriever_id": deleted}


@post(
    "/{retriever_id:str}/execute",
    dto=Json[ExecuteInput],
    return_dto=None,
    guards=[not_in_query(return_presigned_urls="false")],
    status_code=200,
    operation_id="execute_retriever",
)
async def execute_retriever(
    retriever_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    data: JSONBody[ExecuteInput | None] = None,
    explain: FromQuery[bool] = False,
    return_vectors: FromQuery[bool] = False,
    include_legacy_results: FromQuery[bool] = False,
) -> Response[dict[str, Any]]:
    """Run a retriever: embed what is text, search, and answer its documents, best first."""
    wanted = data or ExecuteInput()
    timings = Timings()
    page = Page(wanted.limit if wanted.limit is not None else wanted.page_size)
    run = Execution(wanted.inputs or {}, wanted.filters, page, wanted.return_vectors or return_vectors)
    with timings("total"):
        outcome = await execution.run(runtime, namespace_of(request), retriever_id, run, timings)
    body = _answer(outcome, page, timings)
    if wanted.explain or explain:
        body["explain_plan"] = {"statement": outcome.plan.text, "settings": dict(outcome.plan.settings)}
    if include_legacy_results:
        body["results"] = body["documents"]
    return Response(body, headers={"Server-Timing": timings.header()}, status_code=200)


def _answer(outcome: Outcome, page: Page, timings: Timings) -> dict[str, Any]:
    total = outcome.rows.counts[-1]
    interpretation: dict[str, Any] = {}
    if outcome.plan.relaxed:
        interpretation["relaxations"] = [
            {"dropped": dropped, "reason": "its input was not provided"} for dropped in outcome.plan.relaxed
        ]
    return {
        "execution_id": f"exec_{secrets.token_hex(12)}",
        "retriever_id": outcome.prepared.retriever_id,
        "status": "completed",
        "documents": outcome.documents,
        "pagination": {
            "method": "cursor",
            "limit": page.limit if page.limit is not None else total,
            "returned": len(outcome.documents),
            "total": total,
            "cursor": None,
            "has_next": page.offset + len(outcome.documents) < total,
        },
        "stage_statistics": {
            "stages": _stages(outcome, timings),
            "total_time_ms": round(timings.phases["total"], 3),
        },
        "warnings": outcome.warnings,
        "interpretation": interpretation,
        "cache_hit": False,
        "consistency_mode": "strong",
    }


def _stages(outcome: Outcome, timings: Timings) -> dict[str, Any]:
    """What each stage took in and gave. The stages run as one statement, whose time stands at the last of them."""
    found: dict[str, Any] = {}
    before, last = 0, len(outcome.plan.stages) - 1
    for n, (name, count) in enumerate(zip(outcome.plan.stages, outcome.rows.counts, strict=True)):
        unique = name if name not in found else f"{name}_{n + 1}"
        found[unique] = {
            "input_count": before,
            "output_count": count,
            "duration_ms": round(timings.phases["db"], 3) if n == last else 0.0,
            "efficiency": round(count / before, 4) if before else 0,
        }
        before = count
    return found


router = Router(
    "/retrievers",
    route_handlers=[
        create_retriever,
        get_retriever,
        list_by_get,
        list_by_post,
        update_retriever,
        delete_retriever,
        execute_retriever,
    ],
    tags=["Retrievers"],
)
