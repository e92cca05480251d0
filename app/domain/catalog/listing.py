"""Pages of buckets, objects and uploads: filtered, searched, in the order of one column, counted when asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.errors import InvalidRequest, Problem
from app.retrieval.filters import Filter, with_conditions
from app.retrieval.plan import Binds
from app.retrieval.predicates import predicate


@dataclass(frozen=True, slots=True)
class Listed:
    """A list: its statement, its columns with their types, which of them tell its rows apart, and which are what.

    `opened` are columns of JSON text. Filters name any column, or what stands in the `root` one where there is one.
    """

    statement: str
    columns: Mapping[str, Any]
    key: str
    sortable: Sequence[str]
    searched: Sequence[str]
    opened: Sequence[str] = ()
    root: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows, and in which order; `after` is the last one's place in it."""

    filters: Filter | None = None
    search: str = ""
    case_sensitive: bool = False
    order: str = "created_at"
    descending: bool = True
    after: tuple[Any, str] | None = None
    binds: Mapping[str, Any] = field(default_factory=dict)


async def list_page(
    conn: AsyncConnection, listed: Listed, wanted: Wanted, limit: int, *, total: bool
) -> tuple[Sequence[RowMapping], int | None]:
    """At most `limit` rows, and how many there are in all where that is asked for."""
    table = statement(listed.statement).columns(*(sa.column(n, t) for n, t in listed.columns.items())).subquery("l")
    binds = Binds()
    where: list[sa.ColumnElement[bool]] = []
    if wanted.filters is not None:
        asked = wanted.filters
        if not wanted.case_sensitive:
            asked = with_conditions(asked, lambda condition: replace(condition, case_insensitive=True))
        where.append(predicate(asked, _Fields(listed, table), binds, "filter"))
    if wanted.search:
        where.append(_found(listed, table, wanted))
    values = {name: bind.convert(bind.value) for name, bind in binds.found.items()} | dict(wanted.binds)
    counted = sa.select(sa.func.count()).select_from(table).where(*where)
    count = (await conn.execute(counted, values)).scalar_one() if total else None
    key, tie = table.c[wanted.order], table.c[listed.key]
    page = sa.select(table).where(*where).limit(limit)
    page = page.order_by(key.desc(), tie.desc()) if wanted.descending else page.order_by(key, tie)
    if wanted.after is not None:
        last = sa.tuple_(sa.literal(wanted.after[0], key.type), sa.literal(wanted.after[1], tie.type))
        behind = sa.tuple_(key, tie)
        page = page.where(behind < last if wanted.descending else behind > last)
    return (await conn.execute(page, values)).mappings().all(), count


@dataclass(frozen=True, slots=True)
class _Fields:
    """What filters find in a row: a column, else a field of the root one; and paths into them."""

    listed: Listed
    table: sa.Subquery

    def __call__(self, field: str) -> tuple[sa.ColumnElement[Any], tuple[str, ...]]:
        first, *path = field.split(".")
        if first in self.listed.columns or self.listed.root is None:
            columns = [part for each in self.listed.columns for part in (sa.literal(each, sa.Text), self._column(each))]
            return sa.func.jsonb_build_object(*columns, type_=JSONB), (first, *path)
        return self._column(self.listed.root), (first, *path)

    def _column(self, name: str) -> sa.ColumnElement[Any]:
        column = self.table.c[name]
        return sa.cast(column, JSONB) if name in self.listed.opened else column


def _found(listed: Listed, table: sa.Subquery, wanted: Wanted) -> sa.ColumnElement[bool]:
    """The text anywhere in one of the columns; in those of JSON text as JSON spells it."""
    spelled = msgspec.json.encode(wanted.search).decode()[1:-1]
    found = []
    for name in listed.searched:
        text: sa.ColumnElement[Any] = table.c[name]
        sought: sa.ColumnElement[Any] = sa.literal(spelled if name in listed.opened else wanted.search, sa.Text)
        if not wanted.case_sensitive:
            text, sought = sa.func.lower(text), sa.func.lower(sought)
        found.append(sa.func.strpos(text, sought) > 0)
    return sa.or_(*found)


def place_of(listed: Listed, row: RowMapping, order: str) -> str:
    """Where a row stands in that order, for a cursor."""
    return msgspec.json.encode([row[order], row[listed.key]]).decode()


def after(listed: Listed, place: str, order: str) -> tuple[Any, str]:
    """That again, from a cursor."""
    is_time = isinstance(listed.columns[order], sa.TIMESTAMP)
    model: Any = tuple[datetime, str] if is_time else tuple[str, str]
    try:
        found: tuple[Any, str] = msgspec.json.decode(place, type=model)
    except msgspec.DecodeError:
        message = "This is no cursor of a list in this order; start again without one."
        raise InvalidRequest([Problem(("body", "cursor"), "bad_cursor", message)]) from None
    return found
