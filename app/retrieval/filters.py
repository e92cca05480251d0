"""Filters: one AST, and the parser of the two languages that callers write it in.

A: `{"AND": [{"field": "a.b", "operator": "gt", "value": 1}, {"OR": […]}], "NOT": […]}`, or `{"a.b": 1}` for equality.
B: `{"must": [{"key": "a.b", "range": {"gt": 1}}], "should": […], "must_not": […]}`, which is Qdrant's.
"""

import math
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import Problems
from app.retrieval.templates import Template, is_templated, lift, needed_names, unlift

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """What one field is asked. `value` is JSON, with templates lifted."""

    field: str
    operator: str
    value: Any
    case_insensitive: bool = False


@dataclass(frozen=True, slots=True)
class And:
    items: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    items: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    item: "Filter"


Filter = Condition | And | Or | Not


@dataclass(frozen=True, slots=True)
class FilterLimits:
    """How deep groups may nest, and how many conditions there may be in all."""

    depth: int
    conditions: int


def all_of(items: Sequence[Filter]) -> Filter | None:
    """The filter that asks for every one of these; a group of one is that one, and of none is no filter."""
    return And(tuple(items)) if len(items) > 1 else items[0] if items else None


def any_of(items: Sequence[Filter]) -> Filter | None:
    """The filter that asks for one of these at least."""
    return Or(tuple(items)) if len(items) > 1 else items[0] if items else None


def none_of(items: Sequence[Filter]) -> Filter | None:
    """The filter that asks for none of these."""
    found = any_of(items)
    return Not(found) if found else None


def parse_filter(raw: Any, location: Location, problems: Problems, limits: FilterLimits) -> Filter | None:
    """The filter that was written in either language; None where it is empty, and so matches everything.

    Where it adds to `problems`, what it returns is of no use.
    """
    if raw is None:
        return None
    parser = _Parser(problems, limits)
    found = parser.filter(raw, location, depth=0)
    if parser.conditions > limits.conditions:
        message = f"A filter may have {limits.conditions} conditions; this one has {parser.conditions}."
        problems.add(location, "filter_too_large", message)
    return found


def drop_missing(filter_: Filter, provided: Container[str]) -> tuple[Filter | None, tuple[Condition, ...]]:
    """The filter without the conditions whose inputs were not provided, and those conditions."""
    match filter_:
        case Condition():
            if all(name in provided for name in needed_names(filter_.value)):
                return filter_, ()
            return None, (filter_,)
        case Not():
            item, dropped = drop_missing(filter_.item, provided)
            return (Not(item) if item else None), dropped
        case And() | Or():
            parts = [drop_missing(item, provided) for item in filter_.items]
            kept = [item for item, _ in parts if item]
            group = all_of(kept) if isinstance(filter_, And) else any_of(kept)
            return group, tuple(condition for _, dropped in parts for condition in dropped)


def to_json(filter_: Filter) -> dict[str, Any]:
    """The filter in language A, as `parse_filter` reads it back."""
    match filter_:
        case And():
            return {"AND": [to_json(item) for item in filter_.items]}
        case Or():
            return {"OR": [to_json(item) for item in filter_.items]}
        case Not():
            return {"NOT": [to_json(filter_.item)]}
        case Condition():
            written = {"field": filter_.field, "operator": filter_.operator, "value": unlift(filter_.value)}
            return written | ({"case_insensitive": True} if filter_.case_insensitive else {})


# What operators take

COMPARISONS = frozenset({"gt", "gte", "lt", "lte"})
LISTS = frozenset({"in", "nin"})
FLAGS = frozenset({"exists", "is_null"})
TEXTS = frozenset({"starts_with", "ends_with", "regex", "text", "phrase", "words"})
OPERATORS = frozenset({"eq", "ne", "contains"}) | COMPARISONS | LISTS | FLAGS | TEXTS
_NOT_OFFERED = frozenset({"geo_radius", "geo_bounding_box", "geo_polygon"})
_MAX_LIST = 1_000
_MAX_REGEX = 1_000
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")  # U+0000, and halves of surrogate pairs


def check_value(operator: str, value: Any) -> None:
    """Raise `ValueError` where the operator cannot take this value: a literal, or a template that was filled in."""
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str) and _NOT_STORABLE.search(item):
            raise ValueError(f"`{operator}` cannot take U+0000 or half a surrogate pair: jsonb does not hold them")
        if isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"`{operator}` cannot take {item}: it is no JSON number")
        if isinstance(item, dict):
            rest.extend((*item.keys(), *item.values()))
        elif isinstance(item, list):
            rest.extend(item)
    accepts, needs = _TAKES[operator]
    if not accepts(value):
        raise ValueError(f"`{operator}` needs {needs}")


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


_TAKES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("eq", "ne"), (lambda _: True, "a value")),
    "contains": (_is_scalar, "a text, a number or a boolean"),
    **dict.fromkeys(
        COMPARISONS,
        (lambda value: _is_scalar(value) and not isinstance(value, bool), "a number or a text"),
    ),
    **dict.fromkeys(
        LISTS,
        (
            lambda value: isinstance(value, list) and len(value) <= _MAX_LIST and all(map(_is_scalar, value)),
            f"a list of at most {_MAX_LIST} texts, numbers and booleans",
        ),
    ),
    **dict.fromkeys(FLAGS, (lambda value: isinstance(value, bool), "true or false")),
    **dict.fromkeys(TEXTS, (lambda value: isinstance(value, str), "a text")),
    "regex": (
        lambda value: isinstance(value, str) and len(value) <= _MAX_REGEX,
        f"a text of at most {_MAX_REGEX} characters",
    ),
}


# The parser

_GROUPS: Mapping[str, Callable[[Sequence[Filter]], Filter | None]] = {
    **dict.fromkeys(("AND", "and", "must"), all_of),
    **dict.fromkeys(("OR", "or", "should"), any_of),
    **dict.fromkeys(("NOT", "not", "must_not"), none_of),
}
_GROUP_KEYS = _GROUPS.keys() | {"min_should"}
_MATCHES = {"value": "eq", "any": "in", "except": "nin", "text": "text", "phrase": "phrase"}
_QDRANT_ONLY = _NOT_OFFERED | {"values_count", "is_empty", "is_null", "nested", "has_vector", "min_should", "text_any"}


@dataclass(slots=True)
class _Parser:
    """Reads both languages; each method takes a piece of JSON and where it stands."""

    problems: Problems
    limits: FilterLimits
    conditions: int = 0

    def filter(self, raw: Any, at: Location, depth: int) -> Filter | None:
        if isinstance(raw, list):
            return all_of(self.items(raw, at, depth))
        if not isinstance(raw, dict):
            self.refuse(at, "A filter is an object, or a list of them.")
            return None
        # The SDK sends `case_sensitive` with everything, and null for the groups that it does not use.
        raw = {k: v for k, v in raw.items() if k != "case_sensitive" and not (v is None and k in _GROUP_KEYS)}
        if "field" in raw and raw.keys() & {"operator", "value"}:
            return self.condition(raw, at)
        if raw.keys() & _GROUP_KEYS:
            return self.groups(raw, at, depth)
        if _is_qdrant(raw):
            return self.qdrant(raw, at)
        return all_of([found for field in raw if (found := self.equality(field, raw[field], (*at, field)))])

    def items(self, raw: Any, at: Location, depth: int) -> list[Filter]:
        if depth == self.limits.depth:
            self.refuse(at, f"Filters may nest {self.limits.depth} deep, not deeper.", "filter_too_deep")
            return []
        if isinstance(raw, dict):
            entries = [(at, raw)]
        elif isinstance(raw, list):
            entries = [((*at, i), item) for i, item in enumerate(raw)]
        else:
            self.refuse(at, "This takes a list of filters, or one filter.")
            return []
        found = []
        for place, item in entries:
            before = len(self.problems.found)
            if parsed := self.filter(item, place, depth + 1):
                found.append(parsed)
            elif len(self.problems.found) == before:  # under OR or NOT it would turn the meaning over
                self.refuse(place, "This filter is empty.")
        return found

    def groups(self, raw: dict[str, Any], at: Location, depth: int) -> Filter | None:
        found = []
        for key, value in raw.items():
            if key not in _GROUPS:
                self.unknown(key, (*at, key), "a group of filters")
            elif group := _GROUPS[key](self.items(value, (*at, key), depth)):
                found.append(group)
        return all_of(found)

    def condition(self, raw: dict[str, Any], at: Location) -> Condition | None:
        before = len(self.problems.found)
        for key in raw:
            if key not in ("field", "operator", "value", "case_insensitive"):
                self.unknown(key, (*at, key), "a condition")
        fold = raw.get("case_insensitive", False)
        if not isinstance(fold, bool):
            self.refuse((*at, "case_insensitive"), "`case_insensitive` is true or false.")
        operator = "eq" if raw.get("operator") is None else raw["operator"]
        value = raw.get("value")
        if not isinstance(operator, str) or operator not in OPERATORS:
            self.operator(operator, (*at, "operator"))
        elif operator in FLAGS and value is None:
            value = True
        elif "value" not in raw:
            self.refuse(at, f"`{operator}` needs a `value`.")
        if len(self.problems.found) > before:
            self.field(raw["field"], (*at, "field"))
            return None
        return self.build(raw["field"], (*at, "field"), operator, value, (*at, "value"), fold)

    def equality(self, field: str, value: Any, at: Location) -> Condition | None:
        if isinstance(value, dict) and any(key in OPERATORS or key.startswith("$") for key in value):
            self.refuse(at, "Operators are written as {'field': …, 'operator': …, 'value': …}.")
            return None
        return self.build(field, at, "eq", value, at)

    def build(
        self, field: Any, field_at: Location, operator: str, raw: Any, at: Location, fold: bool = False
    ) -> Condition:
        self.conditions += 1
        self.field(field, field_at)
        before = len(self.problems.found)
        value = lift(raw, at, self.problems)
        if len(self.problems.found) == before and not is_templated(value):
            try:
                check_value(operator, value)
            except ValueError as error:
                self.refuse(at, f"{error}.")
        return Condition(field, operator, value, fold)

    def qdrant(self, raw: dict[str, Any], at: Location) -> Filter | None:
        match raw:
            case {"has_id": ids, **rest} if not rest:
                if isinstance(ids, list) and any(isinstance(item, int | float) for item in ids):
                    self.refuse((*at, "has_id"), "The ids of documents are texts.")
                return self.build("document_id", at, "in", ids, (*at, "has_id"))
            case {"is_empty": {"key": field}, **rest} if not rest:
                return self.build(field, (*at, "is_empty", "key"), "is_null", True, at)
            case {"is_null": {"key": field}, **rest} if not rest:
                null = self.build(field, (*at, "is_null", "key"), "is_null", True, at)
                return And((Condition(null.field, "exists", True), null))
        before, found = len(self.problems.found), []
        for test, asked in raw.items():
            if test in ("match", "range") and isinstance(asked, dict):
                found += self.tests(raw.get("key"), test, asked, at)
            elif test in ("match", "range") and asked is not None:
                self.refuse((*at, test), f"`{test}` is an object that says what to compare with.")
            elif test != "key" and asked is not None:
                self.unknown(test, (*at, test), "a condition")
        if not found and len(self.problems.found) == before:
            self.refuse(at, "This condition says nothing: it needs `match` or `range`.")
        return all_of(found)

    def tests(self, field: Any, test: str, asked: dict[str, Any], at: Location) -> list[Condition]:
        offered = _MATCHES if test == "match" else {name: name for name in COMPARISONS}
        found = []
        for name, value in asked.items():
            if name not in offered:
                self.unknown(name, (*at, test, name), f"`{test}`")
            elif value is not None or test == "match":
                found.append(self.build(field, (*at, "key"), offered[name], value, (*at, test, name)))
        return found

    def field(self, field: Any, at: Location) -> None:
        if not isinstance(field, str) or not 0 < len(field) <= 255 or "" in field.split("."):
            self.refuse(at, "A field is a text of 1 to 255 characters: names joined by single dots.")
        elif "{{" in field or _NOT_STORABLE.search(field):
            self.refuse(at, "A field takes no template, no U+0000 and no half of a surrogate pair.")

    def operator(self, operator: Any, at: Location) -> None:
        if isinstance(operator, str) and operator in _NOT_OFFERED:
            self.refuse(at, f"The operator {operator!r} is not offered by this server.", "not_offered")
        else:
            valid = ", ".join(sorted(OPERATORS))
            self.refuse(at, f"There is no operator {operator!r}; there are {valid}.", "unknown_operator")

    def unknown(self, key: str, at: Location, of: str) -> None:
        if key in _QDRANT_ONLY:
            self.refuse(at, f"{key!r} is not offered by this server.", "not_offered")
        else:
            self.refuse(at, f"{key!r} is not part of {of}.")

    def refuse(self, at: Location, message: str, code: str = "bad_filter") -> None:
        self.problems.add(at, code, message)


def _is_qdrant(raw: dict[str, Any]) -> bool:
    """Whether this is a condition of Qdrant's, and not the shorthand for fields of such names."""
    if "key" in raw:
        return bool(raw.keys() & ({"match", "range"} | _QDRANT_ONLY))
    match raw:
        case {"has_id": list() | str() | Template()} | {"has_vector": str()}:
            return len(raw) == 1
        case {"is_empty": {"key": _}} | {"is_null": {"key": _}} | {"nested": {"key": _}}:
            return len(raw) == 1
    return False
