"""What a worker reads to extract from: objects with the bytes of their blobs, or documents of other collections.

No transaction is open while bytes come from the blob store or from another server.
"""

import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import statement
from app.domain.content import blobs, objects, processing
from app.domain.content.objects import Object, StoredBlob
from app.domain.runtime import Runtime
from app.errors import ExtractionFailed, NotFound, PgretrieveError
from app.extractors.base import Blob
from app.inference.fetching import Kinds, NotFetched
from app.retrieval.catalog import Catalog
from app.storage import Written

ANYTHING = Kinds("files", ("*/*",))
# Answers of other servers that the next try may not get.
PASSING = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Source:
    """An object, or a document of a parent: what it is, and what of it was the content when it was read.

    `lineage` says where it came from first; its documents carry that on.
    """

    source_id: str
    content_hash: str
    fields: Mapping[str, Any]
    lineage: Mapping[str, Any]
    blobs: tuple[StoredBlob, ...] = ()


async def read_objects(conn: AsyncConnection, object_ids: Sequence[str]) -> dict[str, Source]:
    """Those of these objects that there are."""
    rows = (await conn.execute(statement("objects_to_extract"), {"object_ids": list(object_ids)})).mappings()
    return {found.object_id: _of_object(found) for found in map(objects.from_row, rows)}


def _of_object(found: Object) -> Source:
    lineage = {
        "source_type": "bucket",
        "root_object_id": found.object_id,
        "root_bucket_id": found.bucket_id,
        "source_object_id": found.object_id,
    }
    fields = msgspec.json.decode(found.fields)
    return Source(found.object_id, found.content_hash, fields, lineage, found.blobs)


async def read_documents(conn: AsyncConnection, catalog: Catalog, document_ids: Sequence[str]) -> dict[str, Source]:
    """Those of these documents that there are."""
    documents = catalog.relation
    asked = sa.select(
        documents.c.document_id,
        documents.c.collection_id,
        sa.cast(documents.c.payload, sa.Text),
        sa.cast(documents.c.metadata, sa.Text),
        processing.content_hash(documents),
    ).where(documents.c.document_id == sa.func.any(sa.bindparam("ids", list(document_ids), ARRAY(sa.Text))))
    found = {}
    for document_id, collection_id, payload, metadata, content_hash in await conn.execute(asked):
        above = msgspec.json.decode(metadata)
        kept = {name: above[name] for name in ("root_object_id", "root_bucket_id", "source_object_id") if name in above}
        lineage = {
            **kept,
            "source_type": "collection",
            "source_document_id": document_id,
            "source_collection_id": collection_id,
        }
        found[document_id] = Source(document_id, content_hash, msgspec.json.decode(payload), lineage)
    return found


async def load(runtime: Runtime, source: Source, wanted: frozenset[str]) -> dict[str, list[Blob]]:
    """The blobs of the object that its extractor reads, by their properties, all in memory, so one limit is for all.
    Raises `ExtractionFailed`, or `Unavailable` where the store or another server may answer later."""
    loaded: dict[str, list[Blob]] = {}
    left = runtime.settings.extract_max_bytes
    for blob in source.blobs:
        if blob.property in wanted:
            found = await _load(runtime, blob, left)
            loaded.setdefault(blob.property, []).append(found)
            left -= len(found.content)
    return loaded


async def _load(runtime: Runtime, blob: StoredBlob, most: int) -> Blob:
    if blob.sha256 is None:
        assert blob.url is not None
        return await _fetch(runtime, blob.url, blob.filename, most)
    if blob.size_bytes is not None and blob.size_bytes > most:
        limit = runtime.settings.extract_max_bytes
        message = (
            f"The blobs that are read of an object may have {limit:,} bytes together (PGRETRIEVE_EXTRACT_MAX_BYTES); "
            f"one of {blob.size_bytes:,} is too much."
        )
        raise ExtractionFailed(message, code="blob_too_large")
    content = await read_blob(runtime, blob.sha256)
    is_text = blob.type == "text" and blob.filename is None and (blob.mime_type or "").startswith("text/plain")
    return Blob(content=content, content_type=blob.mime_type, name=blob.filename, is_text=is_text)


async def read_blob(runtime: Runtime, sha256: str) -> bytes:
    """The bytes of a stored content."""
    chunks = blobs.open_blob(runtime.engine, runtime.settings, runtime.blobs, sha256)
    return b"".join([chunk async for chunk in chunks])


async def find_blob_of(conn: AsyncConnection, namespace_id: str, sha256: str) -> Written:
    """A content that an object or a document of this namespace refers to; else `NotFound`."""
    binds = {"sha256": sha256, "namespace_id": namespace_id}
    row = (await conn.execute(statement("blob_of_namespace"), binds)).mappings().one_or_none()
    if row is None:
        raise NotFound("blob", sha256)
    return Written(**row)


async def read_blob_of(runtime: Runtime, namespace_id: str, sha256: str) -> bytes:
    """Its bytes."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        found = await find_blob_of(conn, namespace_id, sha256)
    return b"".join([chunk async for chunk in runtime.blobs.read(found)])


async def _fetch(runtime: Runtime, url: str, name: str | None, most: int) -> Blob:
    try:
        got = await runtime.inference.fetcher.content(url, kinds=ANYTHING, max_bytes=most)
    except NotFetched as error:
        raise lasting(error) from error
    name = name or urlsplit(url).path.rpartition("/")[2] or None
    guessed = mimetypes.guess_type(name)[0] if name else None
    known = got.content_type not in ("", "application/octet-stream", "binary/octet-stream")
    return Blob(content=got.content, content_type=got.content_type if known else guessed, name=name)


def lasting(error: NotFetched) -> PgretrieveError:
    """The error as it counts for a try of many: what the other server refuses it will refuse again."""
    status = error.details.get("status")
    refused = status is not None and 400 <= status < 500 and status not in PASSING
    if refused or error.details.get("retryable") is False or error.error_code == "answer_too_large":
        return ExtractionFailed(error.message, code=error.error_code)
    return error
