"""Ranges of a payload field as its index serves them: the bounds of one field, taken together.

A document's only number is in the range; or, of several, the greatest is above the lower bounds and the least below the
upper ones, since each bound may hold for another value. The same of its texts, where the bounds are texts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from app.retrieval import in_sql
from app.retrieval.catalog import Fields
from app.retrieval.conditions import written
from app.retrieval.field_indexes import numbers, texts
from app.retrieval.operators import check_value
from app.retrieval.plan import Binds, InSql
from app.retrieval.templates import is_templated
from app.retrieval.times import instant, keeps

# Longer ones are shortened by pgretrieve.payload_text and pgretrieve.payload_number.
LONGEST_TEXT, LONGEST_NUMBER = 200, 900
LOWER = ("gt", "gte")
_LAST = "\U0010ffff"
Bounds = tuple[tuple[str, Any], ...]
T = TypeVar("T", str, int, float)


@dataclass(frozen=True, slots=True)
class Between:
    """Bounds, each an operator and a value, which may be templated; of conditions `gt`, …, or of one `key.range`."""

    bounds: Bounds
    operator: Literal["key.range"] | None = None

    @property
    def certain(self) -> bool:
        """Whether the index passes nothing but what the bounds do, whatever is requested and stored."""
        return self.operator is None and not is_templated(self._raw) and self._is_certain(self._raw)

    @property
    def _raw(self) -> list[list[Any]]:
        return [list(bound) for bound in self.bounds]

    def is_certain(self, binds: Binds, hint: str) -> sa.ColumnElement[bool]:
        sql = in_sql.bounds_certain(dated=self.operator is not None)
        return self._bind(binds, f"{hint}_certain", sa.Boolean(), self._is_certain, sql)

    def expression(self, fields: Fields, field: str, binds: Binds, hint: str) -> sa.ColumnElement[bool]:
        operators = list(dict.fromkeys(operator for operator, _ in self.bounds))
        limits = {
            operator: self._bind(
                binds, f"{hint}_{operator}", sa.Numeric(), self._number(operator), in_sql.number_bound(operator)
            )
            for operator in operators
        }
        by_text = {
            operator: self._bind(
                binds,
                f"{hint}_{operator}_text",
                sa.Text(),
                self._text(operator),
                in_sql.text_bound(operator, dated=self.operator is not None),
            )
            for operator in operators
        }
        return sa.or_(*_within(numbers(fields, field), limits), *_within(texts(fields, field), by_text))

    def _bind(
        self,
        binds: Binds,
        name: str,
        type_: sa.types.TypeEngine[Any],
        convert: Callable[[list[list[Any]]], Any],
        sql: InSql,
    ) -> sa.ColumnElement[Any]:
        if not is_templated(self._raw):
            return binds.add(name, type_, convert(self._raw))

        def filled(bounds: list[list[Any]]) -> Any:
            if self.operator is not None:
                check_value(self.operator, dict(bounds))
            else:
                for operator, value in bounds:
                    check_value(operator, value)
            return convert(bounds)

        return binds.add(name, type_, self._raw, filled, sql)

    def _is_certain(self, bounds: list[list[Any]]) -> bool:
        values = [value for _, value in bounds]
        if all(isinstance(value, str) for value in values):
            return self.operator is None and all(len(value) <= LONGEST_TEXT for value in values)
        return not any(isinstance(value, str) or len(written(value)) > LONGEST_NUMBER for value in values)

    def _number(self, operator: str) -> Callable[[list[list[Any]]], str | None]:
        """The tightest number of this operator, as text; none where all bounds are texts."""

        def convert(bounds: list[list[Any]]) -> str | None:
            found = [(of, value) for of, value in bounds if not isinstance(value, str)]
            if not found:
                return None
            mine: list[float] = [
                value for of, value in found if of == operator and len(written(value)) <= LONGEST_NUMBER
            ]
            if not mine:
                return "-Infinity" if operator in LOWER else "Infinity"
            return written(_tightest(operator, mine))

        return convert

    def _text(self, operator: str) -> Callable[[list[list[Any]]], str | None]:
        """The tightest text of this operator; none where a bound is a number."""

        def convert(bounds: list[list[Any]]) -> str | None:
            if any(not isinstance(value, str) for _, value in bounds):
                return None
            shorten = _around if self.operator is not None else _shortened
            return _tightest(operator, (shorten(operator, value) for of, value in bounds if of == operator))

        return convert


def _within(
    kept: tuple[sa.ColumnElement[Any], ...], limits: dict[str, sa.ColumnElement[Any]]
) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    only, greatest, least = kept
    one = [keeps(only, operator, limit) for operator, limit in limits.items()]
    several = [keeps(greatest if operator in LOWER else least, operator, limit) for operator, limit in limits.items()]
    return sa.and_(*one), sa.and_(only.is_(None), *several)


def _tightest(operator: str, values: Iterable[T]) -> T:
    return max(values) if operator in LOWER else min(values)


def _shortened(operator: str, text: str) -> str:
    """A bound that is no tighter."""
    if len(text) <= LONGEST_TEXT:
        return text
    return text[:LONGEST_TEXT] + ("" if operator in LOWER else _LAST)


def _around(operator: str, text: str) -> str:
    """A bound of texts that name an instant in any zone: their days differ from that of UTC by one at most."""
    day = date.fromisoformat((instant(text) or text)[:10])
    try:
        return (day + timedelta(days=-1 if operator in LOWER else 2)).isoformat()
    except OverflowError:
        return "" if operator in LOWER else _LAST
