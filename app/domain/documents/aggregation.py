"""Aggregation of documents: groups by fields, dates and ranges, and what is computed of each; and distinct values.

Every value is jsonb: groups and metrics of any type are compared, sorted and answered to the digit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.documents.document_lists import JSON_NULL, json_value, matching, values_of
from app.retrieval.aggregates import EMPTY_LIST, number, simple
from app.retrieval.catalog import Catalog, Fields
from app.retrieval.filters import Filter
from app.retrieval.plan import Binds

Function = Literal["count", "count_distinct", "sum", "avg", "min", "max", "first", "last", "push", "add_to_set"]
DateTrunc = Literal["year", "month", "week", "day", "hour", "minute", "second"]
DatePart = Literal["year", "month", "week", "day", "dayOfWeek", "dayOfYear", "hour", "minute", "second"]
Comparison = Literal["gt", "gte", "lt", "lte", "eq", "ne"]
OPERATORS: Mapping[str, str] = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "eq": "=", "ne": "<>"}
PARTS: Mapping[str, str] = {"dayOfWeek": "dow", "dayOfYear": "doy"}
UTC = sa.literal_column("'UTC'", sa.Text())
DATE = sa.literal_column(r"'^\d{4}-\d{2}-\d{2}'", sa.Text())


@dataclass(frozen=True, slots=True)
class Metric:
    """What is computed of each group, and its name."""

    function: Function
    alias: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """What groups are made by: a field's value, a part of its date, or the range that its number is in."""

    field: str
    alias: str
    date_trunc: DateTrunc | None = None
    date_part: DatePart | None = None
    ranges: Sequence[str] = ()  # boundaries as JSON numbers
    outside: str = "other"


@dataclass(frozen=True, slots=True)
class Having:
    """What a group's metric is compared with, a JSON text; those of another type pass `ne` alone."""

    alias: str
    operator: Comparison
    value: str


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What is asked for. With `unwind`, an array's elements each stand for a document of their own."""

    metrics: Sequence[Metric]
    groups: Sequence[Group] = ()
    collections: Sequence[str] = ()
    filters: Filter | None = None
    having: Sequence[Having] = ()
    unwind: str | None = None
    sort_by: str | None = None
    descending: bool = True
    limit: int = 10_000


@dataclass(frozen=True, slots=True)
class Source:
    """The rows that are aggregated: documents, or elements of an array in them; `order` is that of `first`."""

    relation: sa.FromClause
    fields: Fields
    binds: Binds
    order: Sequence[sa.ColumnElement[Any]]
    unwound: tuple[str, sa.ColumnElement[Any]] | None = None

    def __call__(self, field: str) -> tuple[sa.ColumnElement[Any], tuple[str, ...]]:
        """Where a field is: that which was unwound, and all below it, in the element."""
        if self.unwound is not None:
            name, element = self.unwound
            if field == name or field.startswith(f"{name}."):
                return element, tuple(field[len(name) + 1 :].split(".")) if field != name else ()
        return self.fields(field)

    def value(self, field: str, hint: str) -> sa.ColumnElement[Any]:
        return json_value(self, field, self.binds, hint)


async def aggregate(conn: AsyncConnection, catalog: Catalog, wanted: Aggregation) -> list[dict[str, Any]]:
    """`{"group": {…}, "metrics": {…}}` for each group, in the order that is asked for, else that of the groups."""
    await conn.execute(sa.select(sa.func.set_config("TimeZone", "UTC", True)))
    binds = Binds()
    where = matching(catalog, binds, wanted.collections, wanted.filters)
    source = _source(catalog, wanted.unwind, binds)
    keys = [_key(source, group, f"group_{n}").label(f"g{n}") for n, group in enumerate(wanted.groups)]
    fields = [
        source.value(metric.field, f"field_{n}").label(f"f{n}") if metric.field else sa.null().label(f"f{n}")
        for n, metric in enumerate(wanted.metrics)
    ]
    order = [column.label(f"o{n}") for n, column in enumerate(source.order)]
    rows = sa.select(*keys, *fields, *order).select_from(source.relation).where(*where).cte("rows")
    by = [rows.c[key.name] for key in keys]
    metrics = [_metric(metric, rows, n, len(order)).label(f"m{n}") for n, metric in enumerate(wanted.metrics)]
    found = sa.select(*by, *metrics).select_from(rows).group_by(*by).cte("groups")
    names = {group.alias: found.c[f"g{n}"] for n, group in enumerate(wanted.groups)}
    names |= {metric.alias: found.c[f"m{n}"] for n, metric in enumerate(wanted.metrics)}
    answer = sa.select(*(sa.cast(column, sa.Text) for column in found.c))
    answer = answer.where(*(_having(names[one.alias], one, binds, n) for n, one in enumerate(wanted.having)))
    if wanted.sort_by is not None:
        sort = names[wanted.sort_by]
        answer = answer.order_by((sort.desc() if wanted.descending else sort.asc()).nulls_last())
    answer = answer.order_by(*(found.c[key.name].asc().nulls_last() for key in keys)).limit(wanted.limit)
    stored = (await conn.execute(answer, values_of(binds))).all()
    return [_answer(row, wanted) for row in stored]


def _answer(row: Sequence[str | None], wanted: Aggregation) -> dict[str, Any]:
    values = [None if text is None else msgspec.Raw(text.encode()) for text in row]
    groups, metrics = values[: len(wanted.groups)], values[len(wanted.groups) :]
    return {
        "group": {group.alias: value for group, value in zip(wanted.groups, groups, strict=True)},
        "metrics": {metric.alias: value for metric, value in zip(wanted.metrics, metrics, strict=True)},
    }


def _source(catalog: Catalog, unwind: str | None, binds: Binds) -> Source:
    documents = catalog.documents
    fields, order = Fields(documents), [documents.c.document_id]
    if unwind is None:
        return Source(documents, fields, binds, order)
    element, position = _elements(json_value(fields, unwind, binds, "unwind"))
    relation = documents.join(element.table, sa.true())
    return Source(relation, fields, binds, [*order, position], (unwind, element))


def _elements(value: sa.ColumnElement[Any]) -> tuple[Any, sa.ColumnElement[Any]]:
    """The elements of an array, with their positions; of another value, itself; none of null."""
    array = sa.case((sa.func.jsonb_typeof(value) == "array", value), else_=_as_array(value))
    unwound = sa.func.jsonb_array_elements(array).table_valued(
        sa.column("element", JSONB), with_ordinality="position", name="unwound"
    )
    table = unwound.render_derived()
    return table.c.element, table.c.position


def _as_array(value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.case((value.is_not(None), sa.func.jsonb_build_array(value)))


def _key(source: Source, group: Group, hint: str) -> sa.ColumnElement[Any]:
    value = source.value(group.field, hint)
    if group.ranges:
        return _range(value, group, source.binds, hint)
    if group.date_trunc is not None:
        return sa.func.to_jsonb(sa.func.date_trunc(sa.literal(group.date_trunc, sa.Text), _time(value), UTC))
    if group.date_part is not None:
        part = PARTS.get(group.date_part, group.date_part)
        number = sa.func.floor(sa.func.date_part(sa.literal(part, sa.Text), sa.func.timezone(UTC, _time(value))))
        return sa.func.to_jsonb(sa.cast(number, sa.Integer) + (1 if part == "dow" else 0))
    return value


def _text(value: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    return value.op("#>>", return_type=sa.Text())(sa.literal_column("'{}'::text[]", ARRAY(sa.Text)))


def _time(value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The time that a text means, in UTC where it names no zone; NULL where it means none."""
    text = _text(value)
    valid = sa.func.pg_input_is_valid(text, sa.literal_column("'timestamptz'", sa.Text()))
    is_time = sa.and_(sa.func.jsonb_typeof(value) == "string", text.op("~")(DATE), valid)
    return sa.case((is_time, sa.cast(text, sa.TIMESTAMP(timezone=True))))


def _range(value: sa.ColumnElement[Any], group: Group, binds: Binds, hint: str) -> sa.ColumnElement[Any]:
    """The range that a number is in, its upper boundary included, as `0-10`; the lowest includes both boundaries."""
    amount = number(value)
    bounds = [binds.add(f"{hint}_boundary", sa.Numeric(), boundary) for boundary in group.ranges]
    cases: list[Any] = [(amount.is_(None), sa.null())]
    for n in range(len(bounds) - 1):
        above = amount >= bounds[n] if n == 0 else amount > bounds[n]
        label = binds.add(f"{hint}_range", sa.Text(), f"{group.ranges[n]}-{group.ranges[n + 1]}")
        cases.append((sa.and_(above, amount <= bounds[n + 1]), sa.func.to_jsonb(label)))
    return sa.case(*cases, else_=sa.func.to_jsonb(binds.add(f"{hint}_outside", sa.Text(), group.outside)))


def _metric(metric: Metric, rows: sa.CTE, n: int, orders: int) -> sa.ColumnElement[Any]:
    value = rows.c[f"f{n}"]
    order = [rows.c[f"o{k}"] for k in range(orders)]
    match metric.function:
        case "push":
            pushed = sa.func.jsonb_agg(aggregate_order_by(value, *order))
        case "add_to_set":
            pushed = sa.func.jsonb_agg(aggregate_order_by(value.distinct(), value))
        case function:
            return simple(function, value if metric.field else None, order)
    return sa.func.coalesce(pushed.filter(value.is_not(None)), EMPTY_LIST)


def _having(value: sa.ColumnElement[Any], having: Having, binds: Binds, n: int) -> sa.ColumnElement[bool]:
    """Values of another type are neither greater nor smaller; a metric that is null is not equal to anything."""
    given = binds.add(f"having_{n}", JSONB(), having.value)
    compared = value.bool_op(OPERATORS[having.operator])(given)
    if having.operator in ("eq", "ne"):
        return sa.func.coalesce(compared, having.operator == "ne", type_=sa.Boolean())
    same_type = sa.func.jsonb_typeof(value) == sa.func.jsonb_typeof(given)
    return sa.func.coalesce(sa.and_(same_type, compared), sa.false(), type_=sa.Boolean())


async def distinct(
    conn: AsyncConnection, catalog: Catalog, field: str, collections: Sequence[str], filters: Filter | None, limit: int
) -> list[tuple[msgspec.Raw, int]]:
    """The field's values, those of arrays one by one, and in how many documents each is; the commonest first."""
    binds = Binds()
    where = matching(catalog, binds, collections, filters)
    documents = catalog.documents
    element, _ = _elements(json_value(Fields(documents), field, binds, "field"))
    values = sa.select(element.label("value"), documents.c.document_id).select_from(
        documents.join(element.table, sa.true())
    )
    values = values.where(*where, sa.func.nullif(element, JSON_NULL).is_not(None))
    rows = values.cte("rows")
    many = sa.func.count(rows.c.document_id.distinct())
    answer = sa.select(sa.cast(rows.c.value, sa.Text), many).group_by(rows.c.value)
    answer = answer.order_by(many.desc(), rows.c.value.asc()).limit(limit)
    return [(msgspec.Raw(row[0].encode()), row[1]) for row in (await conn.execute(answer, values_of(binds))).all()]
