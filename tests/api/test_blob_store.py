"""What the API does when the blob store fails, and what a sweep takes away: never what an object refers to."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg.errors import ForeignKeyViolation
from sqlalchemy.ext.asyncio import AsyncEngine

from app import service
from app.db.engine import create_engine, transaction
from app.db.statements import statement
from app.domain.content import blobs
from app.domain.content.blobs import Swept
from app.domain.content.objects import object_content
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.jobs import queue, worker
from app.settings import Settings
from app.storage import BlobStore
from tests.http import ROOT_KEY, Api
from tests.s3_server import s3_server, s3_settings

SCHEMA: dict[str, Any] = {"properties": {"content": {"type": "text"}}}
COUNTS = "SELECT (SELECT count(*) FROM pgretrieve.objects), (SELECT count(*) FROM pgretrieve.blobs)"


class Place:
    """A service on a database and a blob store of its own, with one bucket."""

    def __init__(self, api: Api, url: str, settings: Settings) -> None:
        self.api = api
        self.url = url
        self.settings = settings
        self.store = BlobStore(settings)
        api.standalone()
        api("POST", "/buckets", {"bucket_name": "b", "bucket_schema": SCHEMA})

    def put(self, *texts: str, status: int = 200) -> Any:
        entries = [{"property": "content", "type": "text", "data": each} for each in texts]
        return self.api("POST", "/buckets/b/objects", {"blobs": entries}, status=status)

    def put_any(self, *texts: str) -> httpx.Response:
        """The same, whatever the answer is."""
        entries = [{"property": "content", "type": "text", "data": each} for each in texts]
        headers = {"Authorization": self.api.authorization, "X-Namespace": self.api.namespace}
        return self.api.http.post("/buckets/b/objects", json={"blobs": entries}, headers=headers)

    def counts(self) -> Any:
        with psycopg.connect(self.url) as conn:
            return conn.execute(COUNTS).fetchone()

    def age(self) -> None:
        with psycopg.connect(self.url) as conn:
            conn.execute("UPDATE pgretrieve.blobs SET used_at = now() - interval '2 days'")


@pytest.fixture(params=["folder", "s3"])
def place(
    request: pytest.FixtureRequest, settings: Settings, fresh_database: Callable[[], str], tmp_path: Path
) -> Iterator[Place]:
    if request.param == "folder":
        yield from _placed(settings.model_copy(update={"data_dir": tmp_path}), fresh_database())
        return
    with s3_server() as endpoint:
        chosen = Settings(**{**settings.model_dump(), **s3_settings(endpoint)})
        yield from _placed(chosen, fresh_database())


def _placed(settings: Settings, url: str) -> Iterator[Place]:
    with (
        service.in_background(settings, url, ROOT_KEY) as address,
        httpx.Client(base_url=f"{address}/v1", timeout=30) as http,
    ):
        yield Place(Api(http, f"test_{uuid4().hex[:12]}"), url, settings)


@pytest.fixture
async def swept(place: Place) -> AsyncIterator[Callable[..., Any]]:
    """A function that sweeps."""
    engine: AsyncEngine = create_engine(place.url, place.settings)

    async def sweep(grace: timedelta | None = None) -> Swept:
        async with engine.connect() as conn:
            await conn.execution_options(isolation_level="AUTOCOMMIT")
            return await blobs.sweep(conn, place.store, place.settings, grace)

    yield sweep
    await engine.dispose()


async def _forget(place: Place) -> int:
    """The contents that nothing refers to, and their bytes, without any grace."""
    engine = create_engine(place.url, place.settings)
    async with engine.begin() as conn:
        rows = (await conn.execute(statement("sweep_blobs"), {"seconds": 0, "limit": 100})).all()
    await engine.dispose()
    await place.store.delete([key for (key,) in rows])
    return len(rows)


async def keys(store: BlobStore) -> int:
    return sum([len(page) async for page in store.older_than(timedelta(0))])


async def test_a_sweep_takes_what_nothing_refers_to(place: Place, swept: Callable[..., Any]) -> None:
    kept = await asyncio.to_thread(place.put, "shared", "of the first")
    gone = await asyncio.to_thread(place.put, "shared", "of the second")
    await place.store.write_bytes(b"written, and never named")
    await asyncio.to_thread(place.api, "DELETE", f"/buckets/b/objects/{gone['object_id']}")
    assert await swept() == Swept(0, 0, 0)  # all of it is new
    place.age()
    assert await swept(timedelta(seconds=0)) == Swept(0, 1, 1)
    assert place.counts() == (1, 2)
    assert await keys(place.store) == 2
    assert await swept(timedelta(seconds=0)) == Swept(0, 0, 0)
    await asyncio.to_thread(place.put, "of the second")  # it can come again
    engine = create_engine(place.url, place.settings)
    async with engine.connect() as conn:
        found = await object_content(conn, kept["object_id"])
    read = []
    for blob in found.blobs:
        assert blob.sha256 is not None
        parts = blobs.open_blob(engine, place.settings, place.store, blob.sha256)
        read.append(b"".join([chunk async for chunk in parts]))
    await engine.dispose()
    assert read == [b"shared", b"of the first"]


async def test_the_worker_sweeps(place: Place) -> None:
    before = await keys(place.store)
    gone = await asyncio.to_thread(place.put, "of one that goes")
    await asyncio.to_thread(place.api, "DELETE", f"/buckets/b/objects/{gone['object_id']}")
    place.age()
    engine = create_engine(place.url, place.settings)
    runtime = Runtime(place.settings, engine, Inference({}, place.settings))
    async with transaction(engine, place.settings) as conn:
        await queue.defer(conn, "sweep_blobs", {"timestamp": 0})
    await worker.drain(place.url, runtime)
    await runtime.close()
    assert place.counts() == (0, 0)
    assert await keys(place.store) == before


async def test_sweeps_and_writers_of_the_same_contents_lose_nothing(place: Place, swept: Callable[..., Any]) -> None:
    """Objects come and go with few contents, and all is swept at once: whoever has an object has its bytes."""
    done = asyncio.Event()

    async def sweep_on() -> int:
        taken = 0
        while not done.is_set():
            place.age()
            # Keys of requests in flight are strays to a sweep without grace, so the contents alone are swept.
            taken += await _forget(place)
        return taken

    def write(n: int) -> list[str]:
        refused = []
        for m in range(12):
            answer = place.put_any(f"content {m % 3}", f"only {n} {m % 2}")
            if answer.status_code == 200 and m % 2:
                place.api("DELETE", f"/buckets/b/objects/{answer.json()['object_id']}")
            elif answer.status_code != 200:
                refused.append(answer.json()["error"]["code"])
        return refused

    sweeper = asyncio.create_task(sweep_on())
    refused = await asyncio.gather(*(asyncio.to_thread(write, n) for n in range(3)))
    done.set()
    assert await sweeper > 0
    assert {code for codes in refused for code in codes} <= {"blob_missing", "collision"}  # to be sent again
    engine = create_engine(place.url, place.settings)
    async with engine.connect() as conn:
        rows = (await conn.exec_driver_sql("SELECT DISTINCT sha256 FROM pgretrieve.object_blobs")).scalars().all()
    assert len(rows) > 3
    for sha256 in rows:
        parts = [chunk async for chunk in blobs.open_blob(engine, place.settings, place.store, sha256)]
        assert hashlib.sha256(b"".join(parts)).hexdigest() == sha256
    await engine.dispose()


def test_a_content_that_is_referred_to_cannot_be_forgotten(place: Place) -> None:
    place.put("kept")
    with psycopg.connect(place.url) as conn, pytest.raises(ForeignKeyViolation):
        conn.execute("DELETE FROM pgretrieve.blobs")


def test_uploads_that_are_over_are_swept(place: Place) -> None:
    body = {"filename": "a.txt", "content_type": "text/plain"}
    upload = place.api("POST", "/buckets/b/uploads", body)
    httpx.put(upload["presigned_url"], content=b"never confirmed").raise_for_status()
    with psycopg.connect(place.url) as conn:
        conn.execute("UPDATE pgretrieve.uploads SET expires_at = now() - interval '8 days'")
    place.age()

    async def sweep() -> Swept:
        engine = create_engine(place.url, place.settings)
        async with engine.connect() as conn:
            await conn.execution_options(isolation_level="AUTOCOMMIT")
            found = await blobs.sweep(conn, place.store, place.settings)
        await engine.dispose()
        return found

    assert asyncio.run(sweep()) == Swept(1, 1, 0)
    assert place.counts() == (0, 0)


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_nothing_is_half_written_when_the_store_fails(place: Place, settings: Settings) -> None:
    upload = place.api("POST", "/buckets/b/uploads", {"filename": "a.txt", "content_type": "text/plain"})
    broken = Settings(**{**place.settings.model_dump(), "blob_store_endpoint": "http://127.0.0.1:1"})
    with (
        service.in_background(broken, place.url, ROOT_KEY) as address,
        httpx.Client(base_url=f"{address}/v1", timeout=30) as http,
    ):
        api = Api(http, place.api.namespace)
        entry = {"property": "content", "type": "text", "data": "words"}
        for path, body in (
            ("/buckets/b/objects", {"blobs": [entry, {**entry, "data": "more"}]}),
            ("/buckets/b/objects/batch", {"objects": [{"blobs": [entry]}, {"blobs": []}]}),
        ):
            error = api("POST", path, body, status=503)["error"]
            assert (error["code"], error["details"]["retryable"]) == ("blob_store_unavailable", True)
        secret = upload["presigned_url"].split("/uploads/")[1]
        sent = httpx.put(f"{address}/uploads/{secret}", content=b"x" * 100)
        assert (sent.status_code, sent.json()["error"]["code"]) == (503, "blob_store_unavailable")
        assert api("POST", "/buckets/b/objects", {"blobs": []})["blobs"] == []  # which needs no store
    assert place.counts() == (1, 0)
    assert place.api("GET", f"/buckets/b/uploads/{upload['upload_id']}")["status"] == "PENDING"
    assert place.put("words")["status"] == "PENDING"
