"""Blobs: contents brought to the store once each, read, and swept when nothing refers to them any more.

Bytes are written first, outside any transaction; then one transaction names them and refers to them. What is written
and never named lies under a key that nobody knows, until it is swept.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db.engine import transaction
from app.db.statements import as_json, statement
from app.domain.content.blob_sources import Source
from app.errors import NotFound, Unavailable
from app.settings import Settings
from app.storage import BlobStore, Written

WRITES_AT_A_TIME = 4
SWEEP_PAGE = 1_000


async def known(conn: AsyncConnection, sources: Iterable[Source]) -> set[str]:
    """Which of these contents are stored already; they are not swept for a while."""
    asked = sorted({source.sha256 for source in sources if source.sha256 is not None})
    if not asked:
        return set()
    return set((await conn.execute(statement("touch_blobs"), {"sha256": asked})).scalars())


async def write_all(store: BlobStore, sources: Iterable[Source], there: set[str]) -> list[Written]:
    """Bring what is not there to the store; no transaction is open meanwhile."""
    new = {source.sha256: source.content for source in sources if source.content is not None}
    turns = asyncio.Semaphore(WRITES_AT_A_TIME)

    async def write(content: bytes) -> Written:
        async with turns:
            return await store.write_bytes(content)

    writes = [write(content) for sha256, content in new.items() if sha256 not in there]
    done = await asyncio.gather(*writes, return_exceptions=True)  # all have ended, so none is left behind
    for each in done:
        if isinstance(each, BaseException):
            raise each
    return [each for each in done if isinstance(each, Written)]


async def put(conn: AsyncConnection, written: Sequence[Written], sources: Iterable[Source]) -> None:
    """Name what was written, and see that all of these contents are there, to be referred to in this transaction."""
    if written:
        await conn.execute(statement("put_blobs"), {"blobs": as_json([asdict(each) for each in written])})
    asked = {source.sha256 for source in sources if source.sha256 is not None}
    if asked - await known(conn, sources):
        message = "A blob that was there is gone; send the request again."
        raise Unavailable(message, code="blob_missing", retryable=True)


async def find(conn: AsyncConnection, sha256: str) -> Written:
    """A stored content by its hash."""
    row = (await conn.execute(statement("find_blob"), {"sha256": sha256})).mappings().one_or_none()
    if row is None:
        raise NotFound("blob", sha256)
    return Written(**row)


async def open_blob(engine: AsyncEngine, settings: Settings, store: BlobStore, sha256: str) -> AsyncIterator[bytes]:
    """The bytes of a content in chunks, outside any transaction; what is damaged or missing is `Unavailable`."""
    async with transaction(engine, settings) as conn:
        found = await find(conn, sha256)
    async for chunk in store.read(found):
        yield chunk


@dataclass(frozen=True, slots=True)
class Swept:
    """How much a sweep has taken away."""

    uploads: int
    blobs: int
    strays: int


async def sweep(conn: AsyncConnection, store: BlobStore, settings: Settings, grace: timedelta | None = None) -> Swept:
    """Take away uploads whose time is over, contents that nothing refers to, and keys that nobody knows.

    `conn` commits by itself (AUTOCOMMIT): a content is forgotten before its bytes go, so that a crash in between leaves
    a key that nobody knows, never a row without bytes.
    """
    seconds = settings.upload_hours * 3600 if grace is None else grace.total_seconds()
    grace = timedelta(hours=settings.blob_grace_hours) if grace is None else grace
    uploads = (await conn.execute(statement("sweep_uploads"), {"seconds": seconds})).rowcount
    forgotten = 0
    while keys := await _forget(conn, grace):
        await store.delete(keys)
        forgotten += len(keys)
    strays = 0
    async for keys in store.older_than(grace, SWEEP_PAGE):
        asked: Mapping[str, Any] = {"keys": keys}
        there = set((await conn.execute(statement("known_keys"), asked)).scalars())
        await store.delete([key for key in keys if key not in there])
        strays += len(keys) - len(there)
    await store.discard_halves(grace)
    return Swept(uploads, forgotten, strays)


async def _forget(conn: AsyncConnection, grace: timedelta) -> list[str]:
    binds = {"seconds": grace.total_seconds(), "limit": SWEEP_PAGE}
    return list((await conn.execute(statement("sweep_blobs"), binds)).scalars())
