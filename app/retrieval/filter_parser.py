"""The parser of the two languages that callers write filters in.

A: `{"AND": [{"field": "a.b", "operator": "gt", "value": 1}, {"OR": […]}], "NOT": […]}`, or `{"a.b": 1}` for equality.
B: `{"must": [{"key": "a.b", "range": {"gt": 1}}], "should": […], "must_not": […]}`, which is Qdrant's. Groups mean
the same in both, and may mix; what a condition asks of a field is not quite the same (docs/filters.md).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import Problems
from app.retrieval import qdrant
from app.retrieval.filters import (
    AtLeast,
    Condition,
    Filter,
    FilterLimits,
    Nested,
    Not,
    all_of,
    any_of,
    none_of,
)
from app.retrieval.operators import FLAGS, NOT_STORABLE, OPERATORS, check_value
from app.retrieval.templates import is_templated, lift, literal

Location = tuple[str | int, ...]


def parse_filter(
    raw: Any, location: Location, problems: Problems, limits: FilterLimits, *, templated: bool = True
) -> Filter | None:
    """The filter that was written in either language; None where it is empty, and so matches everything. Values may be
    templates where there are inputs to fill them in; where there are none (not `templated`), braces are only braces.

    Where it adds to `problems`, what it returns is of no use.
    """
    if raw is None:
        return None
    parser = _Parser(problems, limits, templated)
    found = parser.filter(raw, location, depth=0)
    if parser.conditions > limits.conditions:
        message = f"A filter may have {limits.conditions} conditions; this one has {parser.conditions}."
        problems.add(location, "filter_too_large", message)
    return found


_GROUPS: Mapping[str, Callable[[Sequence[Filter]], Filter | None]] = {
    **dict.fromkeys(("AND", "and", "must"), all_of),
    **dict.fromkeys(("OR", "or", "should"), any_of),
    **dict.fromkeys(("NOT", "not", "must_not"), none_of),
}
_GROUP_KEYS = _GROUPS.keys() | {"min_should"}


@dataclass(slots=True)
class _Parser:
    """Reads both languages; each method takes a piece of JSON and where it stands."""

    problems: Problems
    limits: FilterLimits
    templated: bool = True
    conditions: int = 0
    nested: bool = False

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
        if qdrant.is_condition(raw):
            return self.qdrant(raw, at, depth)
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
        found: list[Filter] = []
        for key, value in raw.items():
            if key == "min_should":
                found += self.at_least(value, (*at, key), depth)
            elif key not in _GROUPS:
                self.refuse((*at, key), f"{key!r} is not part of a group of filters.")
            elif group := _GROUPS[key](self.items(value, (*at, key), depth)):
                found.append(group)
        return all_of(found)

    def at_least(self, raw: Any, at: Location, depth: int) -> list[AtLeast]:
        if not isinstance(raw, dict) or raw.keys() != {"conditions", "min_count"}:
            self.refuse(at, "`min_should` takes `conditions` and `min_count`.")
            return []
        count = raw["min_count"]
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            self.refuse((*at, "min_count"), "`min_count` is a whole number from 0.")
            return []
        return [AtLeast(count, tuple(self.items(raw["conditions"], (*at, "conditions"), depth)))]

    def condition(self, raw: dict[str, Any], at: Location) -> Condition | None:
        before = len(self.problems.found)
        for key in raw:
            if key not in ("field", "operator", "value", "case_insensitive"):
                self.refuse((*at, key), f"{key!r} is not part of a condition.")
        fold = self.fold(raw, at)
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
        if not operator.startswith("key."):
            self.field(field, field_at)
        before = len(self.problems.found)
        value = lift(raw, at, self.problems) if self.templated else literal(raw, at, self.problems)
        if len(self.problems.found) == before and not is_templated(value):
            try:
                check_value(operator, value)
            except ValueError as error:
                self.refuse(at, f"{error}.")
        return Condition(field, operator, value, fold)

    def qdrant(self, raw: dict[str, Any], at: Location, depth: int) -> Filter | None:
        match raw:
            case {"has_id": ids, **rest} if not rest:
                if self.nested:
                    self.refuse((*at, "has_id"), "`has_id` asks for documents, and so cannot stand within `nested`.")
                if isinstance(ids, list) and any(isinstance(item, int | float) for item in ids):
                    self.refuse((*at, "has_id"), "The ids of documents are texts.")
                return self.build("document_id", at, "in", ids, (*at, "has_id"))
            case {"has_vector": _, **rest} if not rest:
                self.refuse((*at, "has_vector"), "'has_vector' is not offered by this server.", "not_offered")
                return None
            case {"nested": {"key": key, "filter": inner, **rest}} if not rest:
                return self.within(key, inner, (*at, "nested"), depth)
            case {"is_empty": {"key": key}, **rest} if not rest:  # all values are empty, so that none is not
                found = self.keyed(key, (*at, "is_empty", "key"), "key.is_empty", False, at)
                return Not(found) if found else None
            case {"is_null": {"key": key}, **rest} if not rest:
                return self.keyed(key, (*at, "is_null", "key"), "key.is_null", True, at)
        fold = self.fold(raw, at)
        try:
            operator, value, place = qdrant.asked(raw)
        except qdrant.Misread as error:
            self.refuse((*at, *error.place), str(error))
            return None
        return self.keyed(raw["key"], (*at, "key"), operator, value, (*at, *place), fold)

    def keyed(
        self, key: Any, key_at: Location, operator: str, value: Any, at: Location, fold: bool = False
    ) -> Condition | None:
        if not self.key(key, key_at):
            return None
        return self.build(key, key_at, operator, value, at, fold)

    def within(self, key: Any, raw: Any, at: Location, depth: int) -> Filter | None:
        outer, self.nested = self.nested, True
        before = len(self.problems.found)
        found = all_of(self.items(raw, (*at, "filter"), depth))
        if found is None and len(self.problems.found) == before:
            self.refuse((*at, "filter"), "This filter is empty.")
        self.nested = outer
        return Nested(key, found) if self.key(key, (*at, "key")) and found else None

    def key(self, key: Any, at: Location) -> bool:
        before = len(self.problems.found)
        try:
            if not isinstance(key, str) or not 0 < len(key) <= 255:
                raise ValueError("A key is a text of 1 to 255 characters.")
            qdrant.steps(key)
        except ValueError as error:
            self.refuse(at, str(error))
        else:
            self.plain(key, at)
        return len(self.problems.found) == before

    def fold(self, raw: dict[str, Any], at: Location) -> bool:
        fold = raw.get("case_insensitive", False)
        if not isinstance(fold, bool):
            self.refuse((*at, "case_insensitive"), "`case_insensitive` is true or false.")
        return fold is True

    def field(self, field: Any, at: Location) -> None:
        if not isinstance(field, str) or not 0 < len(field) <= 255 or "" in field.split("."):
            self.refuse(at, "A field is a text of 1 to 255 characters: names joined by single dots.")
        else:
            self.plain(field, at)

    def plain(self, field: str, at: Location) -> None:
        if "{{" in field or NOT_STORABLE.search(field):
            self.refuse(at, "A field takes no template, no U+0000 and no half of a surrogate pair.")

    def operator(self, operator: Any, at: Location) -> None:
        valid = ", ".join(sorted(OPERATORS))
        self.refuse(at, f"There is no operator {operator!r}; there are {valid}.", "unknown_operator")

    def refuse(self, at: Location, message: str, code: str = "bad_filter") -> None:
        self.problems.add(at, code, message)
