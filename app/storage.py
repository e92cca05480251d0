"""The blob store: bytes under keys, in a folder or in an S3-compatible store, through `obstore`.

A key is made for each writing, is never written again, and is there as a whole or not at all. What the bytes are called
(their SHA-256) and who refers to them is the database's matter, so the store needs no lock and no agreement.
"""

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from app.errors import TooLarge, Unavailable
from app.settings import Settings

PART = 8 * 2**20  # S3 takes 10,000 parts, so 80 GB; two at a time are what one writing holds in memory
PARTS_AT_A_TIME = 2
CHUNK = 2**20  # what reading hands on at a time


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: its hash, its size, and the key that it is found by."""

    sha256: str
    size_bytes: int
    store_key: str


@dataclass(frozen=True)
class BlobStore:
    """One for each process; it is opened when it is first used."""

    settings: Settings

    @cached_property
    def _store(self) -> LocalStore | S3Store:
        url = self.settings.blob_store
        if url is None or url.startswith("file:"):
            folder = self.settings.data_dir / "blobs" if url is None else Path(url2pathname(urlsplit(url).path))
            return LocalStore(folder.absolute(), mkdir=True)
        return self._s3(url)

    def _s3(self, url: str) -> S3Store:
        settings = self.settings
        chosen: dict[str, Any] = {
            "endpoint": settings.blob_store_endpoint,
            "region": settings.blob_store_region,
            "access_key_id": _plain(settings.blob_store_access_key_id),
            "secret_access_key": _plain(settings.blob_store_secret_access_key),
        }
        limit = timedelta(seconds=settings.blob_store_timeout_s)
        return S3Store.from_url(
            url,
            client_options={
                "timeout": limit,
                "connect_timeout": min(limit, timedelta(seconds=5)),
                "allow_http": (settings.blob_store_endpoint or "").startswith("http:"),
            },
            retry_config={"max_retries": settings.blob_store_retries, "retry_timeout": limit},
            **{name: value for name, value in chosen.items() if value is not None},
        )

    async def write(self, chunks: AsyncIterator[bytes], most: int) -> Written:
        """Write a stream of at most so many bytes; where that or the stream fails, nothing is there."""
        counted = _Counted(chunks, most)
        key = _new_key()
        try:
            with _failing("written"):
                await obstore.put_async(
                    self._store, key, counted.read(), chunk_size=PART, max_concurrency=PARTS_AT_A_TIME
                )
                await self._keep(key)
        except Unavailable:
            if counted.failed is not None:  # the stream's own error, which is none of the store
                raise counted.failed from None
            raise
        return Written(counted.digest.hexdigest(), counted.size, key)

    async def write_bytes(self, content: bytes) -> Written:
        """The same for bytes that are in memory already."""
        key = _new_key()
        with _failing("written"):
            await obstore.put_async(self._store, key, content, use_multipart=len(content) > PART)
            await self._keep(key)
        return Written(hashlib.sha256(content).hexdigest(), len(content), key)

    async def _keep(self, key: str) -> None:
        """Before a row speaks of a file, a loss of power must not take it; S3 answers only when it is safe."""
        if isinstance(self._store, LocalStore):
            assert self._store.prefix is not None
            await asyncio.to_thread(_sync, Path(self._store.prefix) / key)

    async def read(self, blob: Written) -> AsyncIterator[bytes]:
        """The bytes in chunks, some MB at most in memory; those that are not what was written end in an error."""
        digest, size = hashlib.sha256(), 0
        with _failing("read"):
            found = await obstore.get_async(self._store, blob.store_key)
            async for chunk in found.stream(min_chunk_size=CHUNK):
                part = bytes(chunk)
                digest.update(part)
                size += len(part)
                yield part
        if (digest.hexdigest(), size) != (blob.sha256, blob.size_bytes):
            message = "The blob store answers other bytes than were written; the store's operator must look into it."
            raise Unavailable(message, code="blob_damaged", retryable=False)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete what is there of these."""
        with _failing("deleted"):
            for key in keys:
                with suppress(FileNotFoundError):
                    await obstore.delete_async(self._store, key)

    async def discard_halves(self, grace: timedelta) -> None:
        """Files that a killed process has left half written, which no listing shows; in S3 a rule of the bucket's
        lifecycle does this (AbortIncompleteMultipartUpload)."""
        if isinstance(self._store, LocalStore):
            assert self._store.prefix is not None
            await asyncio.to_thread(_discard_halves, Path(self._store.prefix), grace.total_seconds())

    async def older_than(self, grace: timedelta, page: int = 1_000) -> AsyncIterator[list[str]]:
        """The keys that were written longer ago than that, page by page."""
        with _failing("listed"):
            listing = obstore.list(self._store, chunk_size=page)
            async for found in listing:
                keys = [each["path"] for each in found if _age(each["last_modified"]) > grace]
                if keys:
                    yield keys


@dataclass
class _Counted:
    """A stream that is hashed and counted on its way."""

    chunks: AsyncIterator[bytes]
    most: int
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    failed: BaseException | None = None

    async def read(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self.chunks:
                self.size += len(chunk)
                if self.size > self.most:
                    message = f"A blob has at most {self.most} bytes (PGRETRIEVE_MAX_BLOB_BYTES)."
                    raise TooLarge(message, code="blob_too_large")
                self.digest.update(chunk)
                if chunk:
                    yield chunk
        except Exception as error:
            self.failed = error
            raise


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """The store's errors as ours; its messages may hold addresses, so they go to the chain alone."""
    try:
        yield
    except (BaseError, OSError) as error:
        gone = isinstance(error, FileNotFoundError)
        message = (
            "A blob is missing in the blob store." if gone else f"The blob store is not available: nothing {what}."
        )
        raise Unavailable(
            message, code="blob_missing" if gone else "blob_store_unavailable", retryable=not gone
        ) from error


def _new_key() -> str:
    name = secrets.token_hex(16)
    return f"{name[:2]}/{name}"  # folders of a few thousand files each, where there are a million


def _sync(path: Path) -> None:
    for each in (path, path.parent, path.parent.parent):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _discard_halves(folder: Path, seconds: float) -> None:
    for path in folder.glob("*/*#*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - seconds:
                path.unlink()


def _age(written: datetime) -> timedelta:
    return datetime.now(written.tzinfo) - written


def _plain(secret: Any) -> str | None:
    return None if secret is None else str(secret.get_secret_value())
