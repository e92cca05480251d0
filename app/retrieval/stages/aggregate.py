"""Computes statistics of the rows, in all or for each group."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

from app.retrieval.aggregates import (
    EMPTY_LIST,
    correlation,
    nth,
    number,
    percentile,
    simple,
    stddev,
    variance,
)
from app.retrieval.plan import constant
from app.retrieval.stages.base import Check, Lowering, SqlStage, StageType

Simple = Literal["count", "count_distinct", "sum", "avg", "min", "max", "first", "last"]
Statistic = Literal["percentile", "stddev", "variance", "correlation"]
# Answered as a list of values.
Listing = Literal["collect", "collect_distinct", "frequency", "co_occurrence"]
Function = Literal[Simple, Statistic, Listing]

MOST_AGGREGATIONS = 50
MOST_KEYS = 10
MOST_GROUPS = 1_000
# What `collect` and `collect_distinct` list of a group.
MOST_VALUES = 1_000

# The names in the answer.
GROUP = sa.literal_column("'group'", sa.Text())
METRICS = sa.literal_column("'metrics'", sa.Text())
VALUE = sa.literal_column("'value'", sa.Text())
VALUE_B = sa.literal_column("'value_b'", sa.Text())
COUNT = sa.literal_column("'count'", sa.Text())


class Aggregation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A function of a field (of two fields: `field_b`), answered under `alias`."""

    function: Function
    alias: str
    field: str | None = None
    field_b: str | None = None
    percentile_value: float | None = None
    top_k: int | None = None

    @property
    def pairs(self) -> bool:
        return self.function in ("co_occurrence", "correlation")


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A field that groups are made by; its name in the answer is the last part of its path unless `alias` says."""

    field: str
    alias: str | None = None

    @property
    def name(self) -> str:
        return self.alias or self.field.rsplit(".", 1)[-1]


class Aggregate(SqlStage, frozen=True, kw_only=True):
    """Compute statistics of the documents that came this far, in all or for each group.

    They are answered in this stage's metadata: `aggregations` is a list of `{"group": {…}, "metrics": {…}}`, without
    `group_by` of one entry, and `group_count` the number of groups. The documents themselves go on only with
    `include_documents`.

    Functions: `count` (of documents; with a `field`, of those that have it), `count_distinct`, `sum` (0 of nothing),
    `avg`, `min`, `max`, `first` and `last` (in the order of the documents), `collect` and `collect_distinct` (1,000
    values at most, in that order), `percentile` (`percentile_value`, 50 unless given, interpolated), `stddev` and
    `variance` (of a sample, n - 1), `frequency` (the `top_k` commonest values, 10 unless given, as
    `{"value", "count"}`), `co_occurrence` (the commonest pairs of `field` and `field_b`, as
    `{"value", "value_b", "count"}`), `correlation` (Pearson's r of two fields).

    Missing values and nulls do not count; functions of numbers skip what is no number. `min` and `max` compare
    numbers, texts and other JSON by PostgreSQL's order of jsonb. An array is one value: unwind it first to count its
    elements. Documents without a `group_by` field are a group of their own, whose key is null.

    Groups come in the order of their first documents, or by `sort_by` (an alias, nulls last), `limit` of them (1,000
    at most). Of what is equally common, what came first is first.
    """

    stage_id: ClassVar[str] = "aggregate"
    stage_type: ClassVar[StageType] = "reduce"
    category: ClassVar[str] = "reduce"
    icon: ClassVar[str] = "sigma"
    use_cases: ClassVar[tuple[str, ...]] = ("How many results there are of each category", "The range of prices found")
    example: ClassVar[dict[str, Any]] = {
        "aggregations": [
            {"function": "count", "alias": "total"},
            {"function": "avg", "field": "price", "alias": "average_price"},
        ],
        "group_by": [{"field": "category"}],
        "sort_by": "total",
        "include_documents": True,
    }

    aggregations: list[Aggregation]
    group_by: list[Key] | None = None
    sort_by: str | None = None
    sort_order: Literal["asc", "desc"] = "desc"
    limit: int | None = None
    include_documents: bool = False

    @property
    def keys(self) -> Sequence[Key]:
        return self.group_by or ()

    @property
    def sort(self) -> str | None:
        """The official client's model writes the text "null" where nothing was given."""
        return None if self.sort_by == "null" and "null" not in self._names() else self.sort_by

    def _names(self) -> list[str]:
        return [*(key.name for key in self.keys), *(each.alias for each in self.aggregations)]

    def check(self, check: Check) -> None:
        for name, items, least, most in (
            ("aggregations", self.aggregations, 1, MOST_AGGREGATIONS),
            ("group_by", self.keys, 0, MOST_KEYS),
        ):
            if not least <= len(items) <= most:
                check.add("out_of_range", f"There are {least} to {most} {name}, not {len(items)}.", name)
        check.range("limit", self.limit, 1, MOST_GROUPS)
        for n, each in enumerate(self.aggregations):
            _check_aggregation(check, n, each)
        for n, key in enumerate(self.keys):
            check.field("field", key.field, "group_by", n, "field")
            _check_name(check, key.name, "group_by", n)
        names = self._names()
        for name in sorted({name for name in names if names.count(name) > 1}):
            check.add("duplicate_name", f"The alias {name!r} is given more than once.", "aggregations")
        if self.sort is not None and self.sort not in names:
            check.add("bad_parameter", f"sort_by is one of the aliases: {', '.join(names)}.", "sort_by")

    def most_rows(self) -> int | None:
        return None if self.include_documents else 0

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        rows = to.rows(source)
        values = self._values(rows.source, to)
        groups = self._groups(values, to)
        to.tell("aggregations", self._answer(groups, to))
        to.tell("group_count", sa.select(sa.func.to_jsonb(sa.func.count())).select_from(groups).scalar_subquery())
        kept = rows.select(documents=False)
        return kept if self.include_documents else kept.where(sa.false())

    def _values(self, source: sa.CTE, to: Lowering) -> sa.CTE:
        """For each row its group's number, its keys `g…`, and what each aggregation reads of it: `f…` and `h…`."""
        rows = to.rows(source)
        keys = [rows.value(key.field, f"group_{n}").label(f"g{n}") for n, key in enumerate(self.keys, start=1)]
        fields = []
        for n, each in enumerate(self.aggregations, start=1):
            named = [("f", each.field), ("h", each.field_b)]
            for letter, field in named:
                if field is not None:
                    value = rows.value(field, f"field_{n}")
                    value = number(value) if each.function == "correlation" else value
                    fields.append(value.label(f"{letter}{n}"))
        found = sa.select(rows.rank, *keys, *fields).select_from(rows.joined).cte(f"{to.prefix}_values")
        by = [found.c[key.name].asc().nulls_last() for key in keys]
        group = sa.func.dense_rank().over(order_by=by) if by else constant(1)
        return sa.select(*found.c, group.label("place")).cte(f"{to.prefix}_places")

    def _groups(self, values: sa.CTE, to: Lowering) -> sa.CTE:
        """For each group its first row's rank, its keys and metrics; without `group_by` one group, even of no rows."""
        place = values.c.place if self.keys else constant(1)
        first = sa.func.min(values.c.rank).label("first")
        keys = [nth(values.c[f"g{n}"], [values.c.rank]).label(f"g{n}") for n in range(1, len(self.keys) + 1)]
        metrics, listed = [], {}
        for n, each in enumerate(self.aggregations, start=1):
            if each.function in get_args(Listing):
                listed[n] = _listed(each, values, n, to)
            else:
                metrics.append(_metric(each, values, n).label(f"m{n}"))
        found = sa.select(place.label("place"), first, *keys, *metrics)
        found = found.select_from(values).group_by(*([place] if self.keys else []))
        groups = found.cte(f"{to.prefix}_groups")
        joined: sa.FromClause = groups
        lists = []
        for n, cte in listed.items():
            joined = joined.outerjoin(cte, cte.c.place == groups.c.place)
            lists.append(sa.func.coalesce(cte.c.found, EMPTY_LIST, type_=JSONB).label(f"m{n}"))
        return sa.select(*groups.c, *lists).select_from(joined).cte(f"{to.prefix}_metrics") if lists else groups

    def _answer(self, groups: sa.CTE, to: Lowering) -> sa.ColumnElement[Any]:
        columns = {key.name: groups.c[f"g{n}"] for n, key in enumerate(self.keys, start=1)}
        metrics = {each.alias: groups.c[f"m{n}"] for n, each in enumerate(self.aggregations, start=1)}
        order: list[sa.ColumnElement[Any]] = [groups.c.first]
        if self.sort is not None:
            by = (columns | metrics)[self.sort]
            order.insert(0, (by.asc() if self.sort_order == "asc" else by.desc()).nulls_last())
        entry = _object({GROUP: _named(columns, to), METRICS: _named(metrics, to)})
        place = sa.func.row_number().over(order_by=order).label("place")
        entries = sa.select(entry.label("entry"), place).select_from(groups).subquery("entries")
        listed = sa.func.jsonb_agg(aggregate_order_by(entries.c.entry, entries.c.place))
        kept = sa.select(sa.func.coalesce(listed, EMPTY_LIST, type_=JSONB))
        return kept.where(entries.c.place <= constant(self.limit or MOST_GROUPS)).scalar_subquery()


def _metric(each: Aggregation, values: sa.CTE, n: int) -> sa.ColumnElement[Any]:
    value = values.c[f"f{n}"] if each.field is not None else None
    if value is None or each.function in get_args(Simple):
        return simple(each.function, value, [values.c.rank])
    match each.function:
        case "percentile":
            return percentile(value, 50 if each.percentile_value is None else each.percentile_value)
        case "stddev":
            return stddev(value)
        case "variance":
            return variance(value)
        case _:
            return correlation(value, values.c[f"h{n}"])


def _listed(each: Aggregation, values: sa.CTE, n: int, to: Lowering) -> sa.CTE:
    """For each group that has any, its values (pairs of them) as a list, `found`; counted ones the commonest first."""
    pair = [values.c[f"f{n}"], *([values.c[f"h{n}"]] if each.pairs else [])]
    there = [value.is_not(None) for value in pair]
    if each.function == "collect":
        found = sa.select(values.c.place, values.c.rank.label("first"), *pair).where(*there)
    else:
        first, many = sa.func.min(values.c.rank).label("first"), sa.func.count().label("many")
        found = sa.select(values.c.place, first, many, *pair).where(*there).group_by(values.c.place, *pair)
    inner = found.subquery("counted")
    item: sa.ColumnElement[Any] = inner.c[f"f{n}"]
    order: list[sa.ColumnElement[Any]] = [inner.c.first]
    most = MOST_VALUES
    if each.function in ("frequency", "co_occurrence"):
        second = {VALUE_B: inner.c[f"h{n}"]} if each.pairs else {}
        item = _object({VALUE: item, **second, COUNT: inner.c.many})
        order.insert(0, inner.c.many.desc())
        most = 10 if each.top_k is None else each.top_k
    nth_of = sa.func.row_number().over(partition_by=inner.c.place, order_by=order).label("nth")
    listed = sa.select(inner.c.place, item.label("item"), nth_of).subquery("listed")
    items = sa.func.jsonb_agg(aggregate_order_by(listed.c.item, listed.c.nth)).label("found")
    kept = sa.select(listed.c.place, items).where(listed.c.nth <= constant(most)).group_by(listed.c.place)
    return kept.cte(f"{to.prefix}_list_{n}")


def _named(columns: Mapping[str, sa.ColumnElement[Any]], to: Lowering) -> sa.ColumnElement[Any]:
    """An object whose keys the caller has named."""
    return _object({to.binds.add(f"{to.prefix}_alias", sa.Text(), name): value for name, value in columns.items()})


def _object(pairs: Mapping[Any, sa.ColumnElement[Any]]) -> sa.ColumnElement[Any]:
    return sa.func.jsonb_build_object(*(part for pair in pairs.items() for part in pair), type_=JSONB)


def _check_aggregation(check: Check, n: int, each: Aggregation) -> None:
    here = ("aggregations", n)
    _check_name(check, each.alias, *here)
    for name, field, wanted in (
        ("field", each.field, each.function != "count"),
        ("field_b", each.field_b, each.pairs),
    ):
        if field is not None:
            check.field(name, field, *here, name)
        if field is None and wanted:
            check.add("bad_parameter", f"{each.function} needs a {name}.", *here, name)
    for name, given, takes, least, most in (
        ("percentile_value", each.percentile_value, ("percentile",), 0, 100),
        ("top_k", each.top_k, ("frequency", "co_occurrence"), 1, 100),
    ):
        if given is not None and each.function not in takes:
            check.add("bad_parameter", f"{each.function} takes no {name}.", *here, name)
        else:
            check.range(name, given, least, most, *here, name)
    if each.field_b is not None and not each.pairs:
        check.add("bad_parameter", f"{each.function} takes no field_b.", *here, "field_b")


def _check_name(check: Check, name: str, *path: str | int) -> None:
    if not 0 < len(name) <= 128 or "\0" in name:
        check.add("bad_name", "An alias has 1 to 128 characters.", *path, "alias")
