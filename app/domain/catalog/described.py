"""Namespaces as answers show them: one with its count, or a page of those that are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain.catalog.namespaces import load_catalog
from app.domain.security import access
from app.retrieval.filters import Filter, with_conditions
from app.retrieval.plan import Binds
from app.retrieval.predicates import predicate

# Exact counts above this would make a read of the namespace slow; the statistics' estimate serves there.
COUNT_LIMIT = 100_000
TEXTS = ("namespace_id", "namespace_name", "description", "mode")
TIMES = ("created_at", "updated_at")
SORTABLE = ("namespace_id", "namespace_name", "mode", *TIMES)
FIELDS = (*TEXTS, *TIMES, "dynamic_vector_indexes", "payload_index_count")
COUNTS = ("bucket_count", "collection_count", "object_count", "estimated_documents")
OTHERS = (*COUNTS, "settings", "adopted_from", "vector_configs", "inference_map", "payload_indexes")


@dataclass(frozen=True, slots=True)
class Description:
    """A namespace as answers show it; JSON parts are kept as text."""

    namespace_id: str
    namespace_name: str
    mode: str
    dynamic_vector_indexes: bool
    description: str | None
    settings: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    estimated_documents: int
    vector_configs: str
    inference_map: str
    payload_indexes: str
    payload_index_count: int
    adopted_from: str | None = None
    bucket_count: int = 0
    collection_count: int = 0
    object_count: int = 0
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which namespaces, and in which order; `after` is the last one's value of the order's field, and its id."""

    filters: Filter | None = None
    search: str = ""
    case_sensitive: bool = False
    order: str = "namespace_id"
    descending: bool = False
    after: tuple[Any, str] | None = None


async def describe(conn: AsyncConnection, identifier: str, count_to: int = COUNT_LIMIT) -> Description:
    """The namespace of that id or name, with its documents counted as far as that is quick."""
    catalog = await load_catalog(conn, identifier)
    table = _described()
    row = (await conn.execute(sa.select(table).where(table.c.namespace_id == catalog.namespace_id), _seen())).mappings()
    found = Description(**row.one())
    some = sa.select(sa.literal(1)).select_from(catalog.documents).limit(count_to + 1).subquery()
    count = (await conn.execute(sa.select(sa.func.count()).select_from(some))).scalar_one()
    if count > count_to:
        return replace(found, estimated_documents=max(count, found.estimated_documents))
    return replace(found, estimated_documents=count, counted=True)


async def list_page(conn: AsyncConnection, wanted: Wanted, limit: int) -> tuple[list[Description], int]:
    """At most `limit` of them, and how many there are in all."""
    table = _described()
    binds = Binds()
    where: list[sa.ColumnElement[bool]] = []
    if wanted.filters is not None:
        asked = wanted.filters
        if not wanted.case_sensitive:
            asked = with_conditions(asked, lambda condition: replace(condition, case_insensitive=True))
        where.append(predicate(asked, _Fields(table), binds, "filter"))
    if wanted.search:
        where.append(_found(table, wanted))
    values = {name: bind.convert(bind.value) for name, bind in binds.found.items()} | _seen()
    count = sa.select(sa.func.count()).select_from(table).where(*where)
    total: int = (await conn.execute(count, values)).scalar_one()
    key, tie = table.c[wanted.order], table.c.namespace_id
    page = sa.select(table).where(*where).limit(limit)
    page = page.order_by(key.desc(), tie.desc()) if wanted.descending else page.order_by(key, tie)
    if wanted.after is not None:
        value, last = (sa.literal(part) for part in wanted.after)
        behind, at = sa.tuple_(key, tie), sa.tuple_(value, last)
        page = page.where(behind < at if wanted.descending else behind > at)
    rows = (await conn.execute(page, values)).mappings()
    return [Description(**row) for row in rows], total


def _described() -> sa.Subquery:
    types: dict[str, Any] = dict.fromkeys(TEXTS, sa.Text) | dict.fromkeys(TIMES, sa.TIMESTAMP(timezone=True))
    types |= {"dynamic_vector_indexes": sa.Boolean, "payload_index_count": sa.BigInteger, "settings": JSONB}
    columns = [sa.column(name, types.get(name)) for name in (*FIELDS, *OTHERS)]
    return statement("describe_namespaces").columns(*columns).subquery("n")


def _seen() -> dict[str, Any]:
    return {"visible": access.visible()}


@dataclass(frozen=True, slots=True)
class _Fields:
    """What filters find in a row of the list: one object, and paths into it."""

    table: sa.Subquery

    def __call__(self, field: str) -> tuple[sa.ColumnElement[Any], tuple[str, ...]]:
        pairs = [part for name in FIELDS for part in (sa.literal(name, sa.Text), self.table.c[name])]
        return sa.func.jsonb_build_object(*pairs, type_=JSONB), tuple(field.split("."))


def _found(table: sa.Subquery, wanted: Wanted) -> sa.ColumnElement[bool]:
    """The text anywhere in id, name or description."""
    texts: Sequence[sa.ColumnElement[Any]] = [
        table.c[name] for name in ("namespace_id", "namespace_name", "description")
    ]
    sought: sa.ColumnElement[Any] = sa.literal(wanted.search, sa.Text)
    if not wanted.case_sensitive:
        texts, sought = [sa.func.lower(text) for text in texts], sa.func.lower(sought)
    return sa.or_(*(sa.func.strpos(text, sought) > 0 for text in texts))
