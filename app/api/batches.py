"""/v1/buckets/{bucket}/batches: objects processed together; made, submitted, followed, audited, retried, cancelled."""

from typing import Any

from litestar import Request, Router, delete, get, patch, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from app.api import tasks as task_answers
from app.api.batch_models import (
    AddInput,
    Audit,
    BatchInput,
    BatchList,
    BatchListInput,
    BatchModel,
    Failures,
    PatchInput,
    Retried,
    RetryInput,
    SubmitInput,
    audited,
    check_page,
    failure,
    shown,
)
from app.api.bucket_models import ListInput
from app.api.listing import page
from app.api.object_models import Deleted
from app.api.paging import PAGED, PageInput, PageQuery
from app.api.tasks import TaskShown
from app.api.wire import Json, RuntimeDep, has_namespace, namespace_of
from app.db.engine import transaction
from app.domain.background import tasks
from app.domain.catalog.namespaces import load_catalog, lock_catalog
from app.domain.content import batch_accounts, batches, buckets, processing
from app.domain.content.batches import Batch
from app.domain.runtime import Runtime
from app.domain.security import access
from app.errors import Conflict, Problems
from app.retrieval.catalog import Catalog

AnyRequest = Request[Any, Any, State]
# Ids that an answer lists; a batch may have more.
SHOWN_IDS = 1_000


@post("/", dto=Json[BatchInput], return_dto=None, status_code=200, scope="write", operation_id="create_batch")
async def create_batch(
    bucket_id: FromPath[str],
    data: JSONBody[BatchInput],
    request: AnyRequest,
    runtime: RuntimeDep,
    auto_submit: FromQuery[bool] = False,
    trigger_processing: FromQuery[bool] = False,
    skip_validation: FromQuery[bool] = False,  # noqa: ARG001 - the client sends its default; objects are always checked
) -> BatchModel:
    """Make a batch of objects; with `auto_submit` it is submitted at once."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog, bucket = await _place(conn, request, bucket_id, shared=True)
        made = await batches.create(conn, catalog, bucket, data.wanted())
        if data.is_submitted or auto_submit or trigger_processing:
            made = await batches.submit(conn, catalog, bucket, made.batch_id)
        return await _shown(conn, made)


async def _place(
    conn: AsyncConnection, request: AnyRequest, bucket_id: str, *, shared: bool = False
) -> tuple[Catalog, str]:
    """The namespace, `shared` for writing in it, and the bucket's id."""
    namespace = namespace_of(request)
    catalog = await (lock_catalog(conn, namespace, exclusive=False) if shared else load_catalog(conn, namespace))
    return catalog, (await buckets.find(conn, catalog.namespace_id, bucket_id)).bucket_id


async def _shown(conn: AsyncConnection, found: Batch) -> BatchModel:
    tiers = await processing.tiers(conn, found.namespace_id, buckets=[found.bucket_id], only=found.collection_ids)
    ids = await batches.object_ids(conn, found.batch_id, SHOWN_IDS)
    failed = await batch_accounts.failed_objects(conn, found) if found.failed else 0
    return shown(found, tiers, ids, failed)


@get("/{batch_id:str}", scope="read", operation_id="get_batch")
async def get_batch(
    bucket_id: FromPath[str], batch_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep
) -> BatchModel:
    """A batch: its status, how far it is, its tiers; the first 1,000 ids of its objects."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog, bucket = await _place(conn, request, bucket_id)
        return await _shown(conn, await batches.find(conn, catalog.namespace_id, bucket, batch_id))


@post(
    "/list",
    dto=Json[BatchListInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="list_bucket_batches",
    **PAGED,
)
async def list_batches(
    bucket_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    paging: PageQuery,
    data: JSONBody[BatchListInput | None] = None,
) -> BatchList:
    """A page of a bucket's batches, the newest first."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog, bucket = await _place(conn, request, bucket_id)
        return await _list(conn, runtime, catalog.namespace_id, bucket, data or BatchListInput(), paging)


async def _list(
    conn: AsyncConnection,
    runtime: Runtime,
    namespace_id: str | None,
    bucket: str | None,
    asked: BatchListInput,
    paging: PageInput,
) -> BatchList:
    binds = {
        "namespace_id": namespace_id,
        "visible": access.visible(),
        "bucket_id": bucket,
        "status": asked.status,
        "collection_id": asked.collection_id,
    }
    names = ("limit", "page_size", "cursor", "next_cursor", "after", "include_total")
    wanted = ListInput(**{name: getattr(asked, name) for name in names})
    found, place, total = await page(
        conn, runtime, batches.LISTED, binds, wanted, paging, lambda row: Batch(**row), count=True
    )
    tiers: dict[tuple[str, tuple[str, ...]], list[list[str]]] = {}
    results = []
    for each in found:
        key = (each.bucket_id, tuple(each.collection_ids or ()))
        if key not in tiers:
            tiers[key] = await processing.tiers(
                conn, each.namespace_id, buckets=[each.bucket_id], only=each.collection_ids
            )
        results.append(shown(each, tiers[key]))
    return BatchList(results=results, total_count=total or 0, pagination=place)


@post(
    "/{batch_id:str}/objects",
    dto=Json[AddInput],
    return_dto=None,
    status_code=200,
    scope="write",
    operation_id="add_objects_to_batch",
)
async def add_objects(
    bucket_id: FromPath[str],
    batch_id: FromPath[str],
    data: JSONBody[AddInput],
    request: AnyRequest,
    runtime: RuntimeDep,
    skip_validation: FromQuery[bool] = False,  # noqa: ARG001 - the client sends its default; objects are always checked
) -> BatchModel:
    """Add objects to a batch that is not submitted yet."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog, bucket = await _place(conn, request, bucket_id, shared=True)
        return await _shown(conn, await batches.add(conn, catalog, bucket, batch_id, data.object_ids))


@post(
    "/{batch_id:str}/submit",
    dto=Json[SubmitInput],
    return_dto=None,
    status_code=200,
    scope="write",
    operation_id="submit_batch",
)
async def submit_batch(
    bucket_id: FromPath[str],
    batch_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    data: JSONBody[SubmitInput | None] = None,  # noqa: ARG001 - checked by its decoding
    force: FromQuery[bool] = False,  # noqa: ARG001 - batches of the same objects do not disturb each other
) -> TaskShown:
    """Have a batch processed. The task counts extraction and embedding: when it is COMPLETED, all can be searched."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog, bucket = await _place(conn, request, bucket_id, shared=True)
        found = await batches.submit(conn, catalog, bucket, batch_id)
        return await _task(conn, found)


async def _task(conn: AsyncConnection, found: Batch) -> TaskShown:
    if found.task_id is None:
        raise Conflict(f"The batch {found.batch_id!r} is not submitted yet.", code="batch_not_submitted")
    return task_answers.shown(await tasks.find(conn, found.task_id))


@post("/{batch_id:str}/cancel", status_code=200, scope="write", operation_id="cancel_batch")
async def cancel_batch(
    bucket_id: FromPath[str],
    batch_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    reason: FromQuery[str | None] = None,  # noqa: ARG001 - nobody reads it here
) -> TaskShown:
    """Cancel a batch: what it has queued and nobody has begun is not done. 409 where it has ended."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog, bucket = await _place(conn, request, bucket_id)
        return await _cancel(conn, await batches.find(conn, catalog.namespace_id, bucket, batch_id))


async def _cancel(conn: AsyncConnection, found: Batch) -> TaskShown:
    if found.task_id is None:
        raise Conflict("The batch is not submitted; delete it instead.", code="batch_not_submitted")
    await tasks.cancel(conn, found.task_id)
    return await _task(conn, found)


@patch("/{batch_id:str}", dto=Json[PatchInput], return_dto=None, scope="write", operation_id="patch_batch")
async def patch_batch(
    bucket_id: FromPath[str],
    batch_id: FromPath[str],
    data: JSONBody[PatchInput],
    request: AnyRequest,
    runtime: RuntimeDep,
) -> BatchModel:
    """Replace the metadata of a batch."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog, bucket = await _place(conn, request, bucket_id, shared=True)
        found = await batches.find(conn, catalog.namespace_id, bucket, batch_id)
        return await _shown(conn, await batches.change(conn, found, data.metadata))


@delete("/{batch_id:str}", status_code=200, scope="write", operation_id="delete_batch")
async def delete_batch(
    bucket_id: FromPath[str], batch_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep
) -> Deleted:
    """Forget a batch. Its objects and documents stay. 409 while it is processed."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog, bucket = await _place(conn, request, bucket_id, shared=True)
        found = await batches.find(conn, catalog.namespace_id, bucket, batch_id)
        await batches.delete(conn, found)
    return Deleted(message=f"The batch {batch_id} is deleted.")


@get("/{batch_id:str}/audit", scope="read", operation_id="get_batch_audit")
async def audit_batch(
    bucket_id: FromPath[str], batch_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep
) -> Audit:
    """What became of each object of a batch, and of what was made of it, counted for each collection."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog, bucket = await _place(conn, request, bucket_id)
        found = await batches.find(conn, catalog.namespace_id, bucket, batch_id)
        if found.task_id is None:
            raise Conflict(f"The batch {batch_id!r} is not submitted yet.", code="batch_not_submitted")
        return audited(found, await batch_accounts.audit(conn, catalog, found))


@get("/{batch_id:str}/failed-documents", scope="read", operation_id="get_failed_documents")
async def failed_documents(
    bucket_id: FromPath[str],
    batch_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    tier_num: FromQuery[int | None] = None,
    collection_id: FromQuery[str | None] = None,
    limit: FromQuery[int] = 100,
    offset: FromQuery[int] = 0,
) -> Failures:
    """Objects and rows of a batch that gave no document, and documents without a vector, each with its reason."""
    problems = Problems()
    check_page(limit, offset, runtime.settings.max_page_size, problems)
    problems.refuse()
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog, bucket = await _place(conn, request, bucket_id)
        found = await batches.find(conn, catalog.namespace_id, bucket, batch_id)
        wanted = None if collection_id is None else [collection_id]
        if tier_num is not None:
            tiers = await processing.tiers(conn, catalog.namespace_id, buckets=[bucket], only=found.collection_ids)
            tier = tiers[tier_num] if 0 <= tier_num < len(tiers) else []
            wanted = [each for each in tier if wanted is None or each in wanted]
        rows, total = await batch_accounts.failures(conn, found, collection_ids=wanted, limit=limit, offset=offset)
    listed = [failure(row) for row in rows]
    return Failures(
        batch_id=batch_id, results=listed, failed_documents=listed, total_count=total, limit=limit, offset=offset
    )


@post(
    "/{batch_id:str}/retry",
    dto=Json[RetryInput],
    return_dto=None,
    status_code=200,
    scope="write",
    operation_id="retry_batch",
)
async def retry_batch(
    bucket_id: FromPath[str],
    batch_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    data: JSONBody[RetryInput | None] = None,
) -> Retried:
    """Try again what failed; the batch's task goes on."""
    asked = data or RetryInput()
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog, bucket = await _place(conn, request, bucket_id, shared=True)
        found = await batches.find(conn, catalog.namespace_id, bucket, batch_id)
        count = await batches.retry(conn, found, transient=asked.retry_mode != "all")
    return Retried(
        batch_id=batch_id,
        task_id=found.task_id,
        retried_count=count,
        message=f"{count} of what failed are tried again.",
    )


@post(
    "/list",
    dto=Json[BatchListInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="list_all_batches",
    **PAGED,
)
async def list_all(
    request: AnyRequest, runtime: RuntimeDep, paging: PageQuery, data: JSONBody[BatchListInput | None] = None
) -> BatchList:
    """A page of batches, the newest first: of the namespace in `X-Namespace` or the body, else of all that the key
    sees."""
    asked = data or BatchListInput()
    async with transaction(runtime.engine, runtime.settings) as conn:
        named = namespace_of(request) if has_namespace(request) else asked.namespace_id
        namespace_id = None if named is None else (await load_catalog(conn, named)).namespace_id
        bucket = asked.bucket_id
        if bucket is not None and namespace_id is not None:
            bucket = (await buckets.find(conn, namespace_id, bucket)).bucket_id
        return await _list(conn, runtime, namespace_id, bucket, asked, paging)


@get("/{batch_id:str}", scope="read", operation_id="get_batch_by_id")
async def get_by_id(batch_id: FromPath[str], runtime: RuntimeDep) -> BatchModel:
    """A batch, whichever bucket it is of."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        return await _shown(conn, await batches.find_anywhere(conn, batch_id))


@post("/{batch_id:str}/cancel", status_code=200, scope="write", operation_id="cancel_batch_by_id")
async def cancel_by_id(batch_id: FromPath[str], runtime: RuntimeDep) -> TaskShown:
    """Cancel a batch, whichever bucket it is of."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        return await _cancel(conn, await batches.find_anywhere(conn, batch_id))


router = Router(
    "/buckets/{bucket_id:str}/batches",
    route_handlers=[
        create_batch,
        list_batches,
        get_batch,
        patch_batch,
        delete_batch,
        add_objects,
        submit_batch,
        cancel_batch,
        audit_batch,
        failed_documents,
        retry_batch,
    ],
    tags=["Batches"],
)
every = Router("/batches", route_handlers=[list_all, get_by_id, cancel_by_id], tags=["Batches"])
