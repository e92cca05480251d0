"""Content that embeds itself: whoever writes it, exactly once for each text, and never over what a caller brings."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import pytest
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db.engine import transaction
from app.domain.background import tasks, work, working
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.documents import documents, pending
from app.domain.documents.documents import Document
from app.domain.runtime import Runtime
from app.errors import Conflict, InferenceUnavailable, InvalidRequest, PgretrieveError, Problem
from app.inference.registry import Inference
from tests.fakes import FakeService, fake_vector, settings_of
from tests.state import until


@dataclass
class Place:
    """A managed namespace whose index `text` embeds the field `title.main` by a fake."""

    url: str
    runtime: Runtime
    fake: FakeService
    name: str

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with transaction(self.runtime.engine, self.runtime.settings) as conn:
            yield conn

    async def upsert(self, title: str | None, document_id: str = "d", vector: Any = None, **more: Any) -> None:
        payload = more | ({"title": {"main": title}} if title is not None else {})
        given = Document(document_id, {} if vector is None else {"text": vector}, json.dumps(payload).encode())
        async with self.transaction() as conn:
            catalog = await namespaces.lock_catalog(conn, self.name, exclusive=False)
            await documents.upsert(conn, catalog, [given], self.runtime.settings)

    async def work(self) -> int:
        return await working.do_all(self.runtime, self.name)

    def query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as conn:
            return conn.execute(sql.SQL(text).format(sql.Identifier(self.name, "documents")), values).fetchall()

    def change(self, text: str) -> None:
        """As an analyst or another program does it."""
        with psycopg.connect(self.url) as conn:
            conn.execute(sql.SQL(text).format(sql.Identifier(self.name, "documents")))

    def vector(self, document_id: str = "d") -> list[float] | None:
        ((found,),) = self.query("SELECT text::real[] FROM {} WHERE document_id = %s", document_id)
        return None if found is None else list(found)

    def is_made_of(self, title: str, document_id: str = "d") -> bool:
        found = self.vector(document_id)
        return found is not None and np.allclose(found, fake_vector(title, 8))

    def open(self) -> list[tuple[Any, ...]]:
        query = """SELECT subject, attempts, lease IS NOT NULL, failed_at IS NOT NULL, error->>'code'
            FROM pgretrieve.work WHERE namespace_id = %s ORDER BY subject"""
        return self.query(query, self.name)


@pytest.fixture
async def place(conninfo: str, engine: AsyncEngine) -> AsyncIterator[Place]:
    fake = FakeService()
    settings = settings_of(work_attempts=3, work_batch=8)
    runtime = Runtime(settings, engine, Inference({"fake": fake}, settings))
    name = f"fill_{uuid4().hex[:12]}"
    vector = NewVector("text", 8, inference_service="fake", source_field="title.main")
    async with transaction(engine, settings) as conn:
        await namespaces.create(conn, settings, mode="managed", namespace_id=name, vectors=[vector])
    yield Place(conninfo, runtime, fake, name)
    await runtime.inference.close()


async def test_a_document_without_a_vector_is_embedded_and_says_by_whom(place: Place) -> None:
    await place.upsert("a title", n=1)
    assert place.vector() is None
    assert place.open() == [("d", 0, False, False, None)]
    assert await place.work() == 1
    assert place.is_made_of("a title")
    assert place.open() == []
    ((made,),) = place.query("SELECT provenance->'text' FROM {}")
    assert {key: made[key] for key in ("service", "model", "revision")} == {
        "service": "fake",
        "model": "fake",
        "revision": "",
    }
    view = (
        "SELECT made_by, service, input_hash = %s, is_mapped FROM pgretrieve.vector_provenance WHERE namespace_id = %s"
    )
    assert place.query(view, made["input"], place.name) == [("service", "fake", True, True)]
    assert place.query("SELECT * FROM pgretrieve.foreign_vectors WHERE namespace_id = %s", place.name) == []


async def test_the_same_source_is_never_embedded_again(place: Place) -> None:
    await place.upsert("a title", n=1)
    await place.work()
    await place.upsert("a title", n=2)
    assert place.is_made_of("a title")
    place.change("UPDATE {} SET payload = payload || '{{\"n\": 3}}'")
    assert place.open() == []
    assert await place.work() == 0
    assert len(place.fake.calls) == 1


async def test_a_changed_source_loses_its_vector_at_once_whoever_changes_it(place: Place) -> None:
    await place.upsert("old")
    await place.work()
    await place.upsert("new")
    assert place.vector() is None
    await place.work()
    assert place.is_made_of("new")
    place.change("""UPDATE {} SET payload = '{{"title": {{"main": "by sql"}}}}'""")
    assert place.vector() is None
    await place.work()
    assert place.is_made_of("by sql")


@pytest.mark.parametrize("title", [None, "", " \t"])
async def test_what_has_no_source_is_not_embedded_and_loses_what_was_made_of_one(
    place: Place, title: str | None
) -> None:
    await place.upsert("a title")
    await place.work()
    await place.upsert(title, n=1)
    assert place.vector() is None
    assert place.open() == []
    assert place.query("SELECT provenance FROM {}") == [({},)]


async def test_a_callers_vector_stays_as_it_is(place: Place) -> None:
    await place.upsert("a title", vector=[1, 0, 0, 0, 0, 0, 0, 0])
    assert place.open() == []
    place.change("""UPDATE {} SET payload = '{{"title": {{"main": "other"}}}}'""")
    assert place.open() == []
    assert place.vector() == [1, 0, 0, 0, 0, 0, 0, 0]
    foreign = "SELECT made_by, is_mapped FROM pgretrieve.foreign_vectors WHERE namespace_id = %s"
    assert place.query(foreign, place.name) == [("caller", False)]


async def test_what_comes_while_a_service_embeds_is_not_overwritten(place: Place) -> None:
    place.fake.hold = asyncio.Event()
    for document_id in ("changed", "brought", "deleted", "same"):
        await place.upsert("old", document_id)
    working_on = asyncio.create_task(place.work())
    await place.fake.called.wait()
    await place.upsert("new", "changed")
    await place.upsert("old", "brought", vector=[1, 0, 0, 0, 0, 0, 0, 0])
    async with place.transaction() as conn:
        await documents.delete(conn, await namespaces.load_catalog(conn, place.name), "deleted")
    place.fake.hold.set()
    await working_on
    assert place.is_made_of("new", "changed")
    assert place.is_made_of("old", "same")
    assert place.vector("brought") == [1, 0, 0, 0, 0, 0, 0, 0]
    assert place.open() == []
    assert place.query("SELECT count(*) FROM {}") == [(3,)]


async def test_a_failure_that_may_pass_is_tried_again_and_then_is_a_dead_letter(place: Place) -> None:
    place.fake.error = InferenceUnavailable("down", code="inference_unavailable")
    await place.upsert("a title")
    for attempts, dead in ((1, False), (2, False), (3, True)):
        assert await place.work() == 1
        assert place.open() == [("d", attempts, False, dead, "inference_unavailable")]
        place.query("UPDATE pgretrieve.work SET due_at = now() WHERE namespace_id = %s RETURNING 1", place.name)
    place.fake.error = None
    assert await place.work() == 0
    async with place.transaction() as conn:
        assert await work.redrive(conn, place.name) == 1
    await place.work()
    assert place.is_made_of("a title")


async def test_a_text_that_is_refused_fails_alone(place: Place) -> None:
    place.fake.refused = "bad"
    for n, title in enumerate(["a", "b", "bad", "c"]):
        await place.upsert(title, f"d{n}")
    await place.work()
    assert place.open() == [("d2", 1, False, True, "inference_refused")]
    assert all(place.is_made_of(title, f"d{n}") for n, title in enumerate(["a", "b"]))
    assert place.is_made_of("c", "d3")


async def test_a_lease_that_ran_out_is_taken_by_another_and_ends_nothing_twice(place: Place) -> None:
    await place.upsert("a title")
    async with place.transaction() as conn:
        lost = await work.claim(conn, place.runtime.settings, place.name, 8)
    assert await place.work() == 0
    place.query("UPDATE pgretrieve.work SET leased_until = now() WHERE namespace_id = %s RETURNING 1", place.name)
    async with place.transaction() as conn:
        assert place.name in await work.sweep(conn, place.runtime.settings)
        taken = await work.claim(conn, place.runtime.settings, place.name, 8)
    async with place.transaction() as conn:
        await work.finish(conn, lost)
    assert place.open() == [("d", 2, True, False, None)]
    async with place.transaction() as conn:
        await work.finish(conn, taken)
    assert place.open() == []


async def test_who_is_at_it_keeps_the_lease(place: Place) -> None:
    place.runtime = replace(place.runtime, settings=settings_of(work_lease_s=5))
    place.fake.hold = asyncio.Event()
    await place.upsert("a title")
    working_on = asyncio.create_task(place.work())
    await place.fake.called.wait()
    until_then = "SELECT leased_until, now() FROM pgretrieve.work WHERE namespace_id = %s"
    ((first, _),) = place.query(until_then, place.name)
    await until(lambda: place.query(until_then, place.name)[0][0] > first, seconds=10)
    place.fake.hold.set()
    assert await working_on == 1
    assert place.open() == []


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (InferenceUnavailable("busy", code="inference_busy", retryable=True, retry_after_seconds=90), 90),
        (InferenceUnavailable("late", code="inference_unavailable"), 1),
        (InvalidRequest([Problem(("texts", 0), "inference_refused", "Never.")]), None),
    ],
    ids=["rate limit", "time-out", "bad input"],
)
async def test_what_kind_of_error_it_was_says_when_it_is_tried_again(
    place: Place, error: PgretrieveError, pause: float | None
) -> None:
    place.fake.error = error
    await place.upsert("a title")
    ((before,),) = place.query("SELECT now()")
    await place.work()
    query = "SELECT due_at, failed_at IS NOT NULL, now() FROM pgretrieve.work WHERE namespace_id = %s"
    ((due, dead, after),) = place.query(query, place.name)
    assert dead is (pause is None)
    if pause is not None:
        assert before <= due - timedelta(seconds=pause) <= after
        later = "SELECT scheduled_at > now() FROM pgretrieve_queue.procrastinate_jobs WHERE args->>'namespace_id' = %s"
        assert (True,) in place.query(later, place.name)


async def test_what_ends_its_workers_is_a_dead_letter(place: Place) -> None:
    await place.upsert("a title")
    change = """UPDATE pgretrieve.work SET attempts = 3, leased_until = now() - interval '1s'
        WHERE namespace_id = %s RETURNING 1"""
    place.query(change, place.name)
    async with place.transaction() as conn:
        await work.sweep(conn, place.runtime.settings)
    assert place.open() == [("d", 3, False, True, "worker_lost")]


async def test_work_exists_if_and_only_if_the_write_is_committed(place: Place) -> None:
    with pytest.raises(RuntimeError):
        async with place.transaction() as conn:
            catalog = await namespaces.lock_catalog(conn, place.name, exclusive=False)
            given = [Document("d", {}, b'{"title": {"main": "a title"}}')]
            await documents.upsert(conn, catalog, given, place.runtime.settings)
            raise RuntimeError("the request fails")
    jobs = "SELECT count(*) FROM pgretrieve_queue.procrastinate_jobs WHERE args->>'namespace_id' = %s"
    assert (place.open(), place.query(jobs, place.name)) == ([], [(0,)])
    await place.upsert("a title")
    assert (len(place.open()), place.query(jobs, place.name)) == (1, [(1,)])


async def test_a_task_ends_with_the_last_of_its_items(place: Place) -> None:
    place.fake.refused = "bad"
    async with place.transaction() as conn:
        task_id = await tasks.create(conn, place.name, "backfill", subject="text", total=2)
        assert await tasks.begin(conn, task_id)
    for title in ("good", "bad"):
        await place.upsert(title, title)
    place.query("UPDATE pgretrieve.work SET task_id = %s WHERE namespace_id = %s RETURNING 1", task_id, place.name)
    async with place.transaction() as conn:
        assert await tasks.advance(conn, task_id, tasks.QUEUED)
    await place.work()
    async with place.transaction() as conn:
        task = await tasks.find(conn, task_id)
        assert (task.status, task.done, task.failed, task.percentage) == ("COMPLETED_WITH_ERRORS", 1, 1, 100.0)
        assert await work.redrive(conn, place.name, task_id=task_id) == 1
    place.fake.refused = None
    await place.work()
    async with place.transaction() as conn:
        task = await tasks.find(conn, task_id)
        assert (task.status, task.done, task.failed) == ("COMPLETED", 2, 0)
        with pytest.raises(Conflict, match="has ended"):
            await tasks.cancel(conn, task_id)


async def test_a_cancelled_task_takes_what_nobody_has_begun_with_it(place: Place) -> None:
    async with place.transaction() as conn:
        task_id = await tasks.create(conn, place.name, "backfill", total=1)
    await place.upsert("a title")
    place.query("UPDATE pgretrieve.work SET task_id = %s WHERE namespace_id = %s RETURNING 1", task_id, place.name)
    async with place.transaction() as conn:
        assert (await tasks.cancel(conn, task_id)).status == "CANCELED"
        assert not await tasks.begin(conn, task_id)
    assert place.open() == []


async def test_who_waits_goes_at_the_end_of_his_time_and_what_is_begun_goes_on(place: Place) -> None:
    place.fake.hold = asyncio.Event()
    await place.upsert("a title")
    async with place.transaction() as conn:
        catalog = await namespaces.load_catalog(conn, place.name)
    found = await pending.wait(place.runtime, catalog, [Document("d", {})], time.monotonic() + 0.05)
    assert (found.open, found.without_vector, found.indexes) == (["d"], ["d"], ["text"])
    place.fake.hold.set()
    await until(lambda: place.vector() is not None)
    assert place.is_made_of("a title")


async def test_who_waits_for_another_worker_is_told_when_that_is_done(place: Place) -> None:
    place.fake.hold = asyncio.Event()
    await place.upsert("a title")
    async with place.transaction() as conn:
        catalog = await namespaces.load_catalog(conn, place.name)
    other = asyncio.create_task(place.work())
    await place.fake.called.wait()
    limit = time.monotonic() + 60
    waiting = asyncio.create_task(pending.wait(place.runtime, catalog, [Document("d", {})], limit))
    place.fake.hold.set()
    found = await waiting
    assert (found.open, dict(found.failed)) == ([], {})
    await other
    assert len(place.fake.calls) == 1
