"""/v1/namespaces/…: their indexes ensured, and whole namespaces cloned."""

from typing import Annotated

import msgspec
from litestar import Router, post
from litestar.params import FromPath, FromQuery, JSONBody

from app.api.locks import giving_way
from app.api.namespace_models import Namespace, shown
from app.api.wire import Input, Json, NotOffered, RuntimeDep
from app.db.engine import transaction
from app.domain.catalog import described
from app.domain.indexing import index_repair
from app.domain.operation import clone as cloning
from app.domain.operation.clone import Clone

WITHOUT = "Filters on these use what a namespace has anyway; they need no index: {}."
BUILDING = "Their builds have been asked for before and are not over: {}."
EXACT = "These are searched exactly and have no index: {}."


class EnsuredIndexes(msgspec.Struct, kw_only=True):
    """`ensured` indexes are there and valid; `rebuilt` ones are being built by the job; `created` is both. `task_ids`
    tell how far each vector index is."""

    namespace_id: str
    ensured: list[str]
    rebuilt: list[str]
    skipped: list[str]
    created: list[str]
    task_ids: dict[str, str]
    warnings: list[str]


class CloneResources(Input, frozen=True):
    """What a clone copies beside the configuration: documents with their vectors (`collections`), and retrievers."""

    collections: bool = True
    retrievers: bool = True
    taxonomies: NotOffered = False


class CloneInput(Input, frozen=True):
    """A copy of a namespace, under another name."""

    namespace_name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    include_resources: CloneResources | None = None
    description: str | None = None
    mode: NotOffered = "copy"
    source_organization_id: NotOffered = None
    ttl_seconds: NotOffered = None


class ClonedResources(msgspec.Struct, kw_only=True):
    """How much was copied; a point is a document with its vectors."""

    collections: int
    retrievers: int
    points: int
    taxonomies: int = 0
    buckets: int = 0
    objects: int = 0


class CloneAnswer(msgspec.Struct, kw_only=True):
    """The copy, which is complete; where it is large its indexes are still being built, and it is searched exactly."""

    namespace: Namespace
    source_namespace_id: str
    status: str = "ready"
    task_id: str | None = None
    cloned_resources: ClonedResources
    primary_retriever_id: str | None


@post("/{namespace_id:str}/ensure-indexes", status_code=200, scope="manage", operation_id="ensure_namespace_indexes")
async def ensure_indexes(
    namespace_id: FromPath[str], runtime: RuntimeDep, force_rebuild: FromQuery[bool] = False
) -> EnsuredIndexes:
    """Check all indexes, and have jobs build those that are missing, invalid or failed; or all of them.

    A vector index that is there and valid is searched until another has been built beside it.
    """
    found = await giving_way(
        runtime, namespace_id, lambda conn: index_repair.ensure(conn, namespace_id, rebuild=force_rebuild)
    )
    reasons = {WITHOUT: found.without, BUILDING: found.building, EXACT: found.exact}
    return EnsuredIndexes(
        namespace_id=found.namespace_id,
        ensured=found.ensured,
        rebuilt=found.rebuilt,
        skipped=[*found.building, *found.exact, *found.without],
        created=[*found.ensured, *found.rebuilt],
        task_ids=found.tasks,
        warnings=[reason.format(", ".join(names)) for reason, names in reasons.items() if names],
    )


@post(
    "/{namespace_id:str}/clone",
    dto=Json[CloneInput],
    return_dto=None,
    status_code=200,
    scope="manage",
    operation_id="clone_namespace",
)
async def clone(namespace_id: FromPath[str], data: JSONBody[CloneInput], runtime: RuntimeDep) -> CloneAnswer:
    """Copy a namespace at once and as a whole; 422 where it has more documents than fit in a request."""
    resources = data.include_resources or CloneResources()
    wanted = Clone(data.namespace_name, data.description, resources.collections, resources.retrievers)
    async with transaction(runtime.engine, runtime.settings) as conn:
        cloned = await cloning.clone(conn, runtime.settings, namespace_id, wanted)
        copy = shown(await described.describe(conn, cloned.namespace_id))
    return CloneAnswer(
        namespace=copy,
        source_namespace_id=cloned.source_id,
        cloned_resources=ClonedResources(
            collections=cloned.collections, retrievers=len(cloned.retrievers), points=cloned.documents
        ),
        primary_retriever_id=cloned.retrievers[0] if cloned.retrievers else None,
    )


router = Router("/namespaces", route_handlers=[ensure_indexes, clone], tags=["Namespaces"])
