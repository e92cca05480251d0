"""Conditions on a field that is a column of an adopted table, asked of the column, so that its index serves them.

What is asked passes all that the condition passes; of language A exactly that, for a scalar's JSON is its value.
"""

import math
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from app.retrieval.catalog import FieldIndex, Fields
from app.retrieval.conditions import bind
from app.retrieval.filters import Condition
from app.retrieval.operators import COMPARISONS
from app.retrieval.plan import Binds

TYPES: dict[str, TypeEngine[Any]] = {"keyword": sa.Text(), "integer": sa.BigInteger(), "bool": sa.Boolean()}
LEAST, MOST = -(2**63), 2**63 - 1
Expression = sa.ColumnElement[bool]


def on_column(asked: Condition, index: FieldIndex, fields: Fields, binds: Binds, hint: str) -> Expression | None:
    """None where the column has no answer, as to a text that is part of its own."""
    column: sa.ColumnElement[Any] = fields.documents.c[str(index.column)]
    type_ = TYPES[index.type]
    if asked.operator in ("eq", "in") and not asked.case_insensitive:
        convert = _LISTS[index.type]
        wanted = bind(binds, hint, asked, "column", sa.ARRAY(type_), lambda value: convert(_listed(asked, value)))
        return column == sa.func.any(wanted)
    if asked.operator in COMPARISONS and index.type == "integer":
        least = bind(binds, hint, asked, "column", type_, lambda value: _bound(asked.operator, value))
        return column >= least if asked.operator in ("gt", "gte") else column <= least
    return None


def _listed(asked: Condition, value: Any) -> list[Any]:
    return value if asked.operator == "in" and isinstance(value, list) else [value]


def _texts(values: list[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, str)]


def _integers(values: list[Any]) -> list[Any]:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return [int(number) for number in numbers if number == int(number) and LEAST <= number <= MOST]


def _bools(values: list[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, bool)]


_LISTS: dict[str, Callable[[list[Any]], list[Any]]] = {"keyword": _texts, "integer": _integers, "bool": _bools}


def _bound(operator: str, value: Any) -> int | None:
    """The least or the greatest integer that passes; None, which none passes, for what is no number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    match operator:
        case "gt":
            bound = math.floor(value) + 1
        case "gte":
            bound = math.ceil(value)
        case "lt":
            bound = math.ceil(value) - 1
        case _:
            bound = math.floor(value)
    if LEAST <= bound <= MOST:
        return bound
    # Beyond all integers of the column: all pass, or none.
    everything = (bound < LEAST) == (operator in ("gt", "gte"))
    return (LEAST if bound < LEAST else MOST) if everything else None
