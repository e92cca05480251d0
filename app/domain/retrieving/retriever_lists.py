"""Lists of retrievers: searched, filtered by any stored field, sorted, and walked page by page."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.retrieving.retrievers import Retriever, from_row
from app.errors import Problems
from app.retrieval.filter_parser import parse_filter
from app.retrieval.filters import Filter, FilterLimits
from app.retrieval.plan import Binds
from app.retrieval.predicates import predicate
from app.retrieval.templates import is_templated, lift

# The operators of MongoDB that the public API shows for this list, as those of our filters.
MONGO = {f"${name}": name for name in ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "exists", "regex")}
SEARCHED = ("retriever_id", "retriever_name", "description", "tags")

_table = sa.table(
    "retrievers",
    sa.column("retriever_id", sa.Text),
    sa.column("retriever_name", sa.Text),
    sa.column("namespace_id", sa.Text),
    sa.column("version", sa.Integer),
    sa.column("definition", JSONB),
    sa.column("created_at", sa.TIMESTAMP(timezone=True)),
    sa.column("updated_at", sa.TIMESTAMP(timezone=True)),
    schema="pgretrieve",
)
_column = _table.c


def _as_document() -> sa.ColumnElement[Any]:
    """A retriever as its answers show it, for filters and orders."""
    names = ("retriever_id", "retriever_name", "version", "created_at", "updated_at")
    pairs = [part for name in names for part in (sa.literal(name), _column[name])]
    collections = _column.definition["collection_identifiers"]
    own = sa.func.jsonb_build_object(*pairs, sa.literal("collection_ids"), collections, type_=JSONB)
    return _column.definition.op("||")(own)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which retrievers, in which order: `(field, descending)`."""

    search: str | None = None
    filters: Filter | None = None
    order: tuple[tuple[str, bool], ...] = ()
    case_sensitive: bool = False


def parse_filters(raw: Any, problems: Problems, limits: FilterLimits) -> Filter | None:
    """Filters in our languages, or with operators like `{"collection_ids": {"$in": […]}}`."""
    here, before = ("body", "filters"), len(problems.found)
    found = parse_filter(_from_mongo(raw, limits.depth), here, problems, limits, templated=False)
    if len(problems.found) == before and is_templated(lift(raw, here, problems)):
        problems.add(here, "bad_filter", "The filters of a list take no templates.")
    return found


def _from_mongo(raw: Any, depth: int) -> Any:
    if depth == 0 or not isinstance(raw, dict | list):
        return raw
    if isinstance(raw, list):
        return [_from_mongo(item, depth - 1) for item in raw]
    conditions: list[Any] = []
    rest: dict[str, Any] = {}
    for field, asked in raw.items():
        if isinstance(asked, dict) and asked and asked.keys() <= MONGO.keys():
            conditions += [{"field": field, "operator": MONGO[name], "value": value} for name, value in asked.items()]
        else:
            rest[field] = _from_mongo(asked, depth - 1) if field in ("AND", "OR", "NOT") else asked
    return {"AND": [*conditions, *([rest] if rest else [])]} if conditions else rest


async def find_all(
    conn: AsyncConnection, namespace_id: str, wanted: Wanted, *, after: tuple[int, str] | None, limit: int
) -> tuple[list[tuple[int, Retriever]], int]:
    """A page of retrievers, each with its place in the order, and how many there are in all.

    `after` is the place and id of the one before the page. Where that is gone, its place says where it was.
    """
    binds = Binds()
    where = _where(namespace_id, wanted, binds)
    keys = [_order(field, descending) for field, descending in wanted.order]
    place = sa.func.row_number().over(order_by=[*keys, _column.retriever_id]).label("place")
    columns = [_column[c.name] for c in _column if c.name != "definition"]
    found = sa.select(*columns, sa.cast(_column.definition, sa.Text).label("definition"), place).where(*where).cte("f")
    page = sa.select(found).order_by(found.c.place).limit(limit)
    if after is not None:
        named = sa.select(found.c.place).where(found.c.retriever_id == after[1]).scalar_subquery()
        page = page.where(found.c.place > sa.func.coalesce(named, after[0] - 1))
    values = {name: bind.convert(bind.value) for name, bind in binds.found.items()}
    rows = (await conn.execute(page, values)).mappings().all()
    total = (await conn.execute(sa.select(sa.func.count()).select_from(_table).where(*where), values)).scalar_one()
    return [(row["place"], from_row({k: v for k, v in row.items() if k != "place"})) for row in rows], total


def _where(namespace_id: str, wanted: Wanted, binds: Binds) -> list[sa.ColumnElement[bool]]:
    where: list[sa.ColumnElement[bool]] = [_column.namespace_id == namespace_id]
    document = _as_document()
    if wanted.search:
        texts = [document.op("->>", return_type=sa.Text())(sa.literal(name)) for name in SEARCHED]
        contains = [
            text.contains(wanted.search, autoescape=True)
            if wanted.case_sensitive
            else text.icontains(wanted.search, autoescape=True)
            for text in texts
        ]
        where.append(sa.or_(*contains))
    if wanted.filters is not None:
        where.append(predicate(wanted.filters, lambda field: (document, tuple(field.split("."))), binds, "filter"))
    return where


def _order(field: str, descending: bool) -> sa.ColumnElement[Any]:
    path = sa.cast(sa.literal(field.split("."), sa.ARRAY(sa.Text)), sa.ARRAY(sa.Text))
    value = _as_document().op("#>")(path)
    return value.desc().nulls_last() if descending else value.asc().nulls_last()
