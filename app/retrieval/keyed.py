"""Lowers conditions of language B to SQL, with the meaning that Qdrant gives them.

A key leads to values without opening arrays, but where it says `[]`. A test is passed by a value that is no array,
or by an element of one that is; elements that are arrays pass nothing but `except`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH
from sqlalchemy.types import TypeEngine

from app.retrieval import geo, in_sql, qdrant, times
from app.retrieval.conditions import among, bind, decided, each, exists, is_long, keys_of, like, quoted, to_text
from app.retrieval.filters import And, Condition, Filter
from app.retrieval.operators import AREAS, words
from app.retrieval.plan import Binds, InSql
from app.retrieval.templates import is_templated

_COMPARE = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_NULL, _ARRAY = sa.literal_column("'null'", sa.Text), sa.literal_column("'array'", sa.Text)
_EMPTY = sa.literal_column("'[]'::jsonb", JSONB)
_ZERO, _ONE = sa.literal_column("0", sa.Integer), sa.literal_column("1", sa.Integer)
# jsonb keeps how a number was written: 1 or 1.0. To Qdrant only the first is an integer.
_AN_INTEGER = r"(\[| )-?[0-9]+[],]"
_NOT_ALL_INTEGERS = r"\."
_BEFORE_WORD, _AFTER_WORD, _BETWEEN_WORDS = "(?<![[:alnum:]])", "(?![[:alnum:]])", "[^[:alnum:]]+"

Access = Callable[[str], tuple[sa.ColumnElement[Any], tuple[str, ...]]]
Test = Callable[[sa.ColumnElement[Any]], sa.ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Values:
    """The values that a key leads to: one expression, NULL where there is none; through arrays, one for each row."""

    value: sa.ColumnElement[Any]
    rows: sa.FromClause | None = None

    def any(self, test: Test) -> sa.ColumnElement[bool]:
        """Whether one passes; the test may be NULL, which is false."""
        if self.rows is None:
            return decided(test(self.value))
        return sa.select(_ONE).select_from(self.rows).where(test(self.value)).exists()

    def none(self) -> sa.ColumnElement[bool]:
        """Whether there is no value."""
        if self.rows is None:
            return self.value.is_(None)
        return sa.not_(sa.select(_ONE).select_from(self.rows).exists())


def values_at(key: str, target: Access, binds: Binds, hint: str, objects: bool = False) -> Values:
    """The values at a key; with `objects` the objects in the array that is there."""
    path = qdrant.steps(key)
    if objects and path[-1] is not None:
        path = (*path, None)
    names = [name for name in takewhile(lambda step: isinstance(step, str), path) if isinstance(name, str)]
    if any("." in name for name in names):  # no field of the system's; those are known by dotted names
        value, rest = target(_NO_SYSTEM_FIELD)[0], tuple(names)
    else:
        value, rest = target(".".join(names))
    for name in rest:
        value = value.op("->", return_type=JSONB())(binds.add(f"{hint}_key", sa.Text(), name))
    steps = path[len(names) :]
    if not steps:
        return Values(value)
    # In strict mode nothing is opened by itself; each step asks first, for an error would end the whole search.
    text = "strict $" + "".join(map(_step, steps)) + (' ? (@.type() == "object")' if objects else "")
    found = each(value, binds.add(f"{hint}_path", JSONPATH(), text))
    return Values(found, found.scalar_alias)


_NO_SYSTEM_FIELD = "$"


def _step(step: qdrant.Step) -> str:
    if step is None:
        return ' ? (@.type() == "array")[*]'
    if isinstance(step, int):
        return f' ? (@.type() == "array" && exists(@[{step}]))[{step}]'
    return f" ? (exists(@.{quoted(step)})).{quoted(step)}"


@dataclass(frozen=True, slots=True)
class Keyed:
    """One condition on its way to SQL."""

    asked: Condition
    values: Values
    binds: Binds
    hint: str

    def expression(self) -> sa.ColumnElement[bool]:
        match self.asked.operator.removeprefix("key."):
            case "match.value" | "match.any":
                return self.values.any(self.is_one_of)
            case "match.except":
                return self.values.any(self.is_none_of)
            case "range":
                return self.values.any(self.in_range)
            case "values_count":
                return self.counts()
            case "is_empty":
                return self.flag(self.is_empty, missing=True)
            case "is_null":
                return self.flag(self.is_null, missing=False)
            case "geo_radius" | "geo_bounding_box" | "geo_polygon" as shape:
                return self.values.any(
                    lambda value: geo.within(shape, value, self.bind, self.binds, self.hint, arrays=False)
                )
        return self.values.any(self.text)

    def is_one_of(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """Equality; an integer equals one that is written as such, and true is not 1."""
        if self.asked.operator == "key.match.any" and is_long(self.asked):
            return self.is_listed(value)
        listed = None if is_templated(self.asked.value) else _listed(self.asked.value)
        found = []
        if listed is None or not listed or not all(map(_is_integer, listed)):

            def test(wanted: Any) -> str:
                return (
                    f'$ ? (@.type() != "array" && ({_equals(_others(_listed(wanted)), self.asked.case_insensitive)}))'
                )

            path = self.bind("path", JSONPATH(), test, in_sql.keyed_equals(self.asked.case_insensitive))
            found.append(exists(value, path, self.variable(_others, "others")))
        if listed is None or any(map(_is_integer, listed)):
            found.append(self.written(value, _AN_INTEGER))
        return sa.or_(*found)

    def is_listed(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """The same of a long list: what is written as in the list; or, of its other numbers, equals one."""
        one = each(value, self.binds.add(f"{self.hint}_path", JSONPATH(), "$[*]"))
        keys = self.bind(
            "keys",
            JSONB(),
            lambda wanted: keys_of(to_text(item) for item in wanted if not _is_float(item)),
            in_sql.EXACT_KEYS,
        )
        path = self.binds.add(f"{self.hint}_path", JSONPATH(), '$ ? (@.type() == "number" && @ == $v[*])')
        floats = self.variable(lambda wanted: list(filter(_is_float, wanted)), "floats")
        return sa.or_(among(one, sa.cast(one, sa.Text), keys), exists(value, path, floats))

    def is_none_of(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """There is a value, it is not null, and not in the list."""

        def test(wanted: Any) -> str:
            differs = "!(@ == $v[*]) || (@ == $v[*]) is unknown"  # unknown: of another type
            texts = _texts(_listed(wanted)) if self.asked.case_insensitive else []
            folded = f' && !(@.type() == "string" && {_any_text(texts)})' if texts else ""
            return f'$ ? (@.type() == "array" || @.type() != "null" && ({differs}){folded})'

        plain = None if self.asked.case_insensitive else in_sql.fixed(test([]))
        passes = exists(value, self.bind("path", JSONPATH(), test, plain), self.variable(_all, "all"))
        return sa.or_(passes, self.written(value, _NOT_ALL_INTEGERS))

    def written(self, value: sa.ColumnElement[Any], how: str) -> sa.ColumnElement[bool]:
        """Whether one of the integers in the filter's list is there, written like this."""
        path = self.binds.add(f"{self.hint}_path", JSONPATH(), '$ ? (@.type() == "number" && @ == $v[*])')
        found = sa.func.jsonb_path_query_array(value, path, self.variable(_integers, "integers"), sa.true())
        return sa.cast(found, sa.Text).regexp_match(self.binds.add(f"{self.hint}_written", sa.Text(), how))

    def variable(self, choose: Callable[[list[Any]], list[Any]], which: in_sql.Part) -> sa.ColumnElement[Any]:
        chosen = in_sql.part(which, is_list=self.asked.operator != "key.match.value")
        return self.bind("value", JSONB(), lambda wanted: to_text({"v": choose(_listed(wanted))}), chosen)

    def text(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        how, fold = self.asked.operator.removeprefix("key.match."), "i" if self.asked.case_insensitive else ""

        def test(wanted: str) -> str:
            found = [_BEFORE_WORD + word + _AFTER_WORD for word in words(wanted)]
            match how:
                case "prefix":
                    return like(f"^{re.escape(wanted)}", fold)
                case "substring":
                    return like(wanted, fold + "q")
                case "phrase" if found:
                    return like(_BEFORE_WORD + _BETWEEN_WORDS.join(words(wanted)) + _AFTER_WORD, "i")
            joined = (" || " if how == "text_any" else " && ").join(like(word, "i") for word in found)
            return joined or "1 == 0"

        path = self.bind(
            "path",
            JSONPATH(),
            lambda wanted: f'$ ? (@.type() == "string" && ({test(wanted)}))',
            in_sql.keyed_text(how, self.asked.case_insensitive),
        )
        return exists(value, path)

    def in_range(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """All bounds hold for the one value: a number, or the instant that a text names."""
        bounds = self.asked.value
        literal = [bound for bound in bounds.values() if not is_templated(bound)]
        numeric = None if not literal else not isinstance(literal[0], str)
        found = []
        if numeric is not False:
            test = " && ".join(f"@ {_COMPARE[name]} $v.{name}" for name in bounds)
            path = self.binds.add(f"{self.hint}_path", JSONPATH(), f'$ ? (@.type() == "number" && {test})')
            found.append(
                exists(value, path, self.bind("value", JSONB(), lambda wanted: to_text({"v": wanted}), in_sql.VARIABLE))
            )
        if numeric is not True:
            path = self.binds.add(
                f"{self.hint}_path", JSONPATH(), f'$ ? (@.type() == "string" && {like(times.PATTERN)})'
            )
            texts = each(value, path)
            limits = {name: self.instant(name) for name in bounds}
            text = texts.op("#>>", return_type=sa.Text())(sa.literal_column("'{}'"))
            keeps = times.compared(text, limits, self.binds, f"{self.hint}_date")
            found.append(sa.select(_ONE).select_from(texts.scalar_alias).where(keeps).exists())
        return sa.or_(*found)

    def instant(self, name: str) -> sa.ColumnElement[Any]:
        def convert(wanted: Any) -> str | None:
            return times.instant(wanted[name]) if isinstance(wanted[name], str) else None

        return self.bind(name, sa.TIMESTAMP(timezone=True), convert, in_sql.instant(name))

    def counts(self) -> sa.ColumnElement[bool]:
        """The number of elements; null has none, and what is no array is one. Without a value it is 0."""
        limits = {
            name: self.bind(name, sa.Integer(), itemgetter(name), in_sql.count(name)) for name in self.asked.value
        }

        def keeps(count: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
            return sa.and_(*(times.keeps(count, name, limit) for name, limit in limits.items()))

        def test(value: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
            kind = sa.func.jsonb_typeof(value)
            count = sa.case((kind == _ARRAY, sa.func.jsonb_array_length(value)), (kind == _NULL, _ZERO), else_=_ONE)
            return sa.and_(kind.is_not(None), keeps(count))

        return sa.or_(self.values.any(test), sa.and_(self.values.none(), keeps(_ZERO)))

    def is_empty(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        return sa.or_(sa.func.jsonb_typeof(value) == _NULL, value == _EMPTY)

    def is_null(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        return exists(value, self.binds.add(f"{self.hint}_path", JSONPATH(), '$ ? (@.type() == "null")'))

    def flag(self, test: Test, missing: bool) -> sa.ColumnElement[bool]:
        """Whether a value passes, or one does not; `missing` is what no value counts as."""

        def asks(wanted: bool) -> sa.ColumnElement[bool]:
            found = self.values.any(test if wanted else lambda value: sa.not_(test(value)))
            return sa.or_(found, self.values.none()) if wanted is missing else found

        if is_templated(self.asked.value):
            return sa.case((self.bind("value", sa.Boolean(), bool, in_sql.FLAG), asks(True)), else_=asks(False))
        return asks(self.asked.value)

    def bind(
        self, what: str, type_: TypeEngine[Any], convert: Callable[[Any], Any], sql: InSql | None = None
    ) -> sa.ColumnElement[Any]:
        return bind(self.binds, self.hint, self.asked, what, type_, convert, sql)


_LOOSER = {"match.value": "eq", "match.any": "in", "match.prefix": "starts_with"} | {area: area for area in AREAS}


def implied(asked: Condition) -> Filter | None:
    """What language A asks of all that this condition passes, and of little else: an index of the field may serve it.

    None where there is no such thing. Language A opens at least the arrays that a key may go through.
    """
    operator, field = asked.operator.removeprefix("key."), looser_field(asked)
    if field is None:
        return None
    if operator in _LOOSER:
        return replace(asked, field=field, operator=_LOOSER[operator])
    if operator == "range" and not any(isinstance(bound, str) or is_templated(bound) for bound in asked.value.values()):
        return And(tuple(Condition(field, name, bound) for name, bound in asked.value.items()))
    return None


def looser_field(asked: Condition) -> str | None:
    """The field that in language A leads to every value that this condition tests, and perhaps to others."""
    path = qdrant.steps(asked.field)
    names = [step for step in path if isinstance(step, str)]
    arrays_in_arrays = any(not isinstance(a, str) and not isinstance(b, str) for a, b in pairwise(path))
    return None if arrays_in_arrays or any("." in name for name in names) else ".".join(names)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_float(value: Any) -> bool:
    return isinstance(value, float)


def _integers(values: list[Any]) -> list[Any]:
    return [value for value in values if _is_integer(value)]


def _others(values: list[Any]) -> list[Any]:
    return [value for value in values if not _is_integer(value)]


def _all(values: list[Any]) -> list[Any]:
    return values


def _texts(values: list[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


def _any_text(texts: list[str]) -> str:
    return like(f"^(?:{'|'.join(map(re.escape, texts))})$", "i")


def _equals(values: list[Any], fold: bool) -> str:
    texts = _texts(values) if fold else []
    return "@ == $v[*]" + (f" || {_any_text(texts)}" if texts else "")
