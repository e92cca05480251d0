"""/v1/buckets/{bucket}/objects: made alone or in batches, read, listed, changed, deleted; and their blobs' bytes."""

from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, Router, delete, get, patch, post, put
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.response import Stream

from app.api.bucket_models import ListInput
from app.api.listing import page
from app.api.object_models import (
    Body,
    Deleted,
    FailedObject,
    ObjectChange,
    ObjectList,
    ObjectsBatch,
    ObjectsBatchInput,
    ObjectUpdate,
    read_object,
    shown,
    split,
    statistics,
)
from app.api.paging import PAGED, PageInput, PageQuery
from app.api.problems import error_of
from app.api.storing import Stored, store
from app.api.wire import Json, RuntimeDep, namespace_of, not_in_query
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog, lock_catalog
from app.domain.content import blobs, buckets, objects
from app.domain.content.new_objects import RawObject
from app.domain.runtime import Runtime
from app.errors import Conflict, InvalidRequest, PgretrieveError, Problem, Problems

AnyRequest = Request[Any, Any, State]
BYTES = "application/octet-stream"
NO_PROCESSING = not_in_query(auto_process="false")


@post(
    "/",
    dto=Json[Body],
    return_dto=None,
    status_code=200,
    scope="write",
    operation_id="create_object",
    guards=[NO_PROCESSING],
)
async def create_object(
    bucket_id: FromPath[str],
    data: JSONBody[Body],
    request: AnyRequest,
    runtime: RuntimeDep,
    policy: FromQuery[str | None] = None,
) -> dict[str, Any]:
    """Store an object: its fields at the root of the body, its files and values in `blobs`.

    `policy` says what a known unique key means: `insert` refuses it, `update` asks for it, `upsert` takes either.
    """
    problems = Problems()
    raw = read_object(data, problems)
    problems.refuse()
    assert raw is not None
    (done,) = await store(runtime, namespace_of(request), bucket_id, [(raw, ("body",))], policy)
    if isinstance(done, PgretrieveError):
        raise done
    return shown(done.object, written=True)


@post(
    "/batch",
    dto=Json[ObjectsBatchInput],
    return_dto=None,
    status_code=200,
    scope="write",
    operation_id="create_objects_batch",
    guards=[NO_PROCESSING],
)
async def create_objects(
    bucket_id: FromPath[str],
    data: JSONBody[ObjectsBatchInput],
    request: AnyRequest,
    runtime: RuntimeDep,
    policy: FromQuery[str | None] = None,
) -> ObjectsBatch:
    """Store several objects: each is stored, or refused by itself with every problem that it has."""
    most = runtime.settings.max_batch_objects
    if len(data.objects) > most:
        message = f"A batch has at most {most} objects (PGRETRIEVE_MAX_BATCH_OBJECTS), not {len(data.objects)}."
        raise InvalidRequest([Problem(("body", "objects"), "out_of_range", message)])
    done: dict[int, Stored | PgretrieveError] = {}
    sent: dict[int, tuple[RawObject, tuple[str | int, ...]]] = {}
    for n, body in enumerate(data.objects):
        problems, here = Problems(), ("body", "objects", n)
        raw = read_object(body, problems, here)
        if raw is None:
            done[n] = InvalidRequest(problems.found)
        else:
            sent[n] = (raw, here)
    found = await store(runtime, namespace_of(request), bucket_id, list(sent.values()), policy)
    done |= dict(zip(sent, found, strict=True))
    return _batch(done)


def _batch(done: dict[int, Stored | PgretrieveError]) -> ObjectsBatch:
    succeeded: list[dict[str, Any]] = []
    failed: list[FailedObject] = []
    for n, each in sorted(done.items()):
        if isinstance(each, Stored):
            replay = {"replayed": each.replayed_by is not None, "replayed_by": each.replayed_by}
            succeeded.append({**shown(each.object, written=True), "object_index": n, **replay})
        else:
            error = error_of(each, ())
            details = {"code": error["code"], **error["details"]}
            failed.append(
                FailedObject(object_index=n, error=error["message"], error_type=error["type"], details=details)
            )
    return ObjectsBatch(
        succeeded=succeeded,
        failed=failed,
        total_requested=len(done),
        succeeded_count=len(succeeded),
        failed_count=len(failed),
    )


@get("/", scope="read", operation_id="list_objects", **PAGED)
async def list_by_get(
    bucket_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep, paging: PageQuery
) -> ObjectList:
    """A page of a bucket's objects, the newest first."""
    return await _list(runtime, namespace_of(request), bucket_id, None, paging)


@post(
    "/list",
    dto=Json[ListInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="list_objects_by_post",
    **PAGED,
)
async def list_by_post(
    bucket_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    paging: PageQuery,
    data: JSONBody[ListInput | None] = None,
) -> ObjectList:
    """A page of the objects that are asked for: filters name their fields, and `status`, `created_at` and so on."""
    return await _list(runtime, namespace_of(request), bucket_id, data, paging)


async def _list(
    runtime: Runtime, namespace: str, bucket: str, asked: ListInput | None, paging: PageInput
) -> ObjectList:
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace)
        resolved = await buckets.resolve(conn, catalog.namespace_id, bucket)
        binds = {"bucket_id": resolved}
        found, place, _ = await page(
            conn, runtime, objects.LISTED, binds, asked, paging, lambda row: shown(objects.from_row(row))
        )
    return ObjectList(results=found, pagination=place, stats=statistics(found))


@get(
    "/{object_id:str}",
    scope="read",
    operation_id="get_object",
    guards=[not_in_query(return_presigned_urls="false")],
)
async def get_object(
    bucket_id: FromPath[str], object_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep
) -> dict[str, Any]:
    """An object with its fields and blobs."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        resolved = await buckets.resolve(conn, catalog.namespace_id, bucket_id)
        return shown(await objects.find(conn, resolved, object_id))


@patch("/{object_id:str}", dto=Json[Body], return_dto=None, scope="write", operation_id="update_object")
async def update_object(
    bucket_id: FromPath[str], object_id: FromPath[str], data: JSONBody[Body], request: AnyRequest, runtime: RuntimeDep
) -> dict[str, Any]:
    """Set fields of an object, at the root of the body; what is not given stays. Its blobs cannot be changed."""
    known, fields = split(data, ObjectChange, ("body",))
    return await _change(runtime, request, bucket_id, object_id, fields, known.key_prefix, in_metadata=False)


@put("/{object_id:str}", dto=Json[ObjectUpdate], return_dto=None, scope="write", operation_id="replace_object")
async def replace_object(
    bucket_id: FromPath[str],
    object_id: FromPath[str],
    data: JSONBody[ObjectUpdate],
    request: AnyRequest,
    runtime: RuntimeDep,
) -> dict[str, Any]:
    """Set the fields that `metadata` has; what is not given stays."""
    return await _change(runtime, request, bucket_id, object_id, data.metadata or {}, data.key_prefix, in_metadata=True)


async def _change(
    runtime: Runtime,
    request: AnyRequest,
    bucket: str,
    object_id: str,
    fields: dict[str, msgspec.Raw],
    key_prefix: str | None,
    *,
    in_metadata: bool,
) -> dict[str, Any]:
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_of(request), exclusive=False)
        held = await buckets.hold(conn, catalog.namespace_id, bucket)
        changed = await objects.change(
            conn, held, runtime.settings, object_id, fields, in_metadata=in_metadata, key_prefix=key_prefix
        )
        return shown(changed)


@delete("/{object_id:str}", status_code=200, scope="write", operation_id="delete_object")
async def delete_object(
    bucket_id: FromPath[str], object_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep
) -> Deleted:
    """Delete an object. Bytes that no other object has are swept later."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_of(request), exclusive=False)
        held = await buckets.hold(conn, catalog.namespace_id, bucket_id)
        await objects.delete(conn, held.bucket_id, object_id)
    return Deleted(message=f"Object {object_id!r} is deleted.")


@get("/{object_id:str}/blobs/{blob_id:str}", scope="read", operation_id="download_blob", media_type=BYTES)
async def download_blob(
    bucket_id: FromPath[str], object_id: FromPath[str], blob_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep
) -> Stream:
    """The bytes of a blob, as they were sent. One that is a URL has none here: a 409 that names it."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        resolved = await buckets.resolve(conn, catalog.namespace_id, bucket_id)
        blob = await objects.find_blob(conn, resolved, object_id, blob_id)
        stored = None if blob["sha256"] is None else await blobs.find(conn, blob["sha256"])
    if stored is None:
        raise Conflict("This blob is a URL; fetch it there.", code="blob_is_url", url=blob["url"])
    name = quote(blob["filename"] or blob_id, safe="")
    headers = {
        # Whatever it is said to be, no browser shall run it under our address.
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "X-Content-Type-Options": "nosniff",
        "Content-Length": str(stored.size_bytes),
        "ETag": f'"{stored.sha256}"',
    }
    return Stream(runtime.blobs.read(stored), media_type=BYTES, headers=headers)


router = Router(
    "/buckets/{bucket_id:str}/objects",
    route_handlers=[
        create_object,
        create_objects,
        list_by_get,
        list_by_post,
        get_object,
        update_object,
        replace_object,
        delete_object,
        download_blob,
    ],
    tags=["Objects"],
)
