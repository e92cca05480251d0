"""/v1/buckets/{bucket}/uploads: announced, confirmed, listed, cancelled; and the address that bytes are sent to.

That address holds a secret of its own, so that whoever has it needs no key, as a presigned URL of S3.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from litestar import Request, Response, Router, delete, get, post, put
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery, JSONBody

from app.api.auth import OPEN
from app.api.bucket_models import ListInput
from app.api.listing import page
from app.api.object_models import Deleted
from app.api.paging import PAGED, PageQuery
from app.api.upload_models import (
    Confirmed,
    ConfirmInput,
    UploadInput,
    UploadList,
    UploadModel,
    UploadsBatch,
    UploadsBatchInput,
    confirmed,
    shown,
    statistics,
    wanted,
)
from app.api.wire import Json, RuntimeDep, namespace_of, not_in_query
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog, lock_catalog
from app.domain.content import buckets, uploads
from app.domain.content.uploads import Announced
from app.domain.runtime import Runtime
from app.errors import InvalidRequest, Problem, Unavailable

AnyRequest = Request[Any, Any, State]
# How long the sender of a file may be silent.
SILENCE_S = 60.0


@post("/", dto=Json[UploadInput], return_dto=None, status_code=200, scope="write", operation_id="create_upload")
async def create_upload(
    bucket_id: FromPath[str], data: JSONBody[UploadInput], request: AnyRequest, runtime: RuntimeDep
) -> UploadModel:
    """Announce a file: the answer's `presigned_url` takes its bytes by PUT, without a key; then confirm it."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_of(request), exclusive=False)
        held = await buckets.hold(conn, catalog.namespace_id, bucket_id)
        made = await uploads.announce(conn, held, runtime.settings, wanted(data))
    return _announced(runtime, request, made)


@post(
    "/batch",
    dto=Json[UploadsBatchInput],
    return_dto=None,
    status_code=200,
    scope="write",
    operation_id="create_uploads_batch",
)
async def create_uploads(
    bucket_id: FromPath[str], data: JSONBody[UploadsBatchInput], request: AnyRequest, runtime: RuntimeDep
) -> UploadsBatch:
    """Announce several files; all of them, or none where one is refused."""
    most = runtime.settings.max_batch_objects
    if not 1 <= len(data.uploads) <= most:
        message = f"A batch has 1 to {most} uploads (PGRETRIEVE_MAX_BATCH_OBJECTS), not {len(data.uploads)}."
        raise InvalidRequest([Problem(("body", "uploads"), "out_of_range", message)])
    made: list[Announced] = []
    refused: list[Problem] = []
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_of(request), exclusive=False)
        held = await buckets.hold(conn, catalog.namespace_id, bucket_id)
        for n, upload in enumerate(data.uploads):
            try:
                here = ("body", "uploads", n)
                made.append(await uploads.announce(conn, held, runtime.settings, wanted(upload, data), here))
            except InvalidRequest as error:
                refused.extend(error.problems)
        if refused:
            raise InvalidRequest(refused)
    return UploadsBatch(uploads=[_announced(runtime, request, each) for each in made], total=len(made))


def _announced(runtime: Runtime, request: AnyRequest, made: Announced) -> UploadModel:
    if made.signature is None:
        return shown(made.upload, duplicate=True)
    base = runtime.settings.public_url or str(request.base_url)
    return shown(made.upload, f"{base.rstrip('/')}/uploads/{made.upload.upload_id}/{made.signature}")


@get("/{upload_id:str}", scope="read", operation_id="get_upload", guards=[not_in_query(return_presigned_urls="false")])
async def get_upload(
    bucket_id: FromPath[str], upload_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep
) -> UploadModel:
    """An upload: PENDING, PROCESSING once its bytes are here, COMPLETED once confirmed, FAILED when it is too late."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        resolved = await buckets.resolve(conn, catalog.namespace_id, bucket_id)
        return shown(await uploads.find(conn, resolved, upload_id))


@post(
    "/list",
    dto=Json[ListInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="list_uploads",
    **PAGED,
)
async def list_uploads(
    bucket_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    paging: PageQuery,
    data: JSONBody[ListInput | None] = None,
) -> UploadList:
    """A page of a bucket's uploads, the newest first."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        resolved = await buckets.resolve(conn, catalog.namespace_id, bucket_id)
        binds = {"bucket_id": resolved}
        found, place, _ = await page(
            conn, runtime, uploads.LISTED, binds, data, paging, lambda row: shown(uploads.Upload(**row)), default=20
        )
    return UploadList(results=found, pagination=place, stats=statistics(found))


@post(
    "/{upload_id:str}/confirm",
    dto=Json[ConfirmInput],
    return_dto=None,
    status_code=200,
    scope="write",
    operation_id="confirm_upload",
    guards=[not_in_query(**{"async": "false"})],
)
async def confirm_upload(
    bucket_id: FromPath[str],
    upload_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    data: JSONBody[ConfirmInput | None] = None,
    policy: FromQuery[str | None] = None,
) -> Confirmed:
    """Confirm that a file was sent whole, and make an object of it; once more, it answers the same."""
    said = data or ConfirmInput()
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_of(request), exclusive=False)
        held = await buckets.hold(conn, catalog.namespace_id, bucket_id)
        found = await uploads.confirm(
            conn, held, runtime.settings, upload_id, etag=said.etag, size=said.file_size_bytes, policy=policy
        )
    return confirmed(found)


@delete(
    "/{upload_id:str}",
    status_code=200,
    scope="write",
    operation_id="delete_upload",
    guards=[not_in_query(delete_s3_object="true")],
)
async def delete_upload(
    bucket_id: FromPath[str], upload_id: FromPath[str], request: AnyRequest, runtime: RuntimeDep
) -> Deleted:
    """Cancel an upload that was not confirmed."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_of(request), exclusive=False)
        held = await buckets.hold(conn, catalog.namespace_id, bucket_id)
        await uploads.cancel(conn, held.bucket_id, upload_id)
    return Deleted(message=f"Upload {upload_id!r} is cancelled.")


@put(
    "/uploads/{upload_id:str}/{signature:str}",
    status_code=200,
    scope=OPEN,
    include_in_schema=False,
    request_max_body_size=None,  # counted while it comes
)
async def receive(
    upload_id: FromPath[str], signature: FromPath[str], request: AnyRequest, runtime: RuntimeDep
) -> Response[None]:
    """The bytes of an upload, at its presigned_url. `ETag` is their SHA-256. Sent again, the last ones count."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        upload = await uploads.awaited(conn, upload_id, signature)
    most = runtime.settings.max_blob_bytes
    written = await runtime.blobs.write(prompt(request.stream()), upload.file_size_bytes or most)
    async with transaction(runtime.engine, runtime.settings) as conn:
        await uploads.receive(conn, upload, written)
    return Response(None, headers={"ETag": f'"{written.sha256}"'}, status_code=200)


async def prompt(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The stream, unless its sender falls silent."""
    while True:
        try:
            async with asyncio.timeout(SILENCE_S):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            message = f"Nothing came for {SILENCE_S:g} s; send the file again."
            raise Unavailable(message, code="request_timeout", retryable=False) from None
        yield chunk


router = Router(
    "/buckets/{bucket_id:str}/uploads",
    route_handlers=[
        create_upload,
        create_uploads,
        list_uploads,
        get_upload,
        confirm_upload,
        delete_upload,
    ],
    tags=["Uploads"],
)
