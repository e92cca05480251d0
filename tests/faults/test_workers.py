"""Workers among faults: killed in the middle of their work, beside a provider that fails in every way.

At the end there is one right vector for each document, and nothing was asked for twice but what a kill had in hand.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from app.db.engine import create_engine, transaction
from app.domain.background import work
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.domain.inference import services
from app.domain.runtime import Runtime
from app.inference.definition import Definition
from app.inference.registry import Inference
from tests.fakes import settings_of
from tests.openai_server import OpenAIServer, embedded
from tests.state import until

COUNT, BATCH, KILLS = 2_000, 32, 4
SECRET = "PGRETRIEVE_SECRET_FAULTS"


class Workers:
    """Two real workers, killed and replaced."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start what is missing, and wait until it is at work: one that begins without a database ends at once."""
        before = self._begun()
        missing = 2 - len(self._running)
        for _ in range(missing):
            command = [sys.executable, "-m", "app.cli", "worker"]
            self._running.append(subprocess.Popen(command, env=self._environment, stdout=subprocess.DEVNULL))
        deadline = time.monotonic() + 60
        while self._begun() < before + missing:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _begun(self) -> int:
        """How many workers have ever begun here, those that have ended included."""
        url = self._environment["DATABASE_URL"]
        last = (
            "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM pgretrieve_queue.procrastinate_workers_id_seq"
        )
        ((begun,),) = query(url, last)
        return int(begun)

    def kill(self) -> None:
        victim = self._running.pop(random.randrange(len(self._running)))
        victim.kill()
        victim.wait()

    def tell(self) -> None:
        """Tell them to stop."""
        for process in self._running:
            process.send_signal(signal.SIGTERM)

    def stop(self) -> list[int]:
        """The same; their exit codes."""
        self.tell()
        return [process.wait(30) for process in self._running]


@pytest.fixture
async def runtime(fresh_database: Callable[[], str]) -> AsyncIterator[tuple[str, Runtime]]:
    url = fresh_database()
    settings = settings_of(
        work_lease_s=5,
        work_batch=BATCH,
        inference_cache_rows=0,
    )
    engine = create_engine(url, settings)
    made = Runtime(settings, engine, Inference.from_settings(settings))
    yield url, made
    await made.inference.close()
    await engine.dispose()


async def test_killed_workers_and_a_failing_provider_lose_and_double_nothing(
    runtime: tuple[str, Runtime], openai: OpenAIServer
) -> None:
    url, made = runtime
    name = "faults"
    await prepare(made, openai, name)
    openai.statuses = [200, 429, 500, 200, 503]  # and 503 until it is well again
    workers = Workers(environment(url, openai))
    try:
        workers.start()
        for first in range(0, COUNT, 500):
            given = [
                Document(f"d{n:04}", {}, f'{{"title": "text number {n}"}}'.encode()) for n in range(first, first + 500)
            ]
            async with transaction(made.engine, made.settings) as conn:
                catalog = await namespaces.lock_catalog(conn, name, exclusive=False)
                await documents.upsert(conn, catalog, given, made.settings)
        await until(lambda: len(openai.requests) >= 5, seconds=30)
        openai.statuses = []
        for killed in range(KILLS):
            await until_stored(made, url, name, COUNT * killed // (2 * KILLS))
            workers.kill()
            workers.start()
        await until_stored(made, url, name, COUNT)
    finally:
        openai.statuses = []
        codes = workers.stop()
    assert codes == [0, 0]
    assert dead(url, name) == 0
    stored = vectors(url, name)
    assert len(stored) == COUNT
    for document_id, title, found in stored:
        assert np.allclose(found, embedded(title, 1536, 64), atol=1e-6), document_id
    asked = [text for request in openai.requests for text in request["input"]]
    assert len(set(asked)) == COUNT
    failed = 5 * BATCH * (1 + made.settings.inference_retries)
    assert len(asked) <= COUNT + KILLS * 2 * BATCH + failed


async def test_workers_that_are_told_to_stop_end_what_they_have_begun(
    runtime: tuple[str, Runtime], openai: OpenAIServer
) -> None:
    url, made = runtime
    name = "stopping"
    await prepare(made, openai, name)
    openai.hold, workers = threading.Event(), Workers(environment(url, openai))
    openai.came.clear()
    workers.start()
    try:
        async with transaction(made.engine, made.settings) as conn:
            catalog = await namespaces.lock_catalog(conn, name, exclusive=False)
            await documents.upsert(conn, catalog, [Document("d", {}, b'{"title": "a"}')], made.settings)
        assert await asyncio.to_thread(openai.came.wait, 60)
        workers.tell()
    finally:
        openai.hold.set()
        openai.hold = None
        codes = workers.stop()
    assert 0 in codes
    assert open_work(url, name) == 0
    assert [(document_id, len(vector)) for document_id, _, vector in vectors(url, name)] == [("d", 64)]
    assert len(openai.requests) == 1


async def prepare(made: Runtime, openai: OpenAIServer, name: str) -> None:
    """A namespace whose index `text` embeds titles through the endpoint."""
    options = {"base_url": openai.base_url, "api_key_ref": SECRET, "send_dimensions": True}
    service = Definition("small", "openai", "text-embedding-3-small", 64, options)
    vector = NewVector("text", 64, inference_service=service.name, source_field="title")
    async with transaction(made.engine, made.settings) as conn:
        await services.create(conn, made.inference, service, made.settings, "test")
        await namespaces.create(conn, made.settings, mode="managed", namespace_id=name, vectors=[vector])
    openai.requests.clear()


def environment(url: str, openai: OpenAIServer) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PGRETRIEVE_", "DATABASE_URL"))}
    return {
        **kept,
        "DATABASE_URL": url,
        SECRET: openai.key,
        "PGRETRIEVE_WORK_LEASE_S": "5",
        "PGRETRIEVE_DRIFT_PROBE_HOURS": "0",
        "PGRETRIEVE_WORK_BATCH": str(BATCH),
        "PGRETRIEVE_INFERENCE_CACHE_ROWS": "0",
    }


def query(url: str, text: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute(text.encode(), values).fetchall()


def open_work(url: str, name: str) -> int:
    found = query(url, "SELECT count(*) FROM pgretrieve.work WHERE namespace_id = %s AND failed_at IS NULL", name)
    return int(found[0][0])


def dead(url: str, name: str) -> int:
    found = query(url, "SELECT count(*) FROM pgretrieve.work WHERE namespace_id = %s AND failed_at IS NOT NULL", name)
    return int(found[0][0])


async def until_stored(runtime: Runtime, url: str, name: str, count: int) -> None:
    """Wait for so many vectors, and do meanwhile what the periodic job does every minute: sweep."""
    deadline = time.monotonic() + 120
    while COUNT - open_work(url, name) < count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.5)
        async with transaction(runtime.engine, runtime.settings) as conn:
            await work.sweep(conn, runtime.settings)


def vectors(url: str, name: str) -> list[tuple[str, str, list[float]]]:
    text = sql.SQL("SELECT document_id, payload->>'title', text::real[] FROM {} ORDER BY document_id")
    with psycopg.connect(url) as conn:
        return conn.execute(text.format(sql.Identifier(name, "documents"))).fetchall()
