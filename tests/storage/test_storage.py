"""The blob store, in a folder and in S3: whole or not there, bounded in size, its failures told."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.errors import TooLarge, Unavailable
from app.storage import PART, BlobStore
from tests.fakes import settings_of
from tests.s3_server import s3_server, s3_settings

NO_TIME = timedelta(0)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return BlobStore(settings_of(data_dir=tmp_path))
    return BlobStore(settings_of(**s3_settings(request.getfixturevalue("s3"), tmp_path.name)))


async def streamed(*chunks: bytes, then: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if then is not None:
        raise then


async def keys(store: BlobStore) -> list[str]:
    return sorted([key async for page in store.older_than(NO_TIME) for key in page])


@pytest.mark.parametrize(
    "chunks", [[], [b"a"], [b"", b"ab", b"", b"c"], [b"x" * (PART - 1), b"yz"], [b"m" * 2**20] * 20]
)
async def test_what_is_written_is_read(store: BlobStore, chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    written = await store.write(streamed(*chunks), 2**30)
    assert (written.sha256, written.size_bytes) == (hashlib.sha256(whole).hexdigest(), len(whole))
    assert b"".join([chunk async for chunk in store.read(written)]) == whole
    again = await store.write_bytes(whole)
    assert (again.sha256, again.size_bytes) == (written.sha256, written.size_bytes)
    assert again.store_key != written.store_key
    assert await keys(store) == sorted([written.store_key, again.store_key])
    await store.delete([written.store_key, "aa/none"])
    assert await keys(store) == [again.store_key]


async def test_what_is_too_large_or_breaks_off_is_not_there(store: BlobStore) -> None:
    with pytest.raises(TooLarge) as refused:
        await store.write(streamed(*[b"x" * PART] * 4), PART * 3)
    assert refused.value.error_code == "blob_too_large"
    with pytest.raises(RuntimeError, match="the client is gone"):
        await store.write(streamed(*[b"x" * PART] * 3, then=RuntimeError("the client is gone")), 2**30)
    with pytest.raises(OSError, match="of the client"):
        await store.write(streamed(b"x", then=OSError("of the client")), 2**30)
    assert await keys(store) == []


async def test_what_is_cancelled_is_not_there(store: BlobStore) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * PART
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.write(endless(), 2**30))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await keys(store) == []


async def test_what_is_damaged_or_lost_is_told(store: BlobStore, tmp_path: Path) -> None:
    one, two = await store.write_bytes(b"one"), await store.write_bytes(b"two!")
    mixed = type(one)(one.sha256, one.size_bytes, two.store_key)
    with pytest.raises(Unavailable) as damaged:
        _ = [chunk async for chunk in store.read(mixed)]
    assert damaged.value.error_code == "blob_damaged"
    await store.delete([one.store_key])
    with pytest.raises(Unavailable) as lost:
        _ = [chunk async for chunk in store.read(one)]
    assert lost.value.error_code == "blob_missing"


async def test_reading_holds_little_in_memory(store: BlobStore) -> None:
    written = await store.write(streamed(*[b"x" * 2**20] * 64), 2**30)
    assert max([len(chunk) async for chunk in store.read(written)]) <= 2 * PART


async def test_a_store_that_is_down_is_told_in_time_and_keeps_its_secrets() -> None:
    settings = settings_of(**{**s3_settings("http://127.0.0.1:1"), "blob_store_timeout_s": 1})
    store = BlobStore(settings)
    for action in (store.write_bytes(b"x"), store.write(streamed(b"x" * 3 * PART), 2**30), store.delete(["a/b"])):
        with pytest.raises(Unavailable) as down:
            async with asyncio.timeout(20):
                await action
        assert down.value.error_code == "blob_store_unavailable"
        assert down.value.details["retryable"]
        assert "a secret of tests" not in f"{down.value} {down.value.__cause__!r} {settings!r}"


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.joinpath("blobs").write_text("in the way")
    with pytest.raises(Unavailable) as down:
        await BlobStore(settings_of(data_dir=tmp_path)).write_bytes(b"x")
    assert down.value.error_code == "blob_store_unavailable"


async def test_a_folder_is_named_by_a_url(tmp_path: Path) -> None:
    store = BlobStore(settings_of(blob_store=(tmp_path / "with blank").as_uri()))
    written = await store.write_bytes(b"x")
    assert (tmp_path / "with blank" / written.store_key).read_bytes() == b"x"


async def test_halves_of_killed_processes_are_discarded_in_time(tmp_path: Path) -> None:
    store = BlobStore(settings_of(data_dir=tmp_path))
    written = await store.write_bytes(b"whole")
    old, new = (tmp_path / "blobs" / f"{written.store_key}#{n}" for n in (1, 2))
    for half in (old, new):
        half.write_bytes(b"ha")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    assert await keys(store) == [written.store_key]
    await store.discard_halves(timedelta(hours=1))
    assert (old.exists(), new.exists()) == (False, True)
