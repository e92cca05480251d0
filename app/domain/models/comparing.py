"""Comparing two models on the same queries: sampled from executions while a migration compares, or given and judged.

Both columns are searched exactly. A column is of one model all along, so a cut-over meanwhile changes nothing here.
"""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import as_json, statement
from app.domain.documents import sources
from app.domain.inference.embedding import embed
from app.domain.inference.services import refresh_for
from app.domain.models.model_migrations import DEPTH, Migration, hash_of
from app.domain.runtime import Runtime
from app.errors import Unavailable
from app.retrieval.catalog import Catalog, VectorConfig, vector_type
from app.retrieval.plan import Plan
from app.retrieval.templates import fill
from app.retrieval.vectors import Vector, distance

log = logging.getLogger(__name__)
BATCH = 16


async def sample(runtime: Runtime, catalog: Catalog, plan: Plan, inputs: Mapping[str, Any]) -> None:
    """Keep the texts of an execution whose indexes are being compared. An execution never fails for this."""
    texts = [embed for embed in plan.embeds if embed.mode == "text"]
    wanted = {embed.bind: embed.index for embed in texts if embed.index in catalog.compared}
    given = [(wanted[bind.name], fill(bind.value, inputs)) for bind in plan.binds if bind.name in wanted]
    most = runtime.settings.migration_queries
    for index, text in given:
        if not isinstance(text, str) or not text.strip():
            continue
        key = (catalog.namespace_id, index, catalog.version, hash_of(text))
        if runtime.sampled.get(key):
            continue
        binds = {"namespace_id": catalog.namespace_id, "index_name": index, "query": text, "most": most}
        try:
            async with transaction(runtime.engine, runtime.settings) as conn:
                await conn.execute(statement("sample_query"), {**binds, "query_hash": key[-1]})
            runtime.sampled.put(key, True)
        except (SQLAlchemyError, Unavailable) as error:
            log.warning("a query of %s is not sampled: %s", catalog.namespace_id, type(error).__name__)


async def compare(runtime: Runtime, catalog: Catalog, migration: Migration) -> int:
    """Answer a batch of the queries that are not compared yet by both models; how many they were."""
    binds = {"migration_id": migration.migration_id, "limit": BATCH}
    async with transaction(runtime.engine, runtime.settings) as conn:
        rows = (await conn.execute(statement("queries_to_compare"), binds)).all()
    if not rows:
        return 0
    old, new = columns(catalog, migration)
    texts = [row.query for row in rows]
    before = await _answers(runtime, catalog, old, migration.from_service, texts)
    after = await _answers(runtime, catalog, new, migration.to_service, texts)
    compared = [
        {
            "query_hash": row.query_hash,
            "overlap": overlap(old_ids, new_ids) if before else None,
            "ndcg_before": ndcg(old_ids, row.relevant_ids) if before and row.relevant_ids else None,
            "ndcg_after": ndcg(new_ids, row.relevant_ids) if row.relevant_ids else None,
        }
        for row, old_ids, new_ids in zip(rows, before or [[]] * len(rows), after or [], strict=True)
    ]
    async with transaction(runtime.engine, runtime.settings) as conn:
        binds = {"migration_id": migration.migration_id, "compared": as_json(compared)}
        await conn.execute(statement("note_comparison"), binds)
    return len(rows)


def columns(catalog: Catalog, migration: Migration) -> tuple[VectorConfig, VectorConfig]:
    """The configs that have the old model's column and the new one's."""
    index = catalog.by_name[migration.index]
    shadow = next(config for config in catalog.shadows if config.name == migration.shadow)
    return (index, shadow) if migration.new_is_shadow else (shadow, index)


async def _answers(
    runtime: Runtime, catalog: Catalog, config: VectorConfig, service: str | None, texts: Sequence[str]
) -> list[list[str]] | None:
    """The nearest documents of each text; None where no service embeds it."""
    if service is None:
        return None
    await refresh_for(runtime, [service])
    vectors = (await embed(runtime, service, texts, "query")).vectors
    async with transaction(runtime.engine, runtime.settings) as conn:
        return [await _nearest(conn, catalog, config, vector) for vector in vectors]


async def _nearest(conn: AsyncConnection, catalog: Catalog, config: VectorConfig, vector: Vector) -> list[str]:
    documents = catalog.documents
    column = documents.c[config.column]
    query = sa.cast(sa.bindparam("query", vector, vector_type(config)), vector_type(config))
    found = sa.select(documents.c.document_id).where(column.is_not(None))
    # + 0 keeps the index out.
    exact = distance(config.metric, column, query) + sa.literal_column("0")
    found = found.order_by(exact, documents.c.document_id).limit(DEPTH)
    return list((await conn.execute(found)).scalars())


def overlap(old: Collection[str], new: Collection[str]) -> float:
    """The share of the longer list that is in both; of two empty ones all."""
    most = max(len(old), len(new))
    return len(set(old) & set(new)) / most if most else 1.0


def ndcg(found: Sequence[str], relevant: Collection[str]) -> float:
    """Of documents that are relevant or not."""
    wanted = set(relevant)
    gain = sum(1 / math.log2(rank + 1) for rank, one in enumerate(found, start=1) if one in wanted)
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(wanted), DEPTH) + 1))
    return gain / best if best else 0.0


async def measure(conn: AsyncConnection, catalog: Catalog, migration: Migration) -> dict[str, Any]:
    """What the gate looks at: comparisons so far, and how many documents have which vector. Reads every document."""
    row = (await conn.execute(statement("summarize_comparisons"), {"migration_id": migration.migration_id})).one()
    documents = catalog.documents.c
    old, new = (documents[config.column] for config in columns(catalog, migration))
    source = sources.text_of(documents.payload, sa.bindparam("field", migration.source_field, sa.Text))
    of_callers = sa.not_(
        documents.provenance.op("?", return_type=sa.Boolean())(sa.bindparam("made", old.name, sa.Text))
    )
    counted = sa.select(
        sa.func.count().label("documents"),
        sa.func.count().filter(old.is_not(None)).label("with_old"),
        sa.func.count().filter(new.is_not(None)).label("with_new"),
        sa.func.count().filter(old.is_not(None) & new.is_not(None)).label("with_both"),
        sa.func.count().filter(new.is_(None) & source.is_(None)).label("without_source"),
        sa.func.count().filter(old.is_not(None) & of_callers).label("old_by_callers"),
    ).select_from(catalog.documents)
    found = dict((await conn.execute(counted)).mappings().one())
    with_old = found["with_old"]
    coverage = found["with_both"] / with_old if with_old else 1.0
    rounded = {name: value if value is None else round(value, 4) for name, value in row._mapping.items()}
    return {**found, "coverage": round(coverage, 4), **rounded, "depth": DEPTH}
