"""The operators of both filter languages, and the values that each takes.

Language A's are named as callers write them. Language B's are named by where they stand in its JSON:
`key.match.any` is `{"key": …, "match": {"any": …}}`. docs/filters.md has a table of both.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from app.retrieval.geo import check_area
from app.retrieval.times import instant

COMPARISONS = frozenset({"gt", "gte", "lt", "lte"})
LISTS = frozenset({"in", "nin"})
FLAGS = frozenset({"exists", "is_null"})
TEXTS = frozenset({"starts_with", "ends_with", "regex", "text", "phrase", "words"})
AREAS = frozenset({"geo_radius", "geo_bounding_box", "geo_polygon"})
OPERATORS = frozenset({"eq", "ne", "contains"}) | COMPARISONS | LISTS | FLAGS | TEXTS | AREAS
MATCHES = frozenset({"value", "any", "except", "text", "text_any", "phrase", "prefix", "substring"})
TESTS = frozenset({"match", "range", "values_count", "is_empty", "is_null"}) | AREAS
NOT_STORABLE = re.compile("[\0\ud800-\udfff]")  # U+0000, and halves of surrogate pairs
_MAX_LIST = 1_000
_MAX_REGEX = 1_000
_MAX_WORDS = 100


def check_value(operator: str, value: Any) -> None:
    """Raise `ValueError` where the operator cannot take this value: a literal, or a template that was filled in."""
    name = shown(operator)
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str) and NOT_STORABLE.search(item):
            raise ValueError(f"`{name}` cannot take U+0000 or half a surrogate pair: jsonb does not hold them")
        if isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"`{name}` cannot take {item}: it is no JSON number")
        if isinstance(item, dict):
            rest.extend((*item.keys(), *item.values()))
        elif isinstance(item, list):
            rest.extend(item)
    if name in AREAS:
        try:
            check_area(name, value)
        except ValueError as error:
            raise ValueError(f"`{name}`: {error}") from None
        return
    accepts, needs = _TAKES[operator]
    if not accepts(value):
        raise ValueError(f"`{name}` needs {needs}")


def shown(operator: str) -> str:
    """The operator as its callers know it: `any` of `key.match.any`."""
    return operator.rpartition(".")[2]


def words(text: str) -> list[str]:
    """The words of a text as Qdrant's tokenizer finds them: letters and digits between other characters."""
    return "".join(c if c.isalnum() else " " for c in text).split()


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_range(value: Any) -> bool:
    if not isinstance(value, dict) or not value or value.keys() - COMPARISONS:
        return False
    bounds = value.values()
    return all(map(_is_number, bounds)) or all(isinstance(bound, str) and instant(bound) for bound in bounds)


def _is_count(value: Any) -> bool:
    if not isinstance(value, dict) or not value or value.keys() - COMPARISONS:
        return False
    return all(
        isinstance(bound, int) and not isinstance(bound, bool) and 0 <= bound < 2**31 for bound in value.values()
    )


Takes = tuple[Callable[[Any], bool], str]
_SCALAR: Takes = (_is_scalar, "a text, a number or a boolean")
_TEXT: Takes = (lambda value: isinstance(value, str), "a text")
_FLAG: Takes = (lambda value: isinstance(value, bool), "true or false")
_LIST: Takes = (
    lambda value: isinstance(value, list) and len(value) <= _MAX_LIST and all(map(_is_scalar, value)),
    f"a list of at most {_MAX_LIST} texts, numbers and booleans",
)
_WORDS: Takes = (
    lambda value: isinstance(value, str) and len(value) <= 10_000 and len(words(value)) <= _MAX_WORDS,
    f"a text of at most {_MAX_WORDS} words",
)
_TAKES: Mapping[str, Takes] = {
    **dict.fromkeys(("eq", "ne"), (lambda _: True, "a value")),
    "contains": _SCALAR,
    **dict.fromkeys(COMPARISONS, (lambda value: _is_number(value) or isinstance(value, str), "a number or a text")),
    **dict.fromkeys(LISTS, _LIST),
    **dict.fromkeys(FLAGS, _FLAG),
    **dict.fromkeys(TEXTS, _TEXT),
    "regex": (
        lambda value: isinstance(value, str) and len(value) <= _MAX_REGEX,
        f"a text of at most {_MAX_REGEX} characters",
    ),
    "key.match.value": _SCALAR,
    **dict.fromkeys(("key.match.any", "key.match.except"), _LIST),
    **dict.fromkeys(("key.match.text", "key.match.text_any", "key.match.phrase"), _WORDS),
    **dict.fromkeys(("key.match.prefix", "key.match.substring"), _TEXT),
    "key.range": (_is_range, "bounds (gt, gte, lt, lte) that are all numbers, or all ISO 8601 dates and times"),
    "key.values_count": (_is_count, "bounds (gt, gte, lt, lte) that are whole numbers from 0"),
    **dict.fromkeys(("key.is_empty", "key.is_null"), _FLAG),
}
