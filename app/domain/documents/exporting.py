"""Exports: all documents of a namespace in the order of their ids, page by page, as chunks that files take."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from pgvector import SparseVector, Vector
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db.engine import connection, raw, transaction
from app.domain.catalog.namespaces import load_catalog
from app.moving.rows import Dense, Rows
from app.retrieval.catalog import Catalog, VectorConfig, vector_type
from app.retrieval.plan import render
from app.settings import Settings

# So many documents are a page, fewer where they are large: as many as have this size, and one more at most.
PAGE, PAGE_BYTES = 2_000, 32_000_000
# So many show how large they are, before the rest of a page is fetched.
FIRST_FETCH = 16


@dataclass(frozen=True, slots=True)
class Export:
    """What is exported: documents of these collections (None: all), with these vectors."""

    catalog: Catalog
    configs: Sequence[VectorConfig]
    collections: Sequence[str] | None = None


async def pages(
    engine: AsyncEngine,
    settings: Settings,
    wanted: Export,
    *,
    after: str | None = None,
    page: int = PAGE,
    size: int = PAGE_BYTES,
) -> AsyncIterator[Rows]:
    """Every document once, or those after an id. Each page is a short transaction of its own: nothing is held between
    them, and each document is as it was when its page was read; one that is there all the while is not missed."""
    while True:
        async with transaction(engine, settings) as conn:
            rows = await read_page(conn, wanted, after, page, size)
        if not rows.ids:
            return
        yield rows
        after = rows.ids[-1]


async def snapshot(engine: AsyncEngine, wanted: Export, *, page: int = PAGE) -> AsyncIterator[Rows]:
    """The same of one moment: in one transaction, which keeps vacuum from what is deleted meanwhile."""
    async with connection(engine) as conn:
        await conn.execution_options(isolation_level="REPEATABLE READ")
        after: str | None = None
        while True:
            rows = await read_page(conn, wanted, after, page)
            if not rows.ids:
                return
            yield rows
            after = rows.ids[-1]


async def read_page(
    conn: AsyncConnection, wanted: Export, after: str | None, page: int, size: int = PAGE_BYTES
) -> Rows:
    """The documents that come after this id: none where there are no more."""
    documents = wanted.catalog.documents
    columns: list[sa.ColumnElement[Any]] = [documents.c.document_id, documents.c.collection_id]
    columns += [sa.cast(documents.c[name], sa.Text).label(name) for name in ("payload", "metadata")]
    columns.append(sa.cast(documents.c.acl, sa.Text) if wanted.catalog.has_access_lists else sa.null())
    columns += [_vector(wanted.catalog, documents, config) for config in wanted.configs]
    query = sa.select(*columns).order_by(documents.c.document_id).limit(sa.bindparam("page", type_=sa.BigInteger))
    binds: dict[str, Any] = {"page": page}
    if after is not None:
        query = query.where(documents.c.document_id > sa.cast(sa.bindparam("after"), sa.Text))
        binds["after"] = after
    if wanted.collections is not None:
        allowed = sa.cast(sa.bindparam("collections"), ARRAY(sa.Text))
        query = query.where(documents.c.collection_id == sa.func.any(allowed))
        binds["collections"] = list(wanted.collections)
    found = await _fetched(conn, render(query), binds, page, size)
    columns_of = list(zip(*found, strict=True)) or [()] * (5 + len(wanted.configs))
    ids, collections, payloads, metadata, acls, *vectors = map(list, columns_of)
    made = {c.name: _column(values, c) for c, values in zip(wanted.configs, vectors, strict=True)}
    numbers = list(range(1, len(ids) + 1))
    lists = [None if acl is None else acl.encode() for acl in acls]
    return Rows(len(ids), numbers, ids, collections, _encoded(payloads), _encoded(metadata), made, acls=lists)


async def _fetched(
    conn: AsyncConnection, text: str, binds: dict[str, Any], page: int, size: int
) -> list[tuple[Any, ...]]:
    """The first rows, as many as the page and its size allow; fetched by what those before them took."""
    found: list[tuple[Any, ...]] = []
    taken, wanted = 0, FIRST_FETCH
    async with (await raw(conn)).cursor("pgretrieve_page") as cursor:
        await cursor.execute(text, binds, binary=True)
        while taken < size and (rows := await cursor.fetchmany(min(wanted, page - len(found)))):
            found += rows
            taken += sum(map(_size, rows))
            wanted = max(1, (size - taken) * len(found) // max(taken, 1))
            if len(found) == page:
                break
    return found


def _size(row: tuple[Any, ...]) -> int:
    return sum(len(value) if isinstance(value, str) else _bytes(value) for value in row)


def _bytes(vector: Any) -> int:
    if isinstance(vector, list):
        return sum(map(_bytes, vector))
    if isinstance(vector, SparseVector):
        return 8 * len(vector.indices())
    return 0 if vector is None else int(vector.to_numpy().nbytes)


def _encoded(texts: list[str]) -> list[bytes]:
    return [text.encode() for text in texts]


def _vector(catalog: Catalog, documents: sa.FromClause, config: VectorConfig) -> sa.ColumnElement[Any]:
    if config.kind != "multi":
        return documents.c[config.column]
    side = catalog.side(config)
    every = sa.func.array_agg(aggregate_order_by(side.c.vector, side.c.position), type_=ARRAY(vector_type(config)))
    return sa.select(every).where(side.c.document_id == documents.c.document_id).scalar_subquery().label(config.column)


def _column(values: list[Any], config: VectorConfig) -> Dense | list[Any]:
    if config.kind == "dense":
        present = np.array([value is not None for value in values], bool)
        matrix = np.zeros((len(values), config.dimension), np.float32)
        if present.any():
            matrix[present] = np.stack([value.to_numpy() for value in values if value is not None])
        return Dense(matrix, present)
    return [None if value is None else _plain(value) for value in values]


def _plain(value: SparseVector | list[Vector]) -> Any:
    """As the API answers it."""
    if isinstance(value, SparseVector):
        return {"indices": value.indices(), "values": value.values()}
    return [vector.to_list() for vector in value]


async def wanted_of(
    conn: AsyncConnection, identifier: str, collections: Sequence[str] | None = None, *, vectors: bool = True
) -> Export:
    """The namespace as it is to be exported."""
    catalog = await load_catalog(conn, identifier)
    named = None if collections is None else [catalog.collection_id(name) for name in collections]
    return Export(catalog, catalog.vector_configs if vectors else (), named)
