"""Runs SQL stages over rows that a test hands in, which need not be documents, on a real PostgreSQL."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from pgvector.psycopg import register_vector

from app.db.engine import create_engine, transaction
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.errors import Problems
from app.retrieval.catalog import Catalog
from app.retrieval.compiler import compile_plan
from app.retrieval.filters import FilterLimits
from app.retrieval.pipeline import Segment, check_pipeline, parse_pipeline
from app.retrieval.stages.base import Limits
from app.retrieval.templates import fill
from app.settings import Settings

Given = tuple[str, float | None, Mapping[str, Any]]
LIMITS = Limits(stages=20, searches=10, top_k=1_000, filters=FilterLimits(50, 100))


@dataclass(frozen=True, slots=True)
class Found:
    """A row that came out: `fields` as they are after the last stage."""

    rank: int
    document_id: str
    score: float | None
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows in their order, and what each stage told, by its number from 1."""

    rows: list[Found]
    told: dict[int, dict[str, Any]]

    @property
    def ids(self) -> list[str]:
        return [row.document_id for row in self.rows]


@dataclass(frozen=True)
class Stages:
    """A namespace and a connection; called with rows and stages it answers what becomes of them."""

    conn: psycopg.Connection[Any]
    catalog: Catalog

    def __call__(
        self,
        rows: Sequence[Given] | None,
        *stages: tuple[str, Mapping[str, Any]],
        inputs: Mapping[str, Any] | None = None,
    ) -> Answer:
        """`rows` are `(document_id, score, fields)`, in their order; None is the whole namespace."""
        inputs = inputs or {}
        problems = Problems()
        raw = [{"config": {"stage_id": name, "parameters": dict(given)}} for name, given in stages]
        pipeline = parse_pipeline(raw, LIMITS, problems)
        problems.refuse()
        check_pipeline(pipeline, self.catalog, LIMITS, problems)
        problems.refuse()
        plan = compile_plan(
            Segment(0, pipeline.steps),
            self.catalog,
            LIMITS,
            retriever_id=None,
            provided=frozenset(inputs),
            after_host=rows is not None,
        )
        values = {bind.name: bind.convert(fill(bind.value, inputs)) for bind in plan.binds}
        values |= {"page_limit": None, "page_offset": 0}
        if rows is not None:
            # Ranks are unique and ordered; nobody promises that none is left out.
            given = [
                {"document_id": document_id, "score": score, "rank": 2 * n + 1, "fields": fields}
                for n, (document_id, score, fields) in enumerate(rows)
            ]
            values["rows"] = json.dumps(given)
        answered = self.conn.execute(plan.text, values).fetchall()
        told: dict[int, dict[str, Any]] = {}
        for (prefix, key), value in zip(plan.told, json.loads(answered[0][3] or "[]"), strict=True):
            told.setdefault(int(prefix[1:]), {})[key] = value
        found = [
            Found(row[5], row[6], row[7], json.loads(row[4] if row[4] is not None else row[9]))
            for row in answered
            if row[6] is not None
        ]
        return Answer(found, told)


@asynccontextmanager
async def stages_on(
    conninfo: str,
    settings: Settings,
    name: str,
    vectors: Sequence[NewVector] = (),
    stored: Mapping[str, Sequence[Document]] | None = None,
) -> AsyncIterator[Stages]:
    """A standalone namespace with documents, by their collections, for as long as it is needed."""
    engine = create_engine(conninfo, settings)
    try:
        async with transaction(engine, settings) as conn:
            catalog = await namespaces.create_standalone(conn, settings, namespace_id=name, vectors=vectors)
            for collection, items in (stored or {}).items():
                await documents.upsert(conn, catalog, items, settings, collection)
        with psycopg.connect(conninfo, autocommit=True) as driver:
            register_vector(driver)
            yield Stages(driver, catalog)
        async with transaction(engine, settings) as conn:
            await namespaces.delete(conn, name)
    finally:
        await engine.dispose()
