"""All documents of a namespace as a stream of JSON lines, which the import takes back."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from litestar import Router, get
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from app.api.wire import RuntimeDep
from app.db.engine import transaction
from app.domain.documents import exporting
from app.domain.documents.exporting import Export
from app.domain.runtime import Runtime
from app.moving import jsonl

MEDIA_TYPE = "application/x-ndjson"
# So many documents are one statement, and held in memory for each reader; fewer, where they have this size.
PAGE, PAGE_BYTES = 200, 4_000_000


@get(
    "/namespaces/{namespace_id:str}/documents/export",
    scope="read",
    operation_id="export_documents",
    media_type=MEDIA_TYPE,
)
async def export_documents(
    namespace_id: FromPath[str],
    runtime: RuntimeDep,
    collection_id: FromQuery[Annotated[list[str], msgspec.Meta(max_length=100)] | None] = None,
    return_vectors: FromQuery[bool] = True,
) -> Stream:
    """All documents as JSON lines, in the order of their ids, with their vectors to the bit.

    `collection_id`, once or more often, limits it to those collections. Each page of documents is as it was when it was
    read; nothing is held in the database for a reader that is slow.
    """
    async with transaction(runtime.engine, runtime.settings) as conn:
        wanted = await exporting.wanted_of(conn, namespace_id, collection_id, vectors=return_vectors)
    return Stream(_lines(runtime, wanted), media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})


async def _lines(runtime: Runtime, wanted: Export) -> AsyncIterator[bytes]:
    async for rows in exporting.pages(runtime.engine, runtime.settings, wanted, page=PAGE, size=PAGE_BYTES):
        yield b"".join(jsonl.lines(rows))


router = Router("/", route_handlers=[export_documents], tags=["Documents"])
