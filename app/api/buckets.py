"""/v1/buckets: made, read, listed, changed, deleted; by id or name, in the namespace of the request."""

from typing import Any

from litestar import Request, Response, Router, delete, get, patch, post, put
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody

from app.api.bucket_models import (
    BucketDeleted,
    BucketInput,
    BucketList,
    BucketModel,
    BucketPatch,
    ListInput,
    shown,
    statistics,
)
from app.api.listing import page
from app.api.paging import PAGED, PageInput, PageQuery, Pagination
from app.api.retrievers import NEXT_STEP
from app.api.wire import Json, RuntimeDep, namespace_of
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog, lock_catalog
from app.domain.content import buckets
from app.domain.content.buckets import Bucket
from app.domain.runtime import Runtime
from app.errors import NotFound

AnyRequest = Request[Any, Any, State]


@post("/", dto=Json[BucketInput], return_dto=None, status_code=200, scope="manage", operation_id="create_bucket")
async def create_bucket(data: JSONBody[BucketInput], request: AnyRequest, runtime: RuntimeDep) -> BucketModel:
    """Make a bucket: a set of objects of one schema. Its collections process them."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_of(request), exclusive=False)
        made = await buckets.create(
            conn,
            runtime.settings,
            catalog.namespace_id,
            name=data.bucket_name,
            properties=data.bucket_schema.wanted(),
            unique_key=None if data.unique_key is None else data.unique_key.wanted(),
            description=data.description,
            metadata=data.metadata,
        )
    return shown(made)


@get("/{bucket_id:str}", scope="read", operation_id="get_bucket")
async def get_bucket(bucket_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep) -> BucketModel:
    """A bucket by id or name, with its counts."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        return shown(await buckets.find(conn, catalog.namespace_id, bucket_id))


@get("/", scope="read", operation_id="list_buckets", **PAGED)
async def list_by_get(request: AnyRequest, runtime: RuntimeDep, paging: PageQuery) -> Response[BucketList]:
    """A page of the namespace's buckets, the newest first."""
    return await _list(runtime, namespace_of(request), None, paging)


@post(
    "/list",
    dto=Json[ListInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="list_buckets_by_post",
    **PAGED,
)
async def list_by_post(
    request: AnyRequest, runtime: RuntimeDep, paging: PageQuery, data: JSONBody[ListInput | None] = None
) -> Response[BucketList]:
    """A page of the buckets that are asked for, the newest first unless it is sorted otherwise."""
    return await _list(runtime, namespace_of(request), data, paging)


async def _list(runtime: Runtime, namespace: str, asked: ListInput | None, paging: PageInput) -> Response[BucketList]:
    async with transaction(runtime.engine, runtime.settings) as conn:
        try:
            catalog = await load_catalog(conn, namespace)
        except NotFound:
            warning = {"resource": "namespace", "reason": "unresolved", "id": namespace, "next_step": NEXT_STEP}
            place = Pagination(total=0)
            empty = BucketList(results=[], pagination=place, total_count=0, stats=statistics([]), warnings=[warning])
            return Response(empty, headers={"X-Namespace-Unresolved": "true"}, status_code=200)
        binds = {"namespace_id": catalog.namespace_id}
        found, place, total = await page(
            conn, runtime, buckets.LISTED, binds, asked, paging, lambda row: shown(Bucket(**row)), count=True
        )
    listed = BucketList(results=found, pagination=place, total_count=total or 0, stats=statistics(found))
    return Response(listed, status_code=200)


@patch("/{bucket_id:str}", dto=Json[BucketPatch], return_dto=None, scope="manage", operation_id="update_bucket")
async def update_bucket(
    bucket_id: FromPath[str],
    data: JSONBody[BucketPatch],
    request: AnyRequest,
    runtime: RuntimeDep,
    force_schema_break: FromQuery[bool] = False,
) -> BucketModel:
    """Change a bucket; what is not given stays. A schema that would break what objects have must be forced."""
    return await _change(runtime, namespace_of(request), bucket_id, data, force_schema_break)


@put("/{bucket_id:str}", dto=Json[BucketPatch], return_dto=None, scope="manage", operation_id="replace_bucket")
async def replace_bucket(
    bucket_id: FromPath[str],
    data: JSONBody[BucketPatch],
    request: AnyRequest,
    runtime: RuntimeDep,
    force_schema_break: FromQuery[bool] = False,
) -> BucketModel:
    """The same as PATCH: what is given is replaced, what is not given stays."""
    return await _change(runtime, namespace_of(request), bucket_id, data, force_schema_break)


async def _change(runtime: Runtime, namespace: str, bucket_id: str, data: BucketPatch, breaking: bool) -> BucketModel:
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace, exclusive=False)
        changes = data.changes()
        return shown(
            await buckets.change(conn, runtime.settings, catalog.namespace_id, bucket_id, changes, breaking=breaking)
        )


@delete("/{bucket_id:str}", status_code=200, scope="manage", operation_id="delete_bucket")
async def delete_bucket(bucket_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep) -> BucketDeleted:
    """Delete a bucket with its objects and uploads, at once. The bytes of its blobs are swept later."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_of(request), exclusive=False)
        gone = await buckets.delete(conn, catalog.namespace_id, bucket_id)
    return BucketDeleted(
        bucket_id=gone.bucket_id,
        bucket_name=gone.bucket_name,
        object_count=gone.object_count,
        message=f"Bucket {gone.bucket_name!r} is deleted.",
    )


router = Router(
    "/buckets",
    route_handlers=[create_bucket, list_by_get, list_by_post, get_bucket, update_bucket, replace_bucket, delete_bucket],
    tags=["Buckets"],
)
