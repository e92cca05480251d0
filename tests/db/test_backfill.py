"""Back-fills: every document with a source gets its vector, whatever fails meanwhile, and nothing is done twice."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import create_engine, transaction
from app.domain.background import tasks, work
from app.domain.background.tasks import Task
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import Backfill, NewVector
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.domain.models import backfill, filling_up
from app.domain.models.forecasting import forecast
from app.domain.promoting import promotion
from app.domain.promoting.promotion import Promotion
from app.domain.runtime import Runtime
from app.errors import Conflict, InferenceUnavailable, PgretrieveError
from app.inference.registry import Inference
from app.jobs import worker
from tests.fakes import FakeService, fake_vector, settings_of

NAME = "filled"


@dataclass
class Place:
    """A database of this test's own with a standalone namespace of `count` documents with titles, and a worker."""

    url: str
    runtime: Runtime
    fake: FakeService

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with transaction(self.runtime.engine, self.runtime.settings) as conn:
            yield conn

    async def upsert(self, payloads: dict[str, Any], vectors: dict[str, Any] | None = None) -> None:
        given = [Document(key, vectors or {}, json.dumps(payload).encode()) for key, payload in payloads.items()]
        async with self.transaction() as conn:
            catalog = await namespaces.lock_catalog(conn, NAME, exclusive=False)
            await documents.upsert(conn, catalog, given, self.runtime.settings)

    async def promote(self, rate: int | None = None) -> str:
        """With an index `text` that is filled from `title`; the task's id."""
        vector = NewVector("text", 8, inference_service="fake", source_field="title")
        vector = NewVector(**{**_fields(vector), "backfill": Backfill("title", rate)})
        services = {info.name: info for info in self.runtime.inference.infos()}
        async with self.transaction() as conn:
            catalog = await namespaces.load_catalog(conn, NAME)
        expected = await forecast(self.runtime, catalog, None, "title", "fake", rate)
        async with self.transaction() as conn:
            wanted = Promotion(add_vectors=[vector])
            after = await promotion.promote(
                conn, NAME, wanted, services, self.runtime.settings, "test", {"text": expected}
            )
        task_id = after.by_name["text"].filled_by
        assert task_id is not None
        return task_id

    async def fill(self, source_field: str | None = None) -> str:
        """The same as a request of its own."""
        async with self.transaction() as conn:
            catalog = await namespaces.load_catalog(conn, NAME)
        wanted = Backfill(source_field)
        place = backfill.place_of(catalog, "text", wanted)
        expected = await forecast(self.runtime, catalog, place.config.column, place.field, "fake", None)
        async with self.transaction() as conn:
            return await backfill.request(conn, NAME, "text", wanted, expected, "test")

    async def work(self) -> None:
        """All jobs that are due, also those that are due later."""
        self.change("UPDATE pgretrieve_queue.procrastinate_jobs SET scheduled_at = NULL WHERE status = 'todo'")
        await worker.drain(self.url, self.runtime)

    async def task(self, task_id: str) -> Task:
        async with self.transaction() as conn:
            return await tasks.find(conn, task_id)

    def query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as conn:
            return conn.execute(text.encode(), values).fetchall()

    def change(self, text: str, *values: Any) -> None:
        with psycopg.connect(self.url) as conn:
            conn.execute(text.encode(), values)

    def right(self) -> int:
        """How many documents have the vector of their title; fails on any other vector."""
        found = self.query(f"SELECT payload->>'title', text::real[] FROM {NAME}.documents WHERE text IS NOT NULL")
        for title, vector in found:
            assert np.allclose(vector, fake_vector(title, 8), atol=1e-6)
        return len(found)

    @property
    def embedded(self) -> list[str]:
        """Every text that was sent to the service, as often as it was."""
        return [text for texts, _ in self.fake.calls for text in texts]


def _fields(vector: NewVector) -> dict[str, Any]:
    return {name: getattr(vector, name) for name in NewVector.__slots__}


@pytest.fixture
async def place(fresh_database: Callable[[], str]) -> AsyncIterator[Place]:
    url, fake = fresh_database(), FakeService()
    settings = settings_of(work_attempts=9, work_batch=8, inference_cache_mb=0, drift_probe_hours=0)
    runtime = Runtime(settings, create_engine(url, settings), Inference({"fake": fake}, settings))
    async with transaction(runtime.engine, settings) as conn:
        await namespaces.create_standalone(conn, settings, namespace_id=NAME, vectors=[NewVector("own", 2)])
    made = Place(url, runtime, fake)
    titles: dict[str, Any] = {f"d{n:03}": {"title": f"title {n}"} for n in range(100)}
    await made.upsert(titles | {"none": {"other": 1}, "blank": {"title": " "}}, {"own": [1, 0]})
    yield made
    await runtime.inference.close()
    await runtime.engine.dispose()


async def test_every_document_with_a_source_gets_its_vector_in_one_call_each(place: Place) -> None:
    task_id = await place.promote()
    task = await place.task(task_id)
    assert (task.status, task.total, task.percentage, task.subject) == ("PENDING", 100, 0.0, "text")
    assert task.about["forecast"] == {
        "items": 100,
        "without_source": 2,
        "characters": sum(len(f"title {n}") for n in range(100)),
        "tokens": -(-sum(len(f"title {n}") for n in range(100)) // 4),
        "tokens_by": "estimate",
        "seconds": None,
    }
    await place.work()
    task = await place.task(task_id)
    assert (task.status, task.total, task.done, task.failed, task.percentage) == ("COMPLETED", 100, 100, 0, 100.0)
    assert place.right() == 100
    assert sorted(place.embedded) == sorted(f"title {n}" for n in range(100))
    assert place.query("SELECT filled_by FROM pgretrieve.vector_configs WHERE name = 'text'") == [(None,)]
    assert place.query("SELECT * FROM pgretrieve.work") == []


async def test_doing_it_again_costs_no_call(place: Place) -> None:
    await place.promote()
    await place.work()
    calls = len(place.fake.calls)
    task_id = await place.fill()
    await place.work()
    task = await place.task(task_id)
    assert (task.status, task.total, task.done) == ("COMPLETED", 0, 0)
    assert len(place.fake.calls) == calls


async def test_what_is_written_meanwhile_is_embedded_once(place: Place) -> None:
    place.fake.hold = asyncio.Event()
    task_id = await place.promote()
    working = asyncio.create_task(place.work())
    await place.fake.called.wait()
    await place.upsert({"d000": {"title": "changed"}, "d050": {"title": "changed too"}, "new": {"title": "new"}})
    await place.upsert({"d060": {"title": "title 60"}}, {"text": fake_vector("title 60", 8).tolist()})
    place.fake.hold.set()
    await working
    assert place.right() == 101
    assert (await place.task(task_id)).status == "COMPLETED"
    counts = {text: place.embedded.count(text) for text in place.embedded}
    assert counts.pop("title 0") == 1
    assert "title 50" not in counts
    assert "title 60" not in counts
    assert set(counts.values()) == {1}
    assert {"changed", "changed too", "new"} <= counts.keys()


async def test_while_its_provider_is_down_one_chunk_waits_and_no_other_is_queued(place: Place) -> None:
    place.fake.error = InferenceUnavailable("down")
    task_id = await place.promote()
    await place.work()
    assert len(set(place.embedded)) == 8
    assert place.query("SELECT count(*), count(failed_at) FROM pgretrieve.work") == [(8, 0)]
    assert (await place.task(task_id)).status == "IN_PROGRESS"
    place.fake.error = None
    place.change("UPDATE pgretrieve.work SET due_at = now()")
    await place.work()
    assert ((await place.task(task_id)).status, place.right()) == ("COMPLETED", 100)


async def test_what_its_service_refuses_is_counted_and_a_later_back_fill_tries_it_anew(place: Place) -> None:
    place.fake.refused = "title 42"
    task_id = await place.promote()
    await place.work()
    task = await place.task(task_id)
    assert (task.status, task.done, task.failed, task.percentage) == ("COMPLETED_WITH_ERRORS", 99, 1, 100.0)
    place.fake.refused = None
    again = await place.fill()
    await place.work()
    task = await place.task(again)
    assert (task.status, task.total, task.done) == ("COMPLETED", 1, 1)
    assert place.right() == 100


async def test_a_cancelled_one_leaves_what_is_done_and_takes_what_is_queued(place: Place) -> None:
    place.fake.hold = asyncio.Event()
    task_id = await place.promote()
    working = asyncio.create_task(place.work())
    await place.fake.called.wait()
    async with place.transaction() as conn:
        assert (await tasks.cancel(conn, task_id)).status == "CANCELED"
    place.fake.hold.set()
    await working
    assert place.right() == 8
    assert place.query("SELECT * FROM pgretrieve.work") == []
    assert place.query("SELECT filled_by FROM pgretrieve.vector_configs WHERE name = 'text'") == [(None,)]
    assert (await place.task(task_id)).done == 8
    await place.fill()
    await place.work()
    assert (place.right(), len(place.embedded)) == (100, 100)


async def test_one_runs_at_a_time_and_a_mapped_field_stays(place: Place) -> None:
    await place.promote()
    with pytest.raises(Conflict, match="is being filled already"):
        await place.fill()
    await place.work()
    with pytest.raises(Conflict, match="embeds the field 'title', not 'other'"):
        await place.fill("other")


async def test_a_slice_that_is_run_again_does_nothing_twice(place: Place) -> None:
    task_id = await place.promote()
    await filling_up.run_slice(place.runtime, task_id, 0)
    await filling_up.run_slice(place.runtime, task_id, 0)
    await filling_up.run_slice(place.runtime, task_id, 7)
    await place.work()
    assert (len(place.embedded), place.right()) == (100, 100)


async def test_a_chunk_whose_worker_was_lost_is_done_by_others(place: Place) -> None:
    task_id = await place.promote()
    async with place.transaction() as conn:  # all that such a worker leaves: its chunk, leased
        task = await tasks.find(conn, task_id)
        assert await tasks.begin(conn, task_id)
        catalog = await namespaces.load_catalog(conn, NAME)
        chunk = await filling_up.take_chunk(conn, task, catalog, catalog.sources[0], 8)
        await tasks.advance(conn, task_id, {"cursor": chunk.cursor, "taken": 8})
        assert len(await work.claim(conn, place.runtime.settings, NAME, 8)) == 8
    place.change("UPDATE pgretrieve.work SET leased_until = now() - interval '1 s'")
    await place.work()
    assert ((await place.task(task_id)).status, place.right(), len(place.embedded)) == ("COMPLETED", 100, 100)


async def test_a_rate_is_kept(place: Place) -> None:
    task_id = await place.promote(rate=60)
    assert (await place.task(task_id)).about["forecast"]["seconds"] == 100.0
    await worker.drain(place.url, place.runtime)
    assert place.right() <= 16  # five seconds' worth at once, and a little more while the slice lasts
    ((waits,),) = place.query(
        "SELECT extract(epoch FROM scheduled_at - now()) FROM pgretrieve_queue.procrastinate_jobs"
        " WHERE task_name = 'backfill' AND status = 'todo'"
    )
    assert 0 < waits < 10


async def test_what_cannot_go_on_fails_and_says_why(place: Place) -> None:
    task_id = await place.promote()
    await filling_up.give_up(place.runtime, task_id, PgretrieveError("It broke."))
    task = await place.task(task_id)
    assert (task.status, task.error) == ("FAILED", {"code": "internal_error", "message": "It broke."})
    assert place.query("SELECT filled_by FROM pgretrieve.vector_configs WHERE name = 'text'") == [(None,)]


async def test_direct_upserts_come_before_a_back_fill(place: Place) -> None:
    await place.promote()
    async with place.transaction() as conn:
        catalog = await namespaces.load_catalog(conn, NAME)
        task = await tasks.find(conn, str(catalog.by_name["text"].filled_by))
        await filling_up.take_chunk(conn, task, catalog, catalog.sources[0], 8)
    await place.upsert({"zzz": {"title": "now"}})
    async with place.transaction() as conn:
        assert [row.subject for row in await work.claim(conn, place.runtime.settings, NAME, 8)] == ["zzz"]
