"""A namespace whose vector indexes are built by jobs, in a database whose planner uses an index wherever one serves."""

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
from app.domain.background import tasks
from app.domain.background.tasks import Task, Wanted
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.domain.promoting import promotion
from app.domain.promoting.promotion import Promotion
from app.domain.retrieving import execution, retrievers
from app.domain.retrieving.execution import Execution, Outcome
from app.domain.runtime import Runtime
from app.inference.registry import Inference
from app.jobs import queue, worker
from app.retrieval import strategy
from app.retrieval.catalog import Catalog
from app.settings import Settings
from app.telemetry import Timings
from tests import servers
from tests.http import feature_search, search

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

    async def task(self) -> Task:
        """The newest one."""
        async with self.transaction() as conn:
            found, _ = await tasks.list_page(conn, Wanted(), 1, total=False)
        return found[0]

    def loose(self) -> list[str]:
        return [name for (name,) in self.query("SELECT index_name FROM pgretrieve.loose_indexes ORDER BY 1")]

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

    async def again(self) -> None:
        """The same, once the pauses after failures are over."""
        with psycopg.connect(self.url, options=f"-c search_path={queue.SCHEMA}") as conn:
            conn.execute("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE scheduled_at > now()")
        await self.drain()


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
