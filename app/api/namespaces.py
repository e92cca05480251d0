"""/v1/namespaces: created, read, changed, deleted; by id or name."""

import secrets
from collections.abc import Mapping
from typing import Any

from litestar import Router, delete, get, patch, post, put
from litestar.params import FromPath, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from app.api.locks import giving_way
from app.api.namespace_models import (
    Namespace,
    NamespaceInput,
    NamespacePatch,
    StandaloneInput,
    shown,
)
from app.api.promotion import services_of
from app.api.wire import Json, RuntimeDep
from app.db.engine import transaction
from app.domain.catalog import described, namespace_changes, namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.inference.services import held
from app.domain.promoting import promotion
from app.domain.runtime import Runtime
from app.errors import InvalidRequest, Problem, Problems
from app.inference.base import ServiceInfo
from app.retrieval.catalog import Mode


@post(
    "/",
    dto=Json[NamespaceInput],
    return_dto=None,
    status_code=200,
    scope="manage",
    operation_id="create_namespace",
)
async def create_namespace(data: JSONBody[NamespaceInput], runtime: RuntimeDep) -> Namespace:
    """Create a namespace: managed, with vector indexes mapped to services; or standalone, with vectors of its callers.

    Without `vector_configs` its indexes are made by the first vectors that are written.
    """
    vectors = None if data.vector_configs is None else [vector.wanted() for vector in data.vector_configs]
    indexes = [index.wanted() for index in data.payload_indexes or ()]
    mode = _mode(data, vectors)
    problems = Problems()
    kept = {} if data.auto_create_indexes is None else {"auto_create_indexes": data.auto_create_indexes}
    services = await services_of(runtime)
    async with transaction(runtime.engine, runtime.settings) as conn:
        services = await held(conn, services, [v.inference_service for v in vectors or () if v.inference_service])
        _check_services(mode, vectors or [], services, problems)
        catalog = await namespaces.create(
            conn,
            runtime.settings,
            mode=mode,
            namespace_id=data.namespace_id or f"ns_{secrets.token_hex(12)}",
            namespace_name=data.namespace_name,
            vectors=vectors,
            description=data.description,
            kept=kept,
            payload_indexes=indexes,
            problems=problems,
        )
        return shown(await described.describe(conn, catalog.namespace_id))


def _mode(data: NamespaceInput, vectors: list[NewVector] | None) -> Mode:
    if data.mode is None:
        return "standalone" if vectors and not any(v.inference_service for v in vectors) else "managed"
    if data.mode == "standalone":
        return "standalone"
    if data.mode == "managed":
        return "managed"
    raise InvalidRequest([Problem(("body", "mode"), "bad_mode", "A mode is managed or standalone.")])


def _check_services(
    mode: Mode, vectors: list[NewVector], services: Mapping[str, ServiceInfo], problems: Problems
) -> None:
    for n, vector in enumerate(vectors):
        at = ("body", "vector_configs", n, "inference_service")
        if vector.inference_service is None:
            continue
        if mode == "standalone":
            message = "A standalone namespace has no services; create a managed one, or promote it later."
            problems.add(at, "bad_mode", message)
        else:
            promotion.check_service(vector.inference_service, vector.name, vector.dimension, services, at, problems)


@post(
    "/standalone",
    dto=Json[StandaloneInput],
    return_dto=None,
    status_code=200,
    scope="manage",
    operation_id="create_standalone_namespace",
)
async def create_standalone(data: JSONBody[StandaloneInput], runtime: RuntimeDep) -> dict[str, Any]:
    """Create a standalone namespace: a schema of its own, whose vectors its callers bring."""
    if data.mode != "standalone":
        problem = Problem(
            ("body", "mode"), "bad_mode", "This creates standalone namespaces; promotion makes one managed."
        )
        raise InvalidRequest([problem])
    vectors = None if data.vector_configs is None else [vector.wanted() for vector in data.vector_configs]
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


@get("/{namespace_id:str}", scope="read", operation_id="get_namespace")
async def get_namespace(namespace_id: FromPath[str], runtime: RuntimeDep) -> Namespace:
    """A namespace by id or name."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        return shown(await described.describe(conn, namespace_id))


@patch(
    "/{namespace_id:str}",
    dto=Json[NamespacePatch],
    return_dto=None,
    scope="manage",
    operation_id="update_namespace",
)
async def update_namespace(
    namespace_id: FromPath[str], data: JSONBody[NamespacePatch], runtime: RuntimeDep
) -> Namespace:
    """Change a namespace's name, description or declared payload indexes; what is not given stays."""
    return await _change(runtime, namespace_id, data)


@put(
    "/{namespace_id:str}",
    dto=Json[NamespacePatch],
    return_dto=None,
    scope="manage",
    operation_id="replace_namespace",
)
async def replace_namespace(
    namespace_id: FromPath[str], data: JSONBody[NamespacePatch], runtime: RuntimeDep
) -> Namespace:
    """The same as PATCH: what is given is replaced, what is not given stays."""
    return await _change(runtime, namespace_id, data)


async def _change(runtime: Runtime, identifier: str, data: NamespacePatch) -> Namespace:
    async def work(conn: AsyncConnection) -> Namespace:
        namespace_id = await namespace_changes.change(conn, identifier, data.wanted())
        return shown(await described.describe(conn, namespace_id))

    return await giving_way(runtime, identifier, work)


@delete("/{namespace_id:str}", status_code=200, scope="manage", operation_id="delete_namespace")
async def delete_namespace(namespace_id: FromPath[str], runtime: RuntimeDep) -> dict[str, Any]:
    """Delete a namespace with its documents and retrievers, at once. 409 while others hold it for long."""
    deleted = await giving_way(runtime, namespace_id, lambda conn: namespaces.delete(conn, namespace_id))
    return {
        "success": True,
        "namespace_id": deleted,
        "message": f"Namespace {deleted!r} is deleted.",
        "task_id": None,
    }


router = Router(
    "/namespaces",
    route_handlers=[
        create_namespace,
        create_standalone,
        get_namespace,
        update_namespace,
        replace_namespace,
        delete_namespace,
    ],
    tags=["Namespaces"],
)
