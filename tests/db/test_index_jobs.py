"""Index builds as jobs: each method is built beside the data, is used by searches, and survives what may befall it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import create_engine, raw, transaction
from app.domain import documents, execution, namespaces, promotion, retrievers
from app.domain.documents import Document
from app.domain.execution import Execution, Outcome
from app.domain.namespaces import NewVector
from app.domain.promotion import Promotion
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.jobs import queue, worker
from app.retrieval import strategy
from app.retrieval.catalog import Catalog
from app.settings import Settings
from app.telemetry import Timings
from tests import servers
from tests.http import feature_search, search
from tests.state import blocked, kill, until

NAME = "indexed"
Vectors = NDArray[np.float64]


@dataclass
class Place:
    """A database of this test's own, whose planner uses an index wherever one can serve."""

    url: str
    runtime: Runtime

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with transaction(self.runtime.engine, self.runtime.settings) as conn:
            yield conn

    async def promoted(self, *vectors: NewVector) -> Catalog:
        """A namespace that got these vectors by its promotion."""
        settings = self.runtime.settings
        async with self.transaction() as conn:
            await namespaces.create_standalone(conn, settings, namespace_id=NAME, vectors=[NewVector("first", 3)])
        async with self.transaction() as conn:
            return await promotion.promote(conn, NAME, Promotion(add_vectors=vectors), {}, settings, "test")

    async def catalog(self) -> Catalog:
        async with self.transaction() as conn:
            return await namespaces.load_catalog(conn, NAME)

    async def states(self) -> dict[str, str]:
        return {config.name: config.index_state for config in (await self.catalog()).vector_configs[1:]}

    async def upsert(self, name: str, vectors: Vectors) -> None:
        async with self.transaction() as conn:
            catalog = await namespaces.lock_catalog(conn, NAME, exclusive=False)
            new = [Document(f"d{n}", {name: list(vector)}) for n, vector in enumerate(vectors)]
            await documents.upsert(conn, catalog, new, self.runtime.settings)

    async def retriever(self, name: str) -> None:
        definition = {"stages": [feature_search(search(name, "{{INPUT.v}}", top_k=5), final_top_k=5)]}
        async with self.transaction() as conn:
            await retrievers.put(conn, NAME, "r", definition, self.runtime.limits)

    async def search(self, query: Vectors) -> tuple[dict[str, float], str]:
        """The scores by document, best first, and the plan by which PostgreSQL found them."""
        given = Execution({"v": query.tolist()})
        found = await execution.run(self.runtime, NAME, "r", given, Timings())
        return {hit["document_id"]: hit["score"] for hit in found.documents}, await self.explain(found, query)

    async def explain(self, found: Outcome, query: Vectors) -> str:
        """The plan of the statement that was executed, with the settings that it was executed with."""
        values = {
            bind.name: bind.convert(bind.value)
            for bind in found.ran.plans[0].binds
            if not bind.name.startswith("s1_query")
        }
        values |= {"s1_query_1": query.astype(np.float32), "page_limit": None, "page_offset": None}
        async with self.transaction() as conn:
            driver = await raw(conn)
            for setting in found.ran.plans[0].settings.items():
                await driver.execute("SELECT set_config(%s, %s, true)", setting)
            rows = await (await driver.execute(f"EXPLAIN (FORMAT JSON) {found.ran.plans[0].text}", values)).fetchall()
        return json.dumps(rows)

    def query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as conn:
            return conn.execute(text, values).fetchall()

    def jobs(self) -> list[tuple[Any, ...]]:
        return self.query(
            "SELECT task_name, status::text, attempts FROM pgretrieve_queue.procrastinate_jobs "
            "WHERE task_name = 'build_index' ORDER BY id"
        )

    def indexes(self) -> dict[str, bool]:
        """Those of vectors, and whether they are valid."""
        text = """
            SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            JOIN pg_am a ON a.oid = c.relam JOIN pg_namespace s ON s.oid = c.relnamespace
            WHERE s.nspname = %s AND a.amname = 'hnsw'
        """
        return dict(self.query(text, NAME))

    async def drain(self) -> None:
        await worker.drain(self.url, self.runtime)


@pytest.fixture
async def place(
    fresh_database: Callable[[], str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    monkeypatch.setattr(strategy, "CANDIDATE", 0.01)  # an index costs next to nothing: it is used however few the rows
    url = fresh_database()
    database = sql.Identifier(servers.database_of(url))
    with psycopg.connect(url, autocommit=True) as conn:
        for setting in ("enable_seqscan", "enable_sort"):
            conn.execute(sql.SQL("ALTER DATABASE {} SET {} = off").format(database, sql.Identifier(setting)))
    inference = Inference.from_settings(settings)
    engine = create_engine(url, settings)
    yield Place(url, Runtime(settings, engine, inference))
    await engine.dispose()
    await inference.close()


def random_vectors(count: int, dimension: int) -> Vectors:
    vectors = np.random.default_rng(dimension).standard_normal((count, dimension))
    return vectors.astype(np.float32).astype(np.float64)


def exact_scores(metric: str, vectors: Vectors, query: Vectors) -> dict[str, float]:
    if metric == "cosine":
        scores = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    elif metric == "dot":
        scores = vectors @ query
    else:
        scores = 1 / (1 + np.linalg.norm(vectors - query, axis=1))
    return {f"d{n}": float(score) for n, score in enumerate(scores)}


METHODS = [
    ("hnsw_vector", 3, "cosine"),
    ("hnsw_vector", 64, "dot"),
    ("hnsw_vector", 2000, "euclidean"),
    ("hnsw_halfvec", 2001, "cosine"),
    ("hnsw_halfvec", 3072, "euclidean"),
    ("hnsw_halfvec", 4000, "dot"),
    ("hnsw_binary", 4001, "cosine"),
    ("exact", 4001, "euclidean"),
    ("exact", 16_000, "dot"),
]


@pytest.mark.parametrize(("method", "dimension", "metric"), METHODS)
async def test_a_job_builds_the_index_and_searches_use_it(
    place: Place, method: str, dimension: int, metric: str
) -> None:
    before = await place.promoted(NewVector("v", dimension, metric))
    config = before.by_name["v"]
    assert config.index_method == method
    indexed = method != "exact"
    assert config.index_state == ("building" if indexed else "ready")
    assert place.jobs() == ([("build_index", "todo", 0)] if indexed else [])
    assert config.index_name not in place.indexes()

    vectors = random_vectors(60, dimension)
    query = vectors[7] + 0.1 * random_vectors(1, dimension)[0]
    await place.upsert("v", vectors)
    await place.retriever("v")
    expected = exact_scores(metric, vectors, query)
    best = sorted(expected, key=lambda name: -expected[name])[:5]

    async def check(by_index: bool) -> None:
        found, plan = await place.search(query)
        assert next(iter(found)) == best[0]
        assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-5, abs=1e-6)
        assert len(found) == 5
        assert (config.index_name in plan) is by_index
        if not by_index:
            assert list(found) == best

    await check(by_index=False)
    await place.drain()
    after = await place.catalog()
    assert after.by_name["v"].index_state == "ready"
    assert after.version == before.version + (1 if indexed else 0)
    assert place.indexes().get(config.index_name) is (True if indexed else None)
    assert place.jobs() == ([("build_index", "succeeded", 1)] if indexed else [])
    await check(by_index=indexed)


async def test_what_a_failed_build_left_is_replaced(place: Place) -> None:
    catalog = await place.promoted(NewVector("v", 3))
    name = catalog.by_name["v"].index_name
    await place.upsert("v", random_vectors(10, 3))
    with psycopg.connect(place.url) as writer:
        writer.execute(sql.SQL("DELETE FROM {} WHERE document_id = 'd1'").format(sql.Identifier(NAME, "documents")))
        building = asyncio.create_task(place.drain())
        kill(place.url, *await blocked(place.url, writer.info.backend_pid))  # it waits for writers before it may scan
        await building
    assert place.indexes()[name] is False
    assert await place.states() == {"v": "failed"}
    assert place.jobs() == [("build_index", "todo", 1)]

    with psycopg.connect(place.url, options=f"-c search_path={queue.SCHEMA}") as conn:
        conn.execute("UPDATE procrastinate_jobs SET scheduled_at = now()")  # its pause is over
    await place.drain()
    assert place.indexes()[name] is True
    assert await place.states() == {"v": "ready"}
    assert place.jobs() == [("build_index", "succeeded", 2)]


async def test_two_workers_build_two_indexes_of_one_table_one_after_the_other(place: Place) -> None:
    """At the same time they would end in a deadlock."""
    await place.promoted(NewVector("v", 3), NewVector("w", 3))
    with psycopg.connect(place.url) as writer:
        writer.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(NAME, "documents")))
        building = asyncio.create_task(place.drain())
        await blocked(place.url, writer.info.backend_pid)
        idle = asyncio.create_task(place.drain())
        await until(idle.done)  # there is nothing that it may do
        assert [job[1] for job in place.jobs()] == ["doing", "todo"]
    await asyncio.gather(building, idle)
    assert place.jobs() == [("build_index", "succeeded", 1)] * 2
    assert await place.states() == {"v": "ready", "w": "ready"}


async def test_a_namespace_that_was_deleted_ends_its_job_quietly(place: Place) -> None:
    await place.promoted(NewVector("v", 3))
    async with place.transaction() as conn:
        await namespaces.delete(conn, NAME)
    await place.drain()
    assert place.jobs() == [("build_index", "succeeded", 1)]
    assert place.indexes() == {}


async def test_a_job_exists_if_and_only_if_its_transaction_commits(place: Place) -> None:
    arguments = {"namespace_id": "none", "name": "v"}
    with pytest.raises(ZeroDivisionError):
        async with place.transaction() as conn:
            await queue.defer(conn, "build_index", arguments)
            raise ZeroDivisionError
    assert place.jobs() == []
    async with place.transaction() as conn:
        path = (await conn.exec_driver_sql("SHOW search_path")).scalar_one()
        await queue.defer(conn, "build_index", arguments)
        assert (await conn.exec_driver_sql("SHOW search_path")).scalar_one() == path
        assert place.jobs() == []
    assert place.jobs() == [("build_index", "todo", 0)]


async def test_a_worker_that_runs_takes_jobs_as_they_come(place: Place) -> None:
    async with worker.running(place.url, place.runtime):
        await place.promoted(NewVector("v", 3))
        await until(lambda: not place.jobs())  # those that succeed are deleted
    assert await place.states() == {"v": "ready"}


async def test_a_job_whose_worker_died_is_run_again(place: Place) -> None:
    await place.promoted(NewVector("v", 3))
    with psycopg.connect(place.url) as conn:  # as a worker leaves it that is killed, once its row is gone too
        conn.execute("SET search_path = pgretrieve_queue")
        conn.execute("UPDATE procrastinate_jobs SET status = 'doing', attempts = 1")
    assert await place.states() == {"v": "building"}
    async with worker.running(place.url, place.runtime):
        await until(lambda: not place.jobs())
    assert await place.states() == {"v": "ready"}
