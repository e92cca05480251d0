"""Qdrant's conditions: how its JSON is told from the shorthand of language A, and read; and its paths."""

import re
from typing import Any

from app.retrieval.operators import AREAS, COMPARISONS, MATCHES, TESTS
from app.retrieval.templates import Template

Step = str | int | None
_OTHERS = frozenset({"nested", "has_id", "has_vector"})
_STEP = re.compile(r'(?:"(?P<quoted>[^"]+)"|(?P<name>[^."\[\]]+))(?P<indices>(?:\[[0-9]{0,9}\])*)(?P<end>\.|$)')
_INDEX = re.compile(r"\[([0-9]*)\]")


class Misread(ValueError):
    """A condition that cannot be read, and where in it."""

    def __init__(self, message: str, *place: str) -> None:
        super().__init__(message)
        self.place = place


def steps(key: str) -> tuple[Step, ...]:
    """A path's steps: names, indices, and None for every element of an array.

    `a.b`, `a[].b`, `a[0].b`; a name with dots or brackets stands in quotation marks: `"a.b"`. Raises `ValueError`.
    """
    found: list[Step] = []
    at, more = 0, True
    while more:
        step = _STEP.match(key, at)
        if step is None:
            message = "A key is names joined by single dots; `[]` or `[0]` may follow a name, which may be in quotes"
            raise ValueError(f"{message}: {key!r} is not that.")
        found.append(step["quoted"] or step["name"])
        found += [int(index) if index else None for index in _INDEX.findall(step["indices"])]
        at, more = step.end(), step["end"] == "."
    return tuple(found)


def is_condition(raw: dict[str, Any]) -> bool:
    """Whether this is a condition of Qdrant's, and not the shorthand for fields of such names."""
    if "key" in raw:
        return bool(raw.keys() & (TESTS | _OTHERS))
    match raw:
        case {"has_id": list() | str() | Template()} | {"has_vector": str()}:
            return len(raw) == 1
        case {"is_empty": {"key": _}} | {"is_null": {"key": _}} | {"nested": {"key": _}}:
            return len(raw) == 1
    return False


def asked(raw: dict[str, Any]) -> tuple[str, Any, tuple[str, ...]]:
    """What a condition on a key asks: its operator, the value, and where that stands. Raises `Misread`."""
    for name in raw.keys() - TESTS - {"key", "case_insensitive"}:
        raise Misread(f"{name!r} is not part of a condition.", name)
    tests = {name: value for name, value in raw.items() if name in TESTS and value is not None}
    if len(tests) != 1:
        raise Misread(f"A condition asks one thing, one of {', '.join(sorted(TESTS))}; this one asks {len(tests)}.")
    (name, value), *_ = tests.items()
    if name in ("match", "range", "values_count", *AREAS) and not isinstance(value, dict):
        raise Misread(f"`{name}` is an object that says what to compare with.", name)
    if name in ("range", "values_count"):
        for unknown in value.keys() - COMPARISONS:
            raise Misread(f"{unknown!r} is not part of `{name}`.", name, unknown)
        return f"key.{name}", {bound: limit for bound, limit in value.items() if limit is not None}, (name,)
    if name != "match":
        return f"key.{name}", value, (name,)
    matches = {how: wanted for how, wanted in value.items() if wanted is not None}
    for unknown in matches.keys() - MATCHES:
        raise Misread(f"{unknown!r} is not part of `match`.", name, unknown)
    if len(matches) != 1:
        raise Misread(
            f"`match` takes one of {', '.join(sorted(MATCHES))}, and no null; here it has {len(matches)}.", name
        )
    (how, wanted), *_ = matches.items()
    return f"key.match.{how}", wanted, (name, how)


def written(operator: str, value: Any) -> dict[str, Any]:
    """The condition's JSON without its key."""
    for name in reversed(operator.split(".")[1:]):
        value = {name: value}
    return dict(value)
