"""Documents in lists: filtered, searched, sorted, page by page; in groups; by ids; and counted."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.documents.hits import Shown, columns, document
from app.retrieval.catalog import Catalog, Fields
from app.retrieval.filters import Filter
from app.retrieval.plan import Binds
from app.retrieval.predicates import FieldAccess, predicate

# Documents that are answered of one group; its count is of all of them.
GROUP_SIZE = 100
JSON_NULL = sa.literal_column("'null'::jsonb", JSONB)


@dataclass(frozen=True, slots=True)
class Sort:
    """By a field's JSON value: of different types in PostgreSQL's order of jsonb, missing and null last either way."""

    field: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class After:
    """The last row that was answered: its id, and the JSON text of what it is sorted by; None where it has none."""

    document_id: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which documents are asked for. `search` is a text that one of the payload's texts must hold, in any case."""

    limit: int
    collections: Sequence[str] = ()
    filters: Filter | None = None
    search: str | None = None
    sort: Sort | None = None
    after: After | None = None
    offset: int = 0
    total: bool = False
    shown: Shown = field(default_factory=Shown)


@dataclass(frozen=True, slots=True)
class Listed:
    """A page: its documents or groups, the places of all of them in the order, and how many there are in all."""

    items: list[dict[str, Any]]
    places: list[After]
    total: int | None = None


def matching(
    catalog: Catalog,
    binds: Binds,
    collections: Sequence[str] = (),
    filters: Filter | None = None,
    search: str | None = None,
) -> list[sa.ColumnElement[bool]]:
    """The conditions on `catalog.documents` that say which documents are meant."""
    documents = catalog.documents
    where: list[sa.ColumnElement[bool]] = []
    if collections:
        names = binds.add("collections", sa.ARRAY(sa.Text), list(map(catalog.collection_id, collections)))
        where.append(documents.c.collection_id == sa.func.any(names))
    if filters is not None:
        where.append(predicate(filters, Fields(documents), binds, "filter"))
    if search:
        path = f'strict $.** ? (@ like_regex {json.dumps(search, ensure_ascii=False)} flag "iq")'
        found = sa.func.jsonb_path_exists(documents.c.payload, binds.add("search", JSONPATH(), path))
        where.append(sa.func.coalesce(found, sa.false(), type_=sa.Boolean()))
    return where


def values_of(binds: Binds) -> dict[str, Any]:
    return {name: bind.convert(bind.value) for name, bind in binds.found.items()}


def json_value(access: FieldAccess, name: str, binds: Binds, hint: str) -> sa.ColumnElement[Any]:
    """The field's JSON value as it stands there; NULL where it is missing or null."""
    target, path = access(name)
    steps = binds.add(f"{hint}_path", sa.ARRAY(sa.Text), list(path))
    return sa.func.nullif(target.op("#>", return_type=JSONB())(steps), JSON_NULL, type_=JSONB())


async def page(conn: AsyncConnection, catalog: Catalog, wanted: Wanted) -> Listed:
    """A page in the order that is asked for; those that tie, and all without one, by their ids."""
    binds, documents = Binds(), catalog.documents
    where = matching(catalog, binds, wanted.collections, wanted.filters, wanted.search)
    order: list[sa.ColumnElement[Any]] = [documents.c.document_id.asc()]
    by: sa.ColumnElement[Any] = sa.null()
    if wanted.sort is not None:
        by = json_value(Fields(documents), wanted.sort.field, binds, "sort")
        order.insert(0, (by.desc() if wanted.sort.descending else by.asc()).nulls_last())
    following = [] if wanted.after is None else [_after(catalog, by, wanted.sort, wanted.after, binds)]
    rows = sa.select(sa.cast(by, sa.Text).label("place"), *columns(catalog, wanted.shown)).where(*where, *following)
    rows = rows.order_by(*order).limit(wanted.limit).offset(wanted.offset)
    found = (await conn.execute(rows, values_of(binds))).all()
    total = None
    if wanted.total:
        total = await count(conn, catalog, wanted.collections, wanted.filters, wanted.search)
    items = [document(row[1:], wanted.shown) for row in found]
    return Listed(items, [After(row[2], row[0]) for row in found], total)


def _after(
    catalog: Catalog, by: sa.ColumnElement[Any], sort: Sort | None, after: After, binds: Binds
) -> sa.ColumnElement[bool]:
    """Whether a row comes after this one."""
    larger_id = catalog.documents.c.document_id > binds.add("after_id", sa.Text(), after.document_id)
    if sort is None:
        return larger_id
    if after.value is None:
        return sa.and_(by.is_(None), larger_id)
    value = binds.add("after_value", JSONB(), after.value)
    further = by.bool_op("<" if sort.descending else ">")(value)
    return sa.or_(further, sa.and_(by.bool_op("=")(value), larger_id), by.is_(None))


async def groups(conn: AsyncConnection, catalog: Catalog, wanted: Wanted, group_by: str) -> Listed:
    """A page of groups of documents that have the same value there, in its order, those without one last.

    The cursor's `value` is a group's; of each group at most `GROUP_SIZE` documents are answered, sorted as asked.
    """
    binds, documents = Binds(), catalog.documents
    where = matching(catalog, binds, wanted.collections, wanted.filters, wanted.search)
    key = json_value(Fields(documents), group_by, binds, "group")
    if wanted.after is not None:
        last = wanted.after.value
        where.append(
            sa.false()
            if last is None
            else sa.or_(key.bool_op(">")(binds.add("after_value", JSONB(), last)), key.is_(None))
        )
    within: list[sa.ColumnElement[Any]] = [documents.c.document_id.asc()]
    if wanted.sort is not None:
        by = json_value(Fields(documents), wanted.sort.field, binds, "sort")
        within.insert(0, (by.desc() if wanted.sort.descending else by.asc()).nulls_last())
    matched = (
        sa.select(
            documents.c.document_id,
            key.label("key"),
            sa.func.dense_rank().over(order_by=key.asc().nulls_last()).label("place"),
            sa.func.row_number().over(partition_by=key, order_by=within).label("nth"),
            sa.func.count().over(partition_by=key).label("size"),
        )
        .where(*where)
        .cte("matched")
    )
    rows = (
        sa.select(matched.c.place, sa.cast(matched.c.key, sa.Text), matched.c.size, *columns(catalog, wanted.shown))
        .join(documents, documents.c.document_id == matched.c.document_id)
        .select_from(matched)
        .where(matched.c.place > wanted.offset, matched.c.place <= wanted.offset + wanted.limit)
        .where(matched.c.nth <= GROUP_SIZE)
        .order_by(matched.c.place, matched.c.nth)
    )
    found = (await conn.execute(rows, values_of(binds))).all()
    items, places = [], []
    for _place, grouped in groupby(found, key=lambda row: row[0]):
        members = list(grouped)
        _, value, size, *_rest = members[0]  # 1 and 1.0 are one group
        shown = [document(row[3:], wanted.shown) for row in members]
        items.append({"group_key": _raw(value), "documents": shown, "count": size})
        places.append(After("", value))
    return Listed(items, places, await _count_groups(conn, catalog, wanted, group_by) if wanted.total else None)


async def _count_groups(conn: AsyncConnection, catalog: Catalog, wanted: Wanted, group_by: str) -> int:
    binds = Binds()
    where = matching(catalog, binds, wanted.collections, wanted.filters, wanted.search)
    key = json_value(Fields(catalog.documents), group_by, binds, "group")
    keys = sa.select(key.label("key")).where(*where).distinct().subquery()
    found: int = (await conn.execute(sa.select(sa.func.count()).select_from(keys), values_of(binds))).scalar_one()
    return found


async def count(
    conn: AsyncConnection,
    catalog: Catalog,
    collections: Sequence[str] = (),
    filters: Filter | None = None,
    search: str | None = None,
) -> int:
    binds = Binds()
    where = matching(catalog, binds, collections, filters, search)
    counted = sa.select(sa.func.count()).select_from(catalog.documents).where(*where)
    found: int = (await conn.execute(counted, values_of(binds))).scalar_one()
    return found


async def by_ids(
    conn: AsyncConnection, catalog: Catalog, document_ids: Sequence[str], shown: Shown
) -> tuple[list[dict[str, Any]], list[str]]:
    """Those documents, in the order of the ids, each once; and the ids that there are none of."""
    wanted = list(dict.fromkeys(document_ids))
    binds = Binds()
    storable = [document_id for document_id in wanted if "\0" not in document_id]
    ids = binds.add("ids", sa.ARRAY(sa.Text), storable)
    rows = sa.select(*columns(catalog, shown)).where(catalog.documents.c.document_id == sa.func.any(ids))
    found = {row[1]: document(row, shown) for row in (await conn.execute(rows, values_of(binds))).all()}
    return [found[i] for i in wanted if i in found], [i for i in wanted if i not in found]


def _raw(value: str | None) -> msgspec.Raw | None:
    return None if value is None else msgspec.Raw(value.encode())
