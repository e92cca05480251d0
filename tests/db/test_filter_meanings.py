"""Conditions mean what docs/filters.md says, for fields that are missing, null, arrays or of another type."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.db.test_predicates import NASTY
from tests.filtering import parsed, passing, store


@pytest.fixture(scope="module")
def pages(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(conninfo) as conn:
        yield conn
        conn.rollback()


VALUES: dict[str, Any] = {
    "missing": {},
    "null": {"a": None},
    "empty": {"a": []},
    "null in array": {"a": [None]},
    "other type": {"a": {"x": 1}},
    "five": {"a": 5},
    "5.0": {"a": 5.0},
    "in array": {"a": ["x", 5]},
    "in arrays": {"a": [[5]]},
    "text": {"a": "five 5"},
}
ABSENT = {"missing", "null", "empty", "null in array"}
FIVES = {"five", "5.0", "in array", "in arrays"}
HERE = {"lat": 52.5, "lon": 13.4}
CIRCLE = {"center": HERE, "radius": 1000}
SEMANTICS: list[tuple[Any, set[str]]] = [
    ({"a": 5}, FIVES),
    ({"a": None}, ABSENT),
    ({"a": [[5]]}, {"in arrays"}),
    ({"field": "a", "operator": "ne", "value": 5}, VALUES.keys() - FIVES),
    ({"field": "a", "operator": "in", "value": [5]}, FIVES),
    ({"field": "a", "operator": "in", "value": list(range(100))}, FIVES),
    ({"field": "a", "operator": "nin", "value": [5]}, VALUES.keys() - FIVES),
    ({"field": "a", "operator": "gte", "value": 5}, FIVES),
    ({"field": "a", "operator": "gte", "value": "5"}, {"in array", "text"}),
    ({"field": "a", "operator": "contains", "value": 5}, FIVES),
    ({"field": "a", "operator": "contains", "value": "5"}, {"text"}),
    *(
        ({"field": "a", "operator": operator, "value": "five 5"}, {"text"})
        for operator in ("starts_with", "ends_with", "text")
    ),
    ({"field": "a", "operator": "regex", "value": "e 5$"}, {"text"}),
    ({"field": "a", "operator": "exists"}, VALUES.keys() - {"missing"}),
    ({"field": "a", "operator": "is_null"}, ABSENT),
    ({"key": "a", "match": {"value": 5}}, {"five", "in array"}),
    ({"key": "a", "match": {"value": 5.0}}, {"five", "5.0", "in array"}),
    ({"key": "a[]", "match": {"value": 5}}, {"in array", "in arrays"}),
    ({"key": "a[1]", "match": {"value": 5}}, {"in array"}),
    ({"key": "a", "match": {"any": [5, "five 5", True]}}, {"five", "in array", "text"}),
    ({"key": "a", "match": {"any": list(range(100))}}, {"five", "in array"}),
    ({"key": "a", "match": {"any": [*map(float, range(100))]}}, {"five", "5.0", "in array"}),
    ({"key": "a", "match": {"except": [5]}}, {"5.0", "in array", "in arrays", "text", "other type"}),
    ({"key": "a", "match": {"except": ["five 5"]}}, VALUES.keys() - ABSENT - {"text"}),
    *(({"key": "a", "match": {how: "5 FIVE"}}, {"text"}) for how in ("text", "text_any")),
    ({"key": "a", "match": {"phrase": "5 five"}}, set()),
    ({"key": "a", "range": {"gte": 5, "lt": 6}}, {"five", "5.0", "in array"}),
    ({"key": "a", "values_count": {"lte": 0}}, {"missing", "null", "empty"}),
    ({"key": "a", "values_count": {"gte": 2}}, {"in array"}),
    ({"key": "a", "is_empty": True}, {"missing", "null", "empty"}),
    ({"key": "a", "is_null": True}, {"null", "null in array"}),
    ({"key": "a", "is_null": False}, VALUES.keys() - {"null", "null in array"}),
    ({"nested": {"key": "a", "filter": {"x": 1}}}, set()),
    ({"field": "a", "operator": "geo_radius", "value": CIRCLE}, set()),
    ({"key": "a", "geo_radius": CIRCLE}, set()),
]


@pytest.mark.parametrize(("raw", "expected"), SEMANTICS)
def test_fields_that_are_missing_null_or_of_another_type(
    pages: psycopg.Connection[Any], raw: Any, expected: set[str]
) -> None:
    store(pages, [*VALUES.values()])
    names = [*VALUES]
    assert {names[n] for n in passing(pages, parsed(raw))} == expected
    assert {names[n] for n in passing(pages, parsed({"NOT": [raw]}))} == VALUES.keys() - expected


def test_points(pages: psycopg.Connection[Any]) -> None:
    tiny, huge = HERE | {"lat": 1e-320}, HERE | {"lon": 10**400}
    places = [HERE, [HERE, 5], [13.4, 52.5], [[0, 0], [13.4, 52.5]]]
    none = [[52.5, 13.4], HERE | {"lat": "52.5"}, HERE | {"lat": 95}, tiny, huge, [[[13.4, 52.5]]]]
    store(pages, [{"a": {"p": place}} for place in (*places, *none)])
    asked = {"field": "a.p", "operator": "geo_radius", "value": CIRCLE}
    assert passing(pages, parsed(asked)) == [0, 1, 2, 3]
    assert passing(pages, parsed({"key": "a.p", "geo_radius": CIRCLE})) == [0, 1]
    half = {"center": {"lat": "{{INPUT.lat}}", "lon": 13.4}, "radius": "{{INPUT.r}}"}
    assert passing(pages, parsed(asked | {"value": half}), {"lat": 52.5, "r": 1000}) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="`geo_radius`: `radius` is a number"):
        passing(pages, parsed(asked | {"value": half}), {"lat": 52.5, "r": "far"})


def test_conditions_on_one_element(pages: psycopg.Connection[Any]) -> None:
    store(pages, [{"a": [{"b": 1, "c": 2}, {"b": 3, "c": 4}]}, {"a": [{"b": 1, "c": 4}]}, {"a": {"b": 1, "c": 4}}])
    both = [{"key": "b", "match": {"value": 1}}, {"field": "c", "operator": "gt", "value": 3}]
    assert passing(pages, parsed({"nested": {"key": "a", "filter": {"must": both}}})) == [1]
    assert passing(pages, parsed({"AND": [{"key": "a[].b", "match": {"value": 1}}, {"a.c": 4}]})) == [0, 1]
    two = {"conditions": [*both, {"key": "no", "is_empty": True}], "min_count": 2}
    assert passing(pages, parsed({"nested": {"key": "a[]", "filter": {"min_should": two}}})) == [0, 1]


@pytest.mark.parametrize(
    ("test", "values"),
    [
        ({"match": {"value": "{{INPUT.v}}"}}, (5, 5.0, True, "red", "5")),
        ({"match": {"any": "{{INPUT.v}}"}}, ([5, 1.0], ["red", "5"], [True], [], list(range(100)))),
        ({"match": {"except": "{{INPUT.v}}"}}, ([5], ["red", "5"], [])),
        ({"match": {"text": "{{INPUT.v}}"}}, ("red parked", "")),
        ({"range": {"gte": "{{INPUT.v}}", "lt": "{{INPUT.w}}"}}, (5, 1.5)),
        ({"range": {"gte": "{{INPUT.v}}"}}, ("2024-01-01", -1e4)),
        ({"values_count": {"gte": "{{INPUT.v}}"}}, (0, 1, 2)),
        ({"is_empty": "{{INPUT.v}}"}, (True, False)),
        ({"is_null": "{{INPUT.v}}"}, (True, False)),
    ],
)
def test_templates_of_language_b(pages: psycopg.Connection[Any], test: Any, values: tuple[Any, ...]) -> None:
    texts, numbers = ["red", "5", "a red car, parked", "2024-02-03T04:05:06Z"], [5, 5.0, 1, 0.5, -1e3]
    store(pages, [{}, None, *({"a": value} for value in (*texts, *numbers, True, None, [], [1, "red"], [None]))])
    for value in values:
        inputs = {"v": value, "w": 1000}
        written = json.dumps(test).replace('"{{INPUT.v}}"', json.dumps(value)).replace('"{{INPUT.w}}"', "1000")
        literal = {"key": "a"} | json.loads(written)
        assert passing(pages, parsed({"key": "a"} | test), inputs) == passing(pages, parsed(literal))


@pytest.mark.parametrize("text", NASTY)
def test_texts_are_never_read_as_code(pages: psycopg.Connection[Any], text: str) -> None:
    store(pages, [{}, {"a": text}, {"a": [f"x{text}y"]}, {text: [{text: 1}]}])
    for test in ({"value": text}, {"any": [text, "no"]}, {"prefix": text}):
        assert passing(pages, parsed({"key": "a", "match": test})) == [1]
    assert passing(pages, parsed({"key": "a", "match": {"except": [text]}})) == [2]
    assert passing(pages, parsed({"key": "a", "match": {"substring": text}})) == [1, 2]
    for how in ("text", "text_any", "phrase"):
        assert set(passing(pages, parsed({"key": "a", "match": {how: text}}))) <= {1, 2}
    if '"' not in text:
        assert passing(pages, parsed({"key": f'"{text}"[]."{text}"', "match": {"value": 1}})) == [3]


@pytest.mark.parametrize(
    ("test", "value"),
    [
        ({"match": {"value": "{{INPUT.v}}"}}, [1]),
        ({"match": {"value": "{{INPUT.v}}"}}, None),
        ({"match": {"any": "{{INPUT.v}}"}}, 1),
        ({"match": {"any": "{{INPUT.v}}"}}, [None]),
        ({"match": {"any": "{{INPUT.v}}"}}, list(range(1001))),
        ({"range": {"gt": "{{INPUT.v}}"}}, "soon"),
        ({"range": {"gt": "{{INPUT.v}}"}}, True),
        ({"range": {"gt": "{{INPUT.v}}"}}, None),
        ({"values_count": {"gt": "{{INPUT.v}}"}}, 1.5),
        ({"is_null": "{{INPUT.v}}"}, "no"),
    ],
)
def test_inputs_that_do_not_serve_language_b(pages: psycopg.Connection[Any], test: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="needs"):
        passing(pages, parsed({"key": "a"} | test), {"v": value})
