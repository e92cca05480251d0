"""/v1/namespaces/…/vector-indexes: how vectors are indexed, and changing that while they are searched."""

from typing import Annotated, Any

import msgspec
from litestar import Router, get, patch
from litestar.params import FromPath, JSONBody

from app.api.locks import giving_way
from app.api.wire import Input, Json, RuntimeDep
from app.db.engine import transaction
from app.domain.indexing import index_changes
from app.domain.indexing.index_changes import PhysicalIndex
from app.domain.indexing.index_repair import DEFINITION
from app.retrieval.catalog import IndexMethod

Unset = msgspec.UnsetType
UNSET = msgspec.UNSET


class IndexPatch(Input, frozen=True):
    """How the vectors are to be indexed. What is left out stays; null is the deployment's setting."""

    m: Annotated[int, msgspec.Meta(ge=2, le=100)] | Unset | None = UNSET
    ef_construction: Annotated[int, msgspec.Meta(ge=4, le=1000)] | Unset | None = UNSET
    index_method: IndexMethod | Unset = UNSET

    def changes(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in DEFINITION}
        return {name: value for name, value in given.items() if value is not UNSET}


class IndexShown(msgspec.Struct, kw_only=True):
    """A vector index. `m` and `ef_construction` are those that it was built with; `index_state` is `ready`, `building`
    or `failed` (both are searched exactly); `task_id` builds it, or rebuilds it while this one is searched."""

    name: str
    kind: str
    dimension: int
    metric: str
    index_method: IndexMethod
    index_state: str
    index_name: str | None
    valid: bool
    size_bytes: int
    m: int | None
    ef_construction: int | None
    task_id: str | None


class IndexList(msgspec.Struct, kw_only=True):
    """The vector indexes of a namespace."""

    namespace_id: str
    results: list[IndexShown]


class IndexChange(msgspec.Struct, kw_only=True):
    """A rebuild that has been asked for: its task, and the index as it will be."""

    namespace_id: str
    name: str
    task_id: str
    index_method: IndexMethod
    m: int | None
    ef_construction: int | None
    warnings: list[str]


def shown(index: PhysicalIndex) -> IndexShown:
    config = index.config
    exact = config.index_method == "exact"
    return IndexShown(
        name=config.name,
        kind=config.kind,
        dimension=config.dimension,
        metric=config.metric,
        index_method=config.index_method,
        index_state=config.index_state,
        index_name=None if exact else config.index_name,
        valid=index.valid or exact,
        size_bytes=index.bytes,
        m=index.parameters.get("m"),
        ef_construction=index.parameters.get("ef_construction"),
        task_id=index.task_id,
    )


@get("/{namespace_id:str}/vector-indexes", scope="read", operation_id="list_vector_indexes")
async def list_vector_indexes(namespace_id: FromPath[str], runtime: RuntimeDep) -> IndexList:
    """How each vector config is indexed now."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        found, indexes = await index_changes.list_all(conn, namespace_id)
    return IndexList(namespace_id=found, results=[shown(index) for index in indexes])


@patch(
    "/{namespace_id:str}/vector-indexes/{name:path}",
    dto=Json[IndexPatch],
    return_dto=None,
    status_code=200,
    scope="manage",
    operation_id="change_vector_index",
)
async def change_vector_index(
    namespace_id: FromPath[str], name: FromPath[str], data: JSONBody[IndexPatch], runtime: RuntimeDep
) -> IndexChange:
    """Rebuild an index with another method or other parameters, while it is searched.

    The new one is built beside it by a task (`GET /v1/tasks/{task_id}`), takes its place in one transaction, and the
    old one is dropped. 409 while it is being built anyway.
    """
    name, changes = name.removeprefix("/"), data.changes()
    made = await giving_way(
        runtime,
        namespace_id,
        lambda conn: index_changes.change(conn, namespace_id, name, changes, runtime.settings),
    )
    return IndexChange(
        namespace_id=made.namespace_id, name=name, task_id=made.task_id, warnings=made.warnings, **made.wanted
    )


router = Router("/namespaces", route_handlers=[list_vector_indexes, change_vector_index], tags=["Namespaces"])
