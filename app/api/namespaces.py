"""/v1/namespaces: standalone ones created, read, listed, deleted; and promotion."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from app.api.paging import PAGED, PageInput, PageQuery, Pagination, page_of, pagination
from app.api.wire import Input, Json, NotOffered, RuntimeDep
from app.db.engine import transaction
from app.domain import namespaces, promotion
from app.domain.namespaces import Description, NewVector
from app.domain.promotion import Mapped, Promotion
from app.domain.runtime import Runtime
from app.errors import Conflict, InvalidRequest, Problem
from app.inference.base import ServiceInfo

# Two ids would be paths of other operations.
NAMESPACE_ID = r"^(?!(?:list|standalone)$)[A-Za-z0-9][A-Za-z0-9_-]{0,127}$"
AnyRequest = Request[Any, Any, Any]


class VectorConfigInput(Input, frozen=True):
    """A vector column: its name, dimension and metric (`cosine`, `dot` or `euclidean`)."""

    name: str
    dimension: int
    metric: str = "cosine"


class StandaloneInput(Input, frozen=True):
    """A standalone namespace. `namespace_name` is another name for it, its id by default."""

    namespace_id: Annotated[str, msgspec.Meta(pattern=NAMESPACE_ID)]
    namespace_name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    vector_configs: list[VectorConfigInput] | None = None
    description: str | None = None
    mode: str = "standalone"
    storage: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    auto_create_indexes: bool | None = None


class MappingInput(Input, frozen=True):
    """An existing vector index and the inference service that embeds its queries (and `source_field`, its content)."""

    existing_index: str
    inference_service: str
    source_field: str | None = None


class AddVectorInput(VectorConfigInput, frozen=True):
    """A new vector index, perhaps with a service."""

    inference_service: str | None = None
    source_field: str | None = None


class PromoteInput(Input, frozen=True):
    """What a promotion maps and adds; both are optional."""

    vector_mappings: list[MappingInput] | None = None
    add_vectors: list[AddVectorInput] | None = None

    def wanted(self) -> Promotion:
        mappings = [Mapped(m.existing_index, m.inference_service, m.source_field) for m in self.vector_mappings or ()]
        added = [
            NewVector(v.name, v.dimension, v.metric, v.inference_service, v.source_field)
            for v in self.add_vectors or ()
        ]
        return Promotion(mappings, added)


class ListInput(PageInput, frozen=True):
    """A page of namespaces."""

    filters: NotOffered = None
    sort: NotOffered = None
    sorts: NotOffered = None
    search: NotOffered = None
    case_sensitive: NotOffered = False


class Promoted(msgspec.Struct, kw_only=True):
    """The namespace after its promotion: the documented keys and no other, since callers compare it whole."""

    namespace_id: str
    previous_mode: str
    mode: str
    status: str = "active"
    vector_configs: list[dict[str, Any]]
    vector_inference_map: dict[str, str]


class Validation(msgspec.Struct, kw_only=True):
    """What promoting would do. `suggestions` match by dimension alone: a weak sign, marked so."""

    namespace_id: str
    current_mode: str
    valid: bool
    required_user_action: str
    vector_configs: list[dict[str, Any]]
    vector_inference_map: dict[str, str]
    suggestions: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    warnings: list[str]


class Namespace(msgspec.Struct, kw_only=True):
    """A namespace."""

    namespace_id: str
    namespace_name: str
    mode: str
    object: str = "namespace"
    description: str | None = None
    vector_configs: msgspec.Raw
    vector_inference_map: msgspec.Raw
    dynamic_vector_indexes: bool
    document_count: int
    document_count_complete: bool
    bucket_count: int = 0
    collection_count: int = 0
    object_count: int = 0
    namespace_ready: bool = True
    status: str = "active"
    created_at: Any
    updated_at: Any


class NamespaceList(msgspec.Struct, kw_only=True):
    """A page of namespaces."""

    results: list[Namespace]
    pagination: Pagination
    total_count: int


def _namespace(found: Description) -> Namespace:
    return Namespace(
        namespace_id=found.namespace_id,
        namespace_name=found.namespace_name,
        mode=found.mode,
        description=found.description,
        vector_configs=msgspec.Raw(found.vector_configs.encode()),
        vector_inference_map=msgspec.Raw(found.inference_map.encode()),
        dynamic_vector_indexes=found.dynamic_vector_indexes,
        document_count=found.estimated_documents,
        document_count_complete=found.counted,
        created_at=found.created_at,
        updated_at=found.updated_at,
    )


@post(
    "/standalone",
    dto=Json[StandaloneInput],
    return_dto=None,
    status_code=200,
    operation_id="create_standalone_namespace",
)
async def create_standalone(data: JSONBody[StandaloneInput], runtime: RuntimeDep) -> dict[str, Any]:
    """Create a standalone namespace: a schema of its own, whose vectors its callers bring."""
    if data.mode != "standalone":
        problem = Problem(
            ("body", "mode"), "bad_mode", "This creates standalone namespaces; promotion makes one managed."
        )
        raise InvalidRequest([problem])
    vectors = None
    if data.vector_configs is not None:
        vectors = [NewVector(v.name, v.dimension, v.metric) for v in data.vector_configs]
    kept = {"storage": data.storage, "config": data.config, "auto_create_indexes": data.auto_create_indexes}
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await namespaces.create_standalone(
            conn,
            runtime.settings,
            namespace_id=data.namespace_id,
            namespace_name=data.namespace_name,
            vectors=vectors,
            description=data.description,
            kept={name: value for name, value in kept.items() if value is not None},
        )
    return {
        "namespace_id": catalog.namespace_id,
        "namespace_name": catalog.namespace_name,
        "mode": catalog.mode,
        "status": "active",
        "vector_configs": promotion.shown(catalog.vector_configs),
        "tiering": "auto",
        "document_count": 0,
    }


@get("/", operation_id="list_namespaces", **PAGED)
async def list_by_get(runtime: RuntimeDep, paging: PageQuery) -> NamespaceList:
    """A page of namespaces in the order of their ids; counts of documents are estimates here."""
    return await _list(runtime, None, paging)


@post("/list", dto=Json[ListInput], return_dto=None, status_code=200, operation_id="list_namespaces_by_post", **PAGED)
async def list_by_post(
    runtime: RuntimeDep, paging: PageQuery, data: JSONBody[ListInput | None] = None
) -> NamespaceList:
    """A page of namespaces in the order of their ids; counts of documents are estimates here."""
    return await _list(runtime, data, paging)


async def _list(runtime: Runtime, wanted: PageInput | None, paging: PageInput) -> NamespaceList:
    page = page_of(wanted, paging, runtime.settings.max_page_size)
    async with transaction(runtime.engine, runtime.settings) as conn:
        found = await namespaces.describe_all(conn, after=page.after, limit=page.size + 1)
        total = await namespaces.count(conn)
    ids = [namespace.namespace_id for namespace in found]
    return NamespaceList(
        results=[_namespace(n) for n in found[: page.size]],
        pagination=pagination(page, ids, total),
        total_count=total,
    )


@get("/{namespace_id:str}", operation_id="get_namespace")
async def get_namespace(namespace_id: FromPath[str], runtime: RuntimeDep) -> Namespace:
    """A namespace by id or name."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        return _namespace(await namespaces.describe(conn, namespace_id))


@delete("/{namespace_id:str}", status_code=200, operation_id="delete_namespace")
async def delete_namespace(namespace_id: FromPath[str], runtime: RuntimeDep) -> dict[str, Any]:
    """Delete a namespace with its documents and retrievers, at once."""
    async for attempt in _retrying_locks(runtime):
        with attempt:
            async with _giving_way(runtime) as conn:
                deleted = await namespaces.delete(conn, namespace_id)
    return {
        "success": True,
        "namespace_id": deleted,
        "message": f"Namespace {deleted!r} is deleted.",
        "task_id": None,
    }


@post(
    "/{namespace_id:str}/promote",
    dto=Json[PromoteInput],
    return_dto=None,
    status_code=200,
    operation_id="promote_namespace",
)
async def promote(
    namespace_id: FromPath[str], runtime: RuntimeDep, request: AnyRequest, data: JSONBody[PromoteInput | None] = None
) -> Response[Promoted]:
    """Make a standalone namespace managed, in one transaction: map its indexes to services, add new indexes.

    409 when it is not standalone or a lock cannot be had; 422 with every problem otherwise; then nothing changed.
    The header `X-Promotion-Warnings` names mapped services that cannot be used on this server yet.
    """
    wanted = (data or PromoteInput()).wanted()
    services = _services(runtime)
    try:
        async for attempt in _retrying_locks(runtime):
            with attempt:
                async with _giving_way(runtime) as conn:
                    catalog = await promotion.promote(
                        conn, namespace_id, wanted, services, runtime.settings, request.state.principal.key_id
                    )
    except OperationalError as error:
        if _is_lock_timeout(error):
            message = f"Another transaction holds the namespace {namespace_id!r}; nothing was changed. Try again later."
            raise Conflict(message, code="locked", retryable=True) from None
        raise
    answer = Promoted(
        namespace_id=catalog.namespace_id,
        previous_mode="standalone",
        mode=catalog.mode,
        vector_configs=promotion.shown(catalog.vector_configs),
        vector_inference_map=dict(catalog.inference_map),
    )
    warnings = _unavailable(runtime, catalog.inference_map)
    told = " ".join(warnings).encode("ascii", "backslashreplace").decode()
    headers = {"X-Promotion-Warnings": told} if told else {}
    return Response(answer, headers=headers, status_code=200)


@post(
    "/{namespace_id:str}/promote/validate",
    dto=Json[PromoteInput],
    return_dto=None,
    status_code=200,
    operation_id="validate_promotion",
)
async def validate(
    namespace_id: FromPath[str], runtime: RuntimeDep, data: JSONBody[PromoteInput | None] = None
) -> Validation:
    """Tell what promoting would do, without doing it and without a lock; 422 for mappings that are invalid."""
    wanted = (data or PromoteInput()).wanted()
    services = _services(runtime)
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await namespaces.load_catalog(conn, namespace_id)
    decision = promotion.decide_promotion(catalog, wanted, services, runtime.settings)
    if any(problem.location[1] == "vector_mappings" for problem in decision.problems):
        raise InvalidRequest(decision.problems)
    errors = [{"code": p.code, "location": list(p.location), "message": p.message} for p in decision.problems]
    if catalog.mode != "standalone":
        message = f"The namespace is {catalog.mode} already; only standalone ones can be promoted."
        errors.append({"code": "not_standalone", "location": [], "message": message})
    return Validation(
        namespace_id=catalog.namespace_id,
        current_mode=catalog.mode,
        valid=not errors,
        required_user_action="Correct the errors." if errors else "None: promote when you are ready.",
        vector_configs=promotion.shown(decision.configs(catalog)),
        vector_inference_map={**catalog.inference_map, **decision.inference_map()},
        suggestions=promotion.suggestions(catalog, services),
        errors=errors,
        warnings=_unavailable(runtime, decision.inference_map()),
    )


def _services(runtime: Runtime) -> Mapping[str, ServiceInfo]:
    return {info.name: info for info in runtime.inference.infos()}


def _unavailable(runtime: Runtime, mapped: Mapping[str, str]) -> list[str]:
    found = []
    for name in dict.fromkeys(mapped.values()):
        service = runtime.inference.get(name)
        if service is not None and (reason := service.unavailable()):
            found.append(f"The service {name!r} cannot be used on this server yet: {reason}")
    return found


def _is_lock_timeout(error: BaseException) -> bool:
    return isinstance(error, OperationalError) and isinstance(error.orig, LockNotAvailable)


def _giving_way(runtime: Runtime) -> AbstractAsyncContextManager[AsyncConnection]:
    """A transaction that waits for locks only shortly, since everyone else waits behind it."""
    return transaction(runtime.engine, runtime.settings, lock_timeout_ms=runtime.settings.lock_timeout_ms)


def _retrying_locks(runtime: Runtime) -> AsyncRetrying:
    """DDL gives way to whoever holds a lock: each try waits for `lock_timeout`, with jitter between them."""
    return AsyncRetrying(
        retry=retry_if_exception(_is_lock_timeout),
        stop=stop_after_attempt(runtime.settings.lock_attempts),
        wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.1),
        reraise=True,
    )


router = Router(
    "/namespaces",
    route_handlers=[create_standalone, list_by_get, list_by_post, get_namespace, delete_namespace, promote, validate],
    tags=["Namespaces"],
)
