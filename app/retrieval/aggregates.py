"""What is computed of a group's JSON values, as SQL expressions that answer jsonb: for stages and for documents.

Null and missing values do not count. Only numbers are summed up, to the digit; those beyond ±1e307 are left out, for
no float that a client reads them into could hold what is made of them.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by

from app.retrieval.plan import constant

Json = sa.ColumnElement[Any]
EMPTY_LIST: Json = sa.literal_column("'[]'::jsonb", JSONB())

_NUMBER = sa.literal_column("'number'", sa.Text())
_LARGEST = sa.literal_column("1e307", sa.Numeric())
_SMALLEST = sa.literal_column("1e-307", sa.Numeric())
_ZERO = sa.literal_column("0", sa.Numeric())
_ONE = sa.literal_column("1", sa.Numeric())


def number(value: Json) -> Json:
    """The number that a JSON value is, numeric; NULL where it is none."""
    found = sa.case((sa.func.jsonb_typeof(value) == _NUMBER, sa.cast(value, sa.Numeric)))
    return sa.case((sa.func.abs(found) <= _LARGEST, found))


def double(value: Json) -> Json:
    """The same as float8; what is too small for that is 0."""
    found = number(value)
    return sa.cast(sa.case((sa.func.abs(found) < _SMALLEST, _ZERO), else_=found), sa.Double)


def nth(value: Json, order: Sequence[Json], there: sa.ColumnElement[bool] | None = None) -> Json:
    """The first value in this order."""
    values = sa.func.array_agg(aggregate_order_by(value, *order), type_=ARRAY(JSONB))
    kept: Any = values if there is None else values.filter(there)
    return sa.type_coerce(kept, ARRAY(JSONB))[constant(1)]


def simple(function: str, value: Json | None, order: Sequence[sa.ColumnElement[Any]]) -> Json:
    """`count` (of rows where no value is named), `count_distinct`, `sum` (0 of nothing), `avg`, `min` and `max` (by
    jsonb's order), `first` and `last` (of the rows in this order; null where those have no value)."""
    to_jsonb, count = sa.func.to_jsonb, sa.func.count
    if value is None:
        return to_jsonb(count())
    match function:
        case "count":
            return to_jsonb(count(value))
        case "count_distinct":
            return to_jsonb(count(value.distinct()))
        case "sum":
            return to_jsonb(sa.func.coalesce(sa.func.sum(number(value)), _ZERO))
        case "avg":
            return to_jsonb(sa.func.trim_scale(sa.func.avg(number(value))))
        case "min" | "max":
            return nth(value, [value.asc() if function == "min" else value.desc()], value.is_not(None))
        case "first":
            return nth(value, [column.asc() for column in order])
        case "last":
            return nth(value, [column.desc() for column in order])
    raise ValueError(f"no simple function {function!r}")


def percentile(value: Json, percent: float) -> Json:
    """`percentile_cont`: between two values it interpolates, type 7 of Hyndman and Fan (1996), as NumPy does."""
    share: Json = sa.literal_column(repr(percent / 100), sa.Double())
    return sa.func.to_jsonb(sa.func.percentile_cont(share).within_group(double(value).asc()))


def variance(value: Json) -> Json:
    """Of a sample, divided by n - 1; null of fewer than two numbers."""
    return sa.func.to_jsonb(sa.func.trim_scale(sa.func.var_samp(number(value))))


def stddev(value: Json) -> Json:
    """The root of `variance`."""
    return sa.func.to_jsonb(sa.func.trim_scale(sa.func.stddev_samp(number(value))))


def correlation(x: Json, y: Json) -> Json:
    """Pearson's r of two columns of `number` over the rows that have both, to 15 digits; null where one does not vary.

    r = (n Σxy - Σx Σy) / √((n Σx² - (Σx)²) (n Σy² - (Σy)²)), Pearson (1895). The sums are numeric, and so exact:
    PostgreSQL's own `corr` is float8, which overflows beyond 1e154.
    """
    total, both = sa.func.sum, sa.and_(x.is_not(None), y.is_not(None))
    n = sa.cast(sa.func.count().filter(both), sa.Numeric)
    sum_x, sum_y = total(x).filter(both), total(y).filter(both)
    spread_x = n * total(x * x).filter(both) - sum_x * sum_x
    spread_y = n * total(y * y).filter(both) - sum_y * sum_y
    together = n * total(x * y).filter(both) - sum_x * sum_y
    varies = sa.and_(spread_x > _ZERO, spread_y > _ZERO)
    root = sa.case((varies, sa.func.nullif(sa.func.sqrt(spread_x) * sa.func.sqrt(spread_y), _ZERO)))
    r = sa.func.round(together / root, sa.literal_column("15", sa.Integer()))
    bounded = sa.case((r > _ONE, _ONE), (r < -_ONE, -_ONE), else_=r)
    return sa.func.to_jsonb(sa.func.trim_scale(bounded))
