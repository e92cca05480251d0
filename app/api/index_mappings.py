"""/v1/namespaces/…/vector-indexes and …/vector-mappings: indexes added, dropped and mapped, after promotion too."""

from typing import Any, Literal

import msgspec
from litestar import Request, Router, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from app.api.locks import giving_way
from app.api.namespace_models import MappedVectorInput
from app.api.promotion import services_of
from app.api.wire import Input, Json, RuntimeDep
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog
from app.domain.indexing import vector_indexes
from app.domain.indexing.vector_changes import index_of
from app.domain.promoting import mappings
from app.domain.promoting.mappings import Wanted
from app.retrieval.catalog import Catalog, VectorConfig

AnyRequest = Request[Any, Any, Any]
FIELD_CHANGED = (
    "Vectors that were made of another field stay until their documents are written again, or are back-filled."
)
UNPROVEN = "It was not proven that the service made the stored vectors; queries by text may find nothing that fits."


class ServiceInput(Input, frozen=True):
    """The service of an index, and the payload field that it embeds by itself (none: it embeds queries alone).

    `verify`: whether stored rows are embedded anew and compared: `off` (the caller's word), `sample`, or `require`,
    which is the default in the place of another service. Vectors that another service is known to have made are no
    case for proof: start a migration.
    """

    inference_service: str
    source_field: str | None = None
    verify: Literal["off", "sample", "require"] | None = None


class VectorIndex(msgspec.Struct, kw_only=True):
    """A vector index: searches are exact unless `index_state` is `ready`, or where `index_method` is `exact`."""

    name: str
    kind: str
    dimension: int
    metric: str
    inference_service: str | None
    source_field: str | None
    index_method: str
    index_state: str
    warnings: list[str] = []


class VectorMappings(msgspec.Struct, kw_only=True):
    """The vector indexes of a namespace with their services, in the order in which they were declared."""

    namespace_id: str
    mode: str
    results: list[VectorIndex]


class VectorIndexDropped(msgspec.Struct, kw_only=True):
    """An index that is gone, with its vectors."""

    namespace_id: str
    name: str
    success: bool = True


def _shown(catalog: Catalog, config: VectorConfig, warnings: list[str] | None = None) -> VectorIndex:
    field = next((source.field for source in catalog.sources if source.name == config.name), None)
    return VectorIndex(
        name=config.name,
        kind=config.kind,
        dimension=config.dimension,
        metric=config.metric,
        inference_service=catalog.inference_map.get(config.name),
        source_field=field,
        index_method=config.index_method,
        index_state=config.index_state,
        warnings=warnings or [],
    )


@get("/{namespace_id:str}/vector-mappings", scope="read", operation_id="list_vector_mappings")
async def list_mappings(namespace_id: FromPath[str], runtime: RuntimeDep) -> VectorMappings:
    """Every vector index with the service that embeds for it, and what that embeds by itself."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_id)
    found = [_shown(catalog, config) for config in catalog.vector_configs]
    return VectorMappings(namespace_id=catalog.namespace_id, mode=catalog.mode, results=found)


@post(
    "/{namespace_id:str}/vector-indexes",
    dto=Json[MappedVectorInput],
    return_dto=None,
    status_code=200,
    scope="manage",
    operation_id="add_vector_index",
)
async def add_index(
    namespace_id: FromPath[str], data: JSONBody[MappedVectorInput], runtime: RuntimeDep, request: AnyRequest
) -> VectorIndex:
    """Add a vector index, in standalone namespaces without a service. No document has such a vector yet."""
    vector, changed_by = data.wanted(), request.state.principal.key_id
    services = await services_of(runtime, [vector.inference_service] if vector.inference_service else [])

    async def work(conn: AsyncConnection) -> Catalog:
        return await vector_indexes.add(conn, namespace_id, vector, services, runtime.settings, changed_by)

    catalog = await giving_way(runtime, namespace_id, work)
    return _shown(catalog, catalog.by_name[vector.name])


@delete(
    "/{namespace_id:str}/vector-indexes/{name:path}", status_code=200, scope="manage", operation_id="drop_vector_index"
)
async def drop_index(
    namespace_id: FromPath[str],
    name: FromPath[str],
    runtime: RuntimeDep,
    request: AnyRequest,
    force: FromQuery[bool] = False,
) -> VectorIndexDropped:
    """Drop a vector index with all its vectors, at once. 409 with the retrievers that search it, unless `force`."""
    name = name.removeprefix("/")
    changed_by = request.state.principal.key_id

    async def work(conn: AsyncConnection) -> Catalog:
        return await vector_indexes.drop(conn, namespace_id, name, runtime.limits, changed_by, force=force)

    catalog = await giving_way(runtime, namespace_id, work)
    return VectorIndexDropped(namespace_id=catalog.namespace_id, name=name)


@put(
    "/{namespace_id:str}/vector-mappings/{name:path}",
    dto=Json[ServiceInput],
    return_dto=None,
    scope="manage",
    operation_id="map_vector_index",
)
async def map_index(
    namespace_id: FromPath[str],
    name: FromPath[str],
    data: JSONBody[ServiceInput],
    runtime: RuntimeDep,
    request: AnyRequest,
) -> VectorIndex:
    """Map a vector index to a service, or to another one, or to another source field; managed namespaces only.

    Refused where the stored vectors are another model's: a migration embeds the documents anew without a gap.
    """
    name = name.removeprefix("/")
    wanted = Wanted(name, data.inference_service, data.source_field, data.verify)
    services = await services_of(runtime, [data.inference_service])
    checked = await mappings.check(runtime, namespace_id, wanted, services)
    changed_by = request.state.principal.key_id

    async def work(conn: AsyncConnection) -> tuple[Catalog, Catalog]:
        before = await load_catalog(conn, namespace_id)
        return before, await mappings.put(conn, namespace_id, wanted, checked, services, changed_by)

    before, after = await giving_way(runtime, namespace_id, work)
    warnings = []
    fields = {source.field for source in before.sources if source.name == name} - {data.source_field}
    if fields:
        warnings.append(FIELD_CHANGED)
    if checked.proof is not None and not checked.proof.usable:
        warnings.append(" ".join([UNPROVEN, *checked.proof.reasons]))
    if reason := _unavailable(runtime, data.inference_service):
        warnings.append(reason)
    return _shown(after, index_of(after, name), warnings)


def _unavailable(runtime: Any, name: str) -> str | None:
    service = runtime.inference.get(name)
    reason = service.unavailable() if service is not None else None
    return f"The service {name!r} cannot be used on this server yet: {reason}" if reason else None


@delete(
    "/{namespace_id:str}/vector-mappings/{name:path}",
    status_code=200,
    scope="manage",
    operation_id="unmap_vector_index",
)
async def unmap_index(
    namespace_id: FromPath[str],
    name: FromPath[str],
    runtime: RuntimeDep,
    request: AnyRequest,
    force: FromQuery[bool] = False,
) -> VectorIndex:
    """Map a vector index to no service: its vectors stay. 409 while retrievers search it by text, unless `force`."""
    name = name.removeprefix("/")
    changed_by = request.state.principal.key_id

    async def work(conn: AsyncConnection) -> Catalog:
        return await mappings.take_back(conn, namespace_id, name, runtime.limits, changed_by, force=force)

    catalog = await giving_way(runtime, namespace_id, work)
    return _shown(catalog, index_of(catalog, name))


router = Router(
    "/namespaces",
    route_handlers=[list_mappings, add_index, drop_index, map_index, unmap_index],
    tags=["Vector indexes"],
)
