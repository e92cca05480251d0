"""/v1/collections: made, read, listed, changed, cloned, deleted, triggered; by id or name."""

from collections.abc import Mapping, Sequence
from typing import Any

from litestar import Request, Response, Router, delete, get, patch, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from app.api.collection_models import (
    Cloned,
    CloneInput,
    CollectionDeleted,
    CollectionInput,
    CollectionList,
    CollectionModel,
    CollectionPatch,
    CollectionsInput,
    Features,
    TriggeredModel,
    TriggerInput,
    features_of,
    shown,
    statistics,
)
from app.api.listing import page
from app.api.locks import giving_way
from app.api.paging import PAGED, PageInput, PageQuery, Pagination
from app.api.promotion import services_of
from app.api.retrievers import NEXT_STEP
from app.api.wire import Json, RuntimeDep, namespace_of
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog, lock_catalog
from app.domain.content import batches, buckets, collection_changes, collections, described_collections
from app.domain.content.batches import Triggered
from app.domain.content.collection_changes import Wanted
from app.domain.content.collections import Collection
from app.domain.runtime import Runtime
from app.errors import InvalidRequest, NotFound, Problem
from app.retrieval.catalog import Catalog

AnyRequest = Request[Any, Any, State]


@post(
    "/", dto=Json[CollectionInput], return_dto=None, status_code=200, scope="manage", operation_id="create_collection"
)
async def create_collection(
    data: JSONBody[CollectionInput], request: AnyRequest, runtime: RuntimeDep
) -> CollectionModel:
    """Make a collection over buckets or other collections, in one transaction with the vector index that it fills.

    The index is one of its own, or the one that the extractor's `vector_index` names, such as a promoted one. What its
    sources have already is processed at once, unless `auto` is false. 409 in a namespace that is not managed.
    """
    return await _create(runtime, namespace_of(request), data.wanted())


async def _create(runtime: Runtime, namespace: str, wanted: Wanted) -> CollectionModel:
    services = await services_of(runtime)

    async def work(conn: AsyncConnection) -> tuple[Collection, Catalog]:
        made = await collection_changes.create(conn, namespace, wanted, services, runtime.settings)
        return made, await load_catalog(conn, made.namespace_id)

    made, catalog = await giving_way(runtime, namespace, work)
    warnings = []
    for name in made.index_names.values():
        service = runtime.inference.get(catalog.inference_map.get(name, ""))
        if service is not None and (reason := service.unavailable()):
            warnings.append(f"The service {service.info.name!r} cannot be used on this server yet: {reason}")
    return shown(made, catalog, 0, embedding=False, warnings=warnings)


@get("/{collection_id:str}", scope="read", operation_id="get_collection")
async def get_collection(collection_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep) -> CollectionModel:
    """A collection by id or name, with its counts."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        return await _found(conn, catalog, collection_id)


async def _found(conn: AsyncConnection, catalog: Catalog, identifier: str) -> CollectionModel:
    found = await collections.find(conn, catalog.namespace_id, identifier)
    return (await _with_counts(conn, catalog, [found]))[0]


async def _with_counts(conn: AsyncConnection, catalog: Catalog, found: Sequence[Collection]) -> list[CollectionModel]:
    counts = await described_collections.counts(conn, catalog, [each.collection_id for each in found])
    waiting = await described_collections.waiting(conn, catalog)
    listed = []
    for each in found:
        embedding = any(name in waiting for name in each.index_names.values())
        listed.append(shown(each, catalog, counts.get(each.collection_id, 0), embedding=embedding))
    return listed


@get("/", scope="read", operation_id="list_collections", **PAGED)
async def list_by_get(request: AnyRequest, runtime: RuntimeDep, paging: PageQuery) -> Response[CollectionList]:
    """A page of the namespace's collections, the newest first."""
    return await _list(runtime, namespace_of(request), None, paging)


@post(
    "/list",
    dto=Json[CollectionsInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="list_collections_by_post",
    **PAGED,
)
async def list_by_post(
    request: AnyRequest, runtime: RuntimeDep, paging: PageQuery, data: JSONBody[CollectionsInput | None] = None
) -> Response[CollectionList]:
    """A page of the collections that are asked for, the newest first unless it is sorted otherwise.

    Collections that only documents name (`_direct_upsert`, and names of upserts) are not listed.
    """
    return await _list(runtime, namespace_of(request), data, paging)


async def _list(
    runtime: Runtime, namespace: str, asked: CollectionsInput | None, paging: PageInput
) -> Response[CollectionList]:
    async with transaction(runtime.engine, runtime.settings) as conn:
        try:
            catalog = await load_catalog(conn, namespace)
        except NotFound:
            warning = {"resource": "namespace", "reason": "unresolved", "id": namespace, "next_step": NEXT_STEP}
            empty = CollectionList(
                results=[], pagination=Pagination(total=0), total_count=0, stats=statistics([]), warnings=[warning]
            )
            return Response(empty, headers={"X-Namespace-Unresolved": "true"}, status_code=200)
        binds = {"namespace_id": catalog.namespace_id}
        found, place, total = await page(
            conn, runtime, collections.LISTED, binds, asked, paging, lambda row: Collection(**row), count=True
        )
        results = await _with_counts(conn, catalog, found)
    listed = CollectionList(results=results, pagination=place, total_count=total or 0, stats=statistics(results))
    return Response(listed, status_code=200)


@patch(
    "/{collection_id:str}", dto=Json[CollectionPatch], return_dto=None, scope="manage", operation_id="update_collection"
)
async def update_collection(
    collection_id: FromPath[str], data: JSONBody[CollectionPatch], request: AnyRequest, runtime: RuntimeDep
) -> CollectionModel:
    """Change name, description, metadata, `enabled` or `auto`. One that goes on begins with what it has missed."""

    async def work(conn: AsyncConnection) -> CollectionModel:
        catalog = await lock_catalog(conn, namespace_of(request), exclusive=True)
        changed = await collection_changes.change(conn, catalog, collection_id, data.changes())
        return await _found(conn, catalog, changed.collection_id)

    return await giving_way(runtime, namespace_of(request), work)


@post(
    "/{collection_id:str}/clone",
    dto=Json[CloneInput],
    return_dto=None,
    status_code=200,
    scope="manage",
    operation_id="clone_collection",
)
async def clone_collection(
    collection_id: FromPath[str], data: JSONBody[CloneInput], request: AnyRequest, runtime: RuntimeDep
) -> Cloned:
    """A new collection like this one, but for what is given; its documents are made anew."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        copied = await collections.find(conn, catalog.namespace_id, collection_id)
    made = await _create(runtime, namespace_of(request), data.wanted(copied))
    return Cloned(collection=made, source_collection_id=copied.collection_id)


@delete("/{collection_id:str}", status_code=200, scope="manage", operation_id="delete_collection")
async def delete_collection(
    collection_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep, force: FromQuery[bool] = False
) -> CollectionDeleted:
    """Delete a collection with its documents, at once. With `force` the vector indexes that a collection made, and that
    no other fills, are dropped, too. 409 while other collections are made from it."""

    async def work(conn: AsyncConnection) -> collection_changes.Deleted:
        return await collection_changes.delete(conn, namespace_of(request), collection_id, runtime.limits, force=force)

    gone = await giving_way(runtime, namespace_of(request), work)
    return CollectionDeleted(
        collection_id=gone.collection.collection_id,
        collection_name=gone.collection.collection_name,
        document_count=gone.documents,
        dropped_indexes=list(gone.indexes),
        message=f"Collection {gone.collection.collection_name!r} is deleted.",
    )


@post(
    "/{collection_id:str}/trigger",
    dto=Json[TriggerInput],
    return_dto=None,
    status_code=202,
    scope="write",
    operation_id="trigger_collection",
)
async def trigger_collection(
    collection_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    data: JSONBody[TriggerInput | None] = None,
) -> TriggeredModel:
    """Process what the sources of a collection have, and the collections over it. The task counts extraction and
    embedding: when it is COMPLETED, all can be searched."""
    asked = data or TriggerInput()
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_of(request), exclusive=False)
        found = await collections.find(conn, catalog.namespace_id, collection_id)
        by_bucket = not found.is_over_collections
        holders = await _holders(conn, catalog, asked, by_bucket=by_bucket)
        triggered = await batches.trigger(
            conn,
            catalog,
            found,
            holders=holders,
            source_ids=asked.object_ids,
            dedup=asked.dedup_strategy or "skip",
        )
    return _triggered(found, triggered, by_bucket=by_bucket)


async def _holders(
    conn: AsyncConnection, catalog: Catalog, asked: TriggerInput, *, by_bucket: bool
) -> list[str] | None:
    name, given = (
        ("include_buckets", asked.include_buckets) if by_bucket else ("include_collections", asked.include_collections)
    )
    other = asked.include_collections if by_bucket else asked.include_buckets
    if other or (asked.object_ids is not None and not by_bucket):
        message = "include_buckets and object_ids are for collections over buckets, include_collections for the others."
        raise InvalidRequest([Problem(("body",), "one_of", message)])
    if given is None:
        return None
    if not by_bucket:
        return await collections.resolve(conn, catalog.namespace_id, given, ("body", name))
    return [(await buckets.find(conn, catalog.namespace_id, each)).bucket_id for each in given]


def _triggered(found: Collection, triggered: Triggered, *, by_bucket: bool) -> TriggeredModel:
    what = "objects" if by_bucket else "documents"
    told: Mapping[str, Any] = (
        {
            "batch_id": triggered.batch_ids[0] if triggered.batch_ids else None,
            "batch_ids": list(triggered.batch_ids),
            "task_ids": [triggered.task_id for _ in triggered.batch_ids],
            "source_bucket_ids": list(triggered.holders),
            "object_count": triggered.sources,
        }
        if by_bucket
        else {"source_collection_ids": list(triggered.holders), "document_count": triggered.sources}
    )
    return TriggeredModel(
        task_id=triggered.task_id,
        collection_id=found.collection_id,
        total_tiers=len(triggered.tiers),
        message=f"{triggered.sources} {what} are looked at, and processed where they are not yet.",
        **told,
    )


@get("/{collection_id:str}/features", scope="read", operation_id="describe_collection_features")
async def describe_features(collection_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep) -> Features:
    """The features of a collection: the indexes that it fills, and how searches name them."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        found = await collections.find(conn, catalog.namespace_id, collection_id)
    return features_of(found, catalog)


router = Router(
    "/collections",
    route_handlers=[
        create_collection,
        list_by_get,
        list_by_post,
        get_collection,
        update_collection,
        clone_collection,
        delete_collection,
        trigger_collection,
        describe_features,
    ],
    tags=["Collections"],
)
