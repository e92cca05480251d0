"""A managed namespace whose index may go to another model: what its tests do with it, and what they expect."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.domain.background import working
from app.domain.catalog import namespaces
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.domain.models import cutting_over, migrating, model_migrations
from app.domain.models.model_migrations import Migration, Wanted
from app.domain.retrieving import execution
from app.domain.retrieving.execution import Execution
from app.domain.runtime import Runtime
from app.retrieval.catalog import Catalog
from app.telemetry import Timings
from tests.fakes import FakeService, fake_vector
from tests.http import feature_search, search

DIMENSION = 8
TITLES = [f"title {n}" for n in range(12)]
RETRIEVER = {"stages": [feature_search(search("text", "{{INPUT.q}}", mode="text"), final_top_k=5)]}


@dataclass
class Place:
    """A managed namespace whose index `text` embeds the field `title` by `old`; `new` has another space."""

    url: str
    runtime: Runtime
    old: FakeService
    new: FakeService
    name: str

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with transaction(self.runtime.engine, self.runtime.settings) as conn:
            yield conn

    async def upsert(self, document_id: str, title: str | None, vector: Any = None) -> None:
        payload = {} if title is None else {"title": title}
        given = Document(document_id, {} if vector is None else {"text": vector}, json.dumps(payload).encode())
        async with self.transaction() as conn:
            catalog = await namespaces.lock_catalog(conn, self.name, exclusive=False)
            await documents.upsert(conn, catalog, [given], self.runtime.settings)

    async def work(self) -> int:
        return await working.do_all(self.runtime, self.name)

    async def start(self, **more: Any) -> str:
        services = {info.name: info for info in self.runtime.inference.infos()}
        async with self.transaction() as conn:
            wanted = Wanted("text", "new", **more)
            return (await model_migrations.start(conn, self.name, wanted, services, "test")).migration_id

    async def ready(self, **more: Any) -> str:
        """A migration that is filled, compared and may be cut over; indexes need no build at this size."""
        migration_id = await self.start(**more)
        await migrating.advance(self.runtime, migration_id)
        self.query("UPDATE pgretrieve.vector_configs SET index_state = 'ready' WHERE namespace_id = %s RETURNING 1")
        await migrating.advance(self.runtime, migration_id)
        assert (await self.find(migration_id)).state == "ready"
        return migration_id

    async def find(self, migration_id: str) -> Migration:
        async with self.transaction() as conn:
            return await model_migrations.find(conn, self.name, migration_id)

    async def catalog(self) -> Catalog:
        async with self.transaction() as conn:
            return await namespaces.load_catalog(conn, self.name)

    async def cut_over(self, migration_id: str, *, force: bool = False) -> Migration:
        async with self.transaction() as conn:
            return await cutting_over.cut_over(conn, self.name, migration_id, "test", force=force)

    async def roll_back(self, migration_id: str) -> Migration:
        async with self.transaction() as conn:
            return await cutting_over.roll_back(conn, self.name, migration_id, "test")

    async def search(self, text: str, runtime: Runtime | None = None) -> list[tuple[str, float]]:
        given = Execution({"q": text})
        found = await execution.run(runtime or self.runtime, self.name, "r", given, Timings())
        return [(hit["document_id"], round(hit["score"], 4)) for hit in found.documents]

    def query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """With `{}` for the table of documents; the namespace's id is the first value of the others."""
        of_documents = "{}" in text
        with psycopg.connect(self.url) as conn:
            found = sql.SQL(text).format(sql.Identifier(self.name, "documents"))
            return conn.execute(found, values if of_documents else (self.name, *values)).fetchall()

    async def vectors(self, document_id: str) -> dict[str, Any]:
        """By service name: of the index and of its shadow."""
        catalog, found = await self.catalog(), {}
        for source in catalog.sources:
            query = sql.SQL("SELECT {}::real[] FROM {} WHERE document_id = %s")
            table = sql.Identifier(self.name, "documents")
            with psycopg.connect(self.url) as conn:
                row = conn.execute(query.format(sql.Identifier(source.column), table), [document_id]).fetchone()
            found[source.service] = row[0] if row else None
        return found

    def expected(self, text: str, space: str) -> list[tuple[str, float]]:
        query = fake_vector(space + text, DIMENSION)
        scores = [
            (f"d{n}", round(float(query @ fake_vector(space + title, DIMENSION)), 4)) for n, title in enumerate(TITLES)
        ]
        return sorted(scores, key=lambda pair: -pair[1])[:5]


def is_made_of(vector: Any, text: str) -> bool:
    return vector is not None and np.allclose(vector, fake_vector(text, DIMENSION), atol=1e-6)


def near(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> bool:
    return [name for name, _ in found] == [name for name, _ in expected] and all(
        abs(one[1] - other[1]) < 1e-3 for one, other in zip(found, expected, strict=True)
    )
