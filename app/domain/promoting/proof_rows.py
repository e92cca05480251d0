"""The rows that a proof is made from: stored vectors drawn at random, and payload fields that they may come from."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain.documents import sources
from app.inference.base import Vectors
from app.retrieval.catalog import Catalog, VectorConfig
from app.settings import Settings

# Pages that are drawn first, then where these had too few rows: 640 pages (5 MB) hold 64 rows of one page each
# ten times over. The last are half a gigabyte, which is read only where such rows are rare.
PAGES = (640, 6_400, 64_000)
# Of an adopted table.
FIRST = 100_000
PILOT = 12
"""Rows by which fields and readings are chosen: fewer than that and chance agrees to 0.2 now and then."""
MAX_FIELDS = 6
MAX_DEPTH = 4
# Not what a text model is given: addresses, encoded files, ids.
NOT_PROSE = re.compile(r"(?:[a-z][a-z0-9+.-]*://|data:)\S*|[0-9a-f-]{16,}|\S*\d\S*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows of an index: vectors of the shape (n, d), and for each field that may be their source its texts."""

    config: VectorConfig
    vectors: Vectors
    texts: Mapping[str, Sequence[str | None]]
    given: bool
    """Whether the caller said which field it is."""


async def draw(
    conn: AsyncConnection, catalog: Catalog, config: VectorConfig, source_field: str | None, settings: Settings
) -> Drawn:
    """Up to `proof_rows` rows that have this vector and, where it is given, a text in the source field.

    Drawn by blocks of the table, then one by one among these, so that a million rows cost what ten thousand do.
    """
    ids = await _draw_ids(conn, catalog, config, source_field, settings)
    fields = [source_field] if source_field is not None else await _find_fields(conn, catalog, ids[:PILOT])
    documents = catalog.documents
    # Past the column's type, which would make lists of numbers.
    columns: list[sa.ColumnElement[Any]] = [sa.type_coerce(documents.c[config.column], sa.types.NULLTYPE)]
    columns += [_text(documents, field, settings.max_text_chars) for field in fields]
    query = sa.select(*columns).where(documents.c.document_id == sa.func.any(sa.cast(ids, ARRAY(sa.Text))))
    rows = (await conn.execute(query.where(documents.c[config.column].is_not(None)))).all()
    vectors = np.array([row[0].to_numpy() for row in rows], np.float32).reshape(len(rows), config.dimension)
    texts = {field: [row[n] for row in rows] for n, field in enumerate(fields, start=1)}
    return Drawn(config, vectors, texts, source_field is not None)


async def _draw_ids(
    conn: AsyncConnection, catalog: Catalog, config: VectorConfig, source_field: str | None, settings: Settings
) -> list[str]:
    if catalog.adopted is not None:
        return await _draw_adopted(conn, catalog, config, source_field, settings)
    relation = {"schema": catalog.schema, "relation": catalog.relation.name}
    pages = (await conn.execute(statement("count_pages"), relation)).scalar_one()
    ids: list[str] = []
    for wanted in PAGES:
        whole = pages <= 2 * wanted
        percent = sa.literal(100 if whole else 100 * wanted / pages, sa.REAL)
        drawn = sa.tablesample(catalog.relation, sa.func.system(percent), name="d")
        query = sa.select(drawn.c.document_id).where(drawn.c[config.column].is_not(None))
        if source_field is not None:
            query = query.where(_text(drawn, source_field, 1).is_not(None))
        query = query.order_by(sa.func.random()).limit(settings.proof_rows)
        ids = list((await conn.execute(query)).scalars())
        if whole or len(ids) == settings.proof_rows:
            break
    return ids


async def _draw_adopted(
    conn: AsyncConnection, catalog: Catalog, config: VectorConfig, source_field: str | None, settings: Settings
) -> list[str]:
    """A view has no blocks to draw by: at random among the rows that PostgreSQL finds first."""
    documents = catalog.documents
    first = sa.select(documents.c.document_id).where(documents.c[config.column].is_not(None))
    if source_field is not None:
        first = first.where(_text(documents, source_field, 1).is_not(None))
    rows = first.limit(FIRST).subquery("first")
    query = sa.select(rows.c.document_id).order_by(sa.func.random()).limit(settings.proof_rows)
    return list((await conn.execute(query)).scalars())


def _text(documents: sa.FromClause, field: str, longest: int) -> sa.ColumnElement[str | None]:
    """What a service would embed of that field, its first characters; null where that is nothing."""
    return sa.func.left(sources.text_of(documents.c.payload, sa.literal(field, sa.Text)), longest)


async def _find_fields(conn: AsyncConnection, catalog: Catalog, ids: Sequence[str]) -> list[str]:
    documents = catalog.documents
    query = sa.select(documents.c.payload).where(documents.c.document_id == sa.func.any(sa.cast(ids, ARRAY(sa.Text))))
    return prose_fields([payload async for payload in await conn.stream_scalars(query)])


def prose_fields(payloads: Sequence[Any]) -> list[str]:
    """The dotted paths of what may be prose in most of these payloads, the longest first, at most `MAX_FIELDS`."""
    texts: dict[str, list[str]] = {}
    for payload in payloads:
        for path, text in _strings(payload, ()):
            texts.setdefault(path, []).append(text)
    found = [
        path
        for path, values in texts.items()
        # Labels repeat, and tell nothing of the row that they stand in.
        if 2 * len(values) >= len(payloads) and 2 * len(Counter(values)) > len(values)
    ]
    found.sort(key=lambda path: (-sum(map(len, texts[path])) / len(texts[path]), path))
    return found[:MAX_FIELDS]


def _strings(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Texts below objects with their dotted paths; a key with a dot in it has none."""
    if isinstance(value, str):
        if path and re.search(r"[^\W\d_]", value) and not NOT_PROSE.fullmatch(value.strip()):
            yield ".".join(path), value
    elif isinstance(value, dict) and len(path) < MAX_DEPTH:
        for key, inner in value.items():
            if key and "." not in key:
                yield from _strings(inner, (*path, key))
