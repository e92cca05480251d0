"""Lowers filters to SQL: for the most part `jsonb_path_exists` with the path and its variable as parameters.

A field stands for the values at its path, arrays opened (two deep, as jsonpath does): one that matches is enough.
`a.0` is the key "0" of `a`, never an index. A missing field matches `ne`, `nin`, `is_null` and `eq` null.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH, REGCONFIG
from sqlalchemy.types import TypeEngine

from app.retrieval import geo, in_sql
from app.retrieval.conditions import (
    NO_VARIABLE,
    among,
    bind,
    decided,
    each,
    exists,
    is_long,
    keys_of,
    like,
    quoted,
    to_text,
    written,
)
from app.retrieval.filters import And, AtLeast, Condition, Filter, Given, Nested, Not, Or
from app.retrieval.keyed import Keyed, values_at
from app.retrieval.operators import AREAS, LISTS
from app.retrieval.plan import Binds, InSql
from app.retrieval.templates import is_templated, named

_COMPARE = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_ENGLISH = sa.literal_column("'english'::regconfig", REGCONFIG)
_ZERO = sa.literal_column("0", sa.Integer)
_STRINGS = sa.literal_column("""'["string"]'::jsonb""", JSONB)


class FieldAccess(Protocol):
    """Finds a field: a jsonb expression, which may be NULL, and the path that remains in it."""

    def __call__(self, field: str) -> tuple[sa.ColumnElement[Any], tuple[str, ...]]: ...


def predicate(filter_: Filter, target: FieldAccess, binds: Binds, hint: str) -> sa.ColumnElement[bool]:
    """The filter as an expression that is true or false, never NULL; `hint` names its parameters."""
    match filter_:
        case And():
            return sa.and_(*(predicate(item, target, binds, hint) for item in filter_.items))
        case Or():
            return sa.or_(*(predicate(item, target, binds, hint) for item in filter_.items))
        case Not():
            return sa.not_(predicate(filter_.item, target, binds, hint))
        case AtLeast():
            passed = (sa.cast(predicate(item, target, binds, hint), sa.Integer) for item in filter_.items)
            return sum(passed, start=_ZERO) >= sa.literal_column(str(filter_.count), sa.Integer)
        case Nested():
            objects = values_at(filter_.key, target, binds, hint, objects=True)
            return objects.any(lambda one: predicate(filter_.item, _fields_of(one), binds, hint))
        case Given():
            inputs = [named(name) for name in filter_.names]
            return binds.add(f"{hint}_given", sa.Boolean(), inputs, _all_given, in_sql.ALL_GIVEN)
        case Condition() if filter_.operator.startswith("key."):
            return Keyed(filter_, values_at(filter_.field, target, binds, hint), binds, hint).expression()
        case Condition():
            jsonb, path = target(filter_.field)
            steps = "".join(f".{quoted(key)}" for key in path)
            return _Lowering(filter_, jsonb, f"${steps}", binds, hint).expression()


def _all_given(values: list[Any]) -> bool:
    return all(value is not None for value in values)


def _fields_of(value: sa.ColumnElement[Any]) -> FieldAccess:
    """Finds a field within one object."""
    return lambda field: (value, tuple(field.split(".")))


@dataclass(frozen=True, slots=True)
class _Lowering:
    """One condition on its way to SQL."""

    asked: Condition
    jsonb: sa.ColumnElement[Any]
    path: str
    binds: Binds
    hint: str

    def expression(self) -> sa.ColumnElement[bool]:
        match self.asked.operator, self.asked.value:
            case "eq", None:
                return self.is_null()
            case "ne", None:
                return sa.not_(self.is_null())
            case "eq", dict() | list():
                return self.equals_whole()
            case "ne", dict() | list():
                return sa.not_(self.equals_whole())
            case "ne" | "nin", _:
                return sa.not_(self.passes())
            case "exists", _:
                return self.flag(self.exists(self.constant(self.path)))
            case "is_null", _:
                return self.flag(self.is_null())
            case "words", _:
                return self.found_by("plainto_tsquery")
            case "phrase", _:
                return self.found_by("phraseto_tsquery")
            case operator, _ if operator in AREAS:
                return self.within(operator)
            case _:
                return self.passes()

    def passes(self) -> sa.ColumnElement[bool]:
        """Whether one of the values passes the operator's test."""
        if self.asked.operator in LISTS and is_long(self.asked):
            return self.is_listed()
        test = in_sql.test(self.path, self.asked.operator, self.asked.case_insensitive)
        path = self.bind("path", JSONPATH(), lambda value: f"{self.path} ? ({_test(self.asked, value)})", test)
        if self.asked.operator in ("text", "ends_with", "regex"):  # like_regex takes no variable: it is in the path
            return self.exists(path)
        return self.exists(path, self.bind("value", JSONB(), lambda value: to_text({"v": value}), in_sql.VARIABLE))

    def is_listed(self) -> sa.ColumnElement[bool]:
        """Whether one of the values is in the list, which is looked up; numbers as they are without trailing zeros."""
        value = each(self.jsonb, self.constant(f"{self.path}[*][*]"))
        text = sa.cast(value, sa.Text)
        number = sa.cast(sa.func.trim_scale(sa.cast(value, sa.Numeric)), sa.Text)
        is_number = sa.func.jsonb_typeof(value) == sa.literal_column("'number'")
        keys = self.bind("keys", JSONB(), lambda wanted: keys_of(map(written, wanted)), in_sql.KEYS)
        return among(value, sa.case((is_number, number), else_=text), keys)

    def is_null(self) -> sa.ColumnElement[bool]:
        """Whether there is no value but null: a field that is missing and one that is null are the same to most."""
        return sa.not_(self.exists(self.constant(f"{self.path} ? (@ != null)")))

    def equals_whole(self) -> sa.ColumnElement[bool]:
        """Equality with an array, or with an object, which an array may hold; jsonpath compares scalars only."""
        path = self.constant(self.path if isinstance(self.asked.value, list) else f"{self.path}[*]")
        found = sa.func.jsonb_path_query(self.jsonb, path, NO_VARIABLE, sa.true()).column_valued("v")
        return (
            sa.select(sa.literal_column("1")).where(found == self.bind("value", JSONB(), to_text, in_sql.JSON)).exists()
        )

    def found_by(self, query: str) -> sa.ColumnElement[bool]:
        """Full-text search, in English, over the strings among the values."""
        path = self.constant(f'{self.path} ? (@.type() == "string")')
        strings = sa.func.jsonb_path_query_array(self.jsonb, path, NO_VARIABLE, sa.true())
        words = getattr(sa.func, query)(_ENGLISH, self.bind("value", sa.Text(), str, in_sql.TEXT))
        return decided(sa.func.jsonb_to_tsvector(_ENGLISH, strings, _STRINGS).bool_op("@@")(words))

    def within(self, shape: str) -> sa.ColumnElement[bool]:
        """Whether a value is a point in the area."""
        value = each(self.jsonb, self.constant(self.path))
        inside = geo.within(shape, value, self.bind, self.binds, self.hint, arrays=True)
        return sa.select(sa.literal_column("1")).select_from(value.scalar_alias).where(inside).exists()

    def flag(self, holds: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        """Whether this holds, or does not, as the value says."""
        if is_templated(self.asked.value):
            return holds == self.bind("value", sa.Boolean(), bool, in_sql.FLAG)
        return holds if self.asked.value else sa.not_(holds)

    def exists(
        self, path: sa.ColumnElement[Any], variable: sa.ColumnElement[Any] = NO_VARIABLE
    ) -> sa.ColumnElement[bool]:
        return decided(exists(self.jsonb, path, variable))

    def constant(self, path: str) -> sa.ColumnElement[Any]:
        return self.binds.add(f"{self.hint}_path", JSONPATH(), path)

    def bind(
        self, what: str, type_: TypeEngine[Any], convert: Callable[[Any], Any], sql: InSql | None = None
    ) -> sa.ColumnElement[Any]:
        return bind(self.binds, self.hint, self.asked, what, type_, convert, sql)


def _test(asked: Condition, value: Any) -> str:
    """The jsonpath predicate on `@`; `$v` is the value."""
    fold = "i" if asked.case_insensitive else ""
    match asked.operator:
        case "eq" | "ne" | "in" | "nin":
            values = value if isinstance(value, list) and asked.operator in ("in", "nin") else [value]
            if not all(isinstance(item, str | int | float) for item in values):
                raise ValueError(f"`{asked.operator}` needs a text, a number or a boolean from an input")
            texts = [re.escape(item) for item in values if isinstance(item, str) and fold]
            pattern = f"^(?:{'|'.join(texts)})$"
            return "@ == $v[*]" + (f" || {like(pattern, fold)}" if texts else "")
        case "contains":
            return "@ == $v" + (f" || {like(value, fold + 'q')}" if isinstance(value, str) else "")
        case "starts_with":
            return like(f"^{re.escape(value)}", fold) if fold else "@ starts with $v"
        case "ends_with":
            return like(f"{re.escape(value)}$", fold)
        case "text":
            return like(value, "iq")
        case "regex":
            return like(value, fold)
        case operator:
            return f"@ {_COMPARE[operator]} $v"
