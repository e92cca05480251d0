"""A back-fill of thousands while workers are killed and the provider fails in every way: one right vector each."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pytest

from app.db.engine import create_engine, transaction
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import Backfill, NewVector
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.domain.inference import services
from app.domain.models import backfill
from app.domain.models.forecasting import forecast
from app.domain.promoting import promotion
from app.domain.promoting.promotion import Promotion
from app.domain.runtime import Runtime
from app.inference.definition import Definition
from app.inference.registry import Inference
from tests.fakes import settings_of
from tests.openai_server import OpenAIServer, embedded
from tests.state import until

NAME, COUNT, DIMENSION = "many", 2_000, 8
SECRET = "PGRETRIEVE_SECRET_FAULTS"


@dataclass
class Fleet:
    """A namespace with documents that are to be filled, the provider, and workers that can be killed."""

    url: str
    server: OpenAIServer
    runtime: Runtime

    @contextmanager
    def worker(self) -> Iterator[None]:
        """One that is killed at the end."""
        more = {SECRET: self.server.key, "PGRETRIEVE_WORK_LEASE_S": "5", "PGRETRIEVE_INFERENCE_CACHE_ROWS": "0"}
        more |= {"PGRETRIEVE_INFERENCE_RETRIES": "0", "PGRETRIEVE_INFERENCE_TIMEOUT_S": "1"}
        more |= {"PGRETRIEVE_WORK_BATCH": "32", "PGRETRIEVE_INFERENCE_CACHE_MB": "0"}
        more |= {"PGRETRIEVE_DRIFT_PROBE_HOURS": "0"}
        command = [sys.executable, "-m", "tests.faults.worker_process", self.url]
        process = subprocess.Popen(command, env={**os.environ, **more})
        try:
            yield
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            # As if the half minute had passed after which a worker counts as lost.
            self.change("UPDATE pgretrieve_queue.procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")

    def change(self, text: str) -> None:
        with psycopg.connect(self.url) as conn:
            conn.execute(text.encode())

    def stored(self) -> dict[str, Any]:
        """The title of every document that has its vector, and the vector."""
        with psycopg.connect(self.url) as conn:
            query = f"SELECT payload->>'title', text::real[] FROM {NAME}.documents WHERE text IS NOT NULL"
            return dict(conn.execute(query.encode()).fetchall())

    def asked(self) -> list[str]:
        """The texts that the provider was asked for, each as often as it was."""
        return [text for request in list(self.server.requests) for text in request["input"]]

    def task(self) -> tuple[Any, ...]:
        with psycopg.connect(self.url) as conn:
            query = """SELECT status, total, done, failed FROM pgretrieve.tasks WHERE kind = 'backfill'
                ORDER BY created_at DESC LIMIT 1"""
            found = conn.execute(query).fetchone()
        assert found is not None
        return found

    async def stored_at_least(self, count: int) -> None:
        await until(lambda: len(self.stored()) >= count, seconds=60)

    async def asked_more(self, calls: int) -> None:
        before = len(self.server.requests)
        await until(lambda: len(self.server.requests) >= before + calls, seconds=60)

    async def ended(self) -> tuple[Any, ...]:
        # What failed waits, each time longer: not here.
        def is_over() -> bool:
            self.change("UPDATE pgretrieve.work SET due_at = now() WHERE lease IS NULL AND failed_at IS NULL")
            self.change("UPDATE pgretrieve_queue.procrastinate_jobs SET scheduled_at = NULL WHERE status = 'todo'")
            return bool(self.task()[0] not in ("PENDING", "IN_PROGRESS"))

        await until(is_over, seconds=90)
        return self.task()


@pytest.fixture
async def fleet(fresh_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(SECRET, "sk-test-0123456789abcdef")
    settings, url = settings_of(), fresh_database()
    with OpenAIServer() as server:
        runtime = Runtime(settings, create_engine(url, settings), Inference({}, settings))
        options = {"base_url": server.base_url, "api_key_ref": SECRET, "send_dimensions": True, "normalized": True}
        definition = Definition("far", "openai", "text-embedding-3-small", DIMENSION, options)
        async with transaction(runtime.engine, settings) as conn:
            await services.create(conn, runtime.inference, definition, settings, "test")
            catalog = await namespaces.create_standalone(conn, settings, namespace_id=NAME, vectors=[NewVector("v", 2)])
            titles = [b'{"title": "number %d of many"}' % n for n in range(COUNT)]
            given = [Document(f"d{n:05}", {"v": [1, 0]}, title) for n, title in enumerate(titles)]
            await documents.upsert(conn, catalog, given, settings)
        await services.refresh(runtime)
        yield Fleet(url, server, runtime)
        await runtime.inference.close()
        await runtime.engine.dispose()


async def promote(fleet: Fleet) -> None:
    vector = NewVector("text", DIMENSION, inference_service="far", source_field="title", backfill=Backfill("title"))
    infos = {info.name: info for info in fleet.runtime.inference.infos()}
    async with transaction(fleet.runtime.engine, fleet.runtime.settings) as conn:
        wanted = Promotion(add_vectors=[vector])
        await promotion.promote(conn, NAME, wanted, infos, fleet.runtime.settings, "test")


async def again(fleet: Fleet) -> None:
    runtime, settings = fleet.runtime, fleet.runtime.settings
    async with transaction(runtime.engine, settings) as conn:
        catalog = await namespaces.load_catalog(conn, NAME)
    expected = await forecast(runtime, catalog, "text", "title", "far", None)
    async with transaction(runtime.engine, settings) as conn:
        await backfill.request(conn, NAME, "text", Backfill(), expected, "test")


async def test_killed_workers_and_a_failing_provider_leave_one_right_vector_for_each(fleet: Fleet) -> None:
    server = fleet.server
    await promote(fleet)
    with fleet.worker():
        await fleet.stored_at_least(100)
    whole, begun = fleet.stored(), len(fleet.asked())
    with fleet.worker():
        await fleet.stored_at_least(len(whole) + 100)
        for answer in ("nan", "wrong_length", "too_few", "not_json"):
            server.answer = answer
            await fleet.asked_more(3)
        server.answer = "right"
        for status in (429, 500, 503):
            server.statuses = [status, status, 200]
            await fleet.asked_more(3)
        await fleet.stored_at_least(len(whole) + 200)
    with fleet.worker():
        assert await fleet.ended() == ("COMPLETED", COUNT, COUNT, 0)
        calls = len(server.requests)
        await again(fleet)
        assert await fleet.ended() == ("COMPLETED", 0, 0, 0)
        assert len(server.requests) == calls
    found = fleet.stored()
    assert len(found) == COUNT
    for title, vector in found.items():
        assert np.allclose(vector, embedded(title, 1536, DIMENSION), atol=1e-6)
    assert not whole.keys() & set(fleet.asked()[begun:]), "what was stored before the first kill is not asked for again"
    with psycopg.connect(fleet.url) as conn:
        assert conn.execute("SELECT count(*) FROM pgretrieve.work").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM many.documents").fetchone() == (COUNT,)
