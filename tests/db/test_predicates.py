"""Predicates on a real PostgreSQL give what a plain reading of the filter gives, and are never NULL."""

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql import JSONB

from app.errors import Problems
from app.retrieval.filter_parser import parse_filter
from app.retrieval.filters import And, AtLeast, Condition, Filter, FilterLimits, Given, Nested, Not, Or
from app.retrieval.plan import Binds, render
from app.retrieval.predicates import predicate
from app.retrieval.templates import fill

NASTY = [
    "'",
    '"',
    "\\",
    "a'; DROP TABLE pages; --",
    "%s %(x)s",
    '$."a"',
    "a.b*c",
    "(?i)x",
    "***:x",
    "^$",
    "\n",
    "😀",
    "{}",
    "é",
]
PAYLOADS: list[Any] = [
    {},
    {"a": None},
    {"a": []},
    {"a": [None]},
    {"a": {}},
    {"a": 5, "b": "Red"},
    {"a": 5.0, "b": ["red", "Blue"]},
    {"a": -1e3, "b": "a red car, parked"},
    {"a": True, "b": ""},
    {"a": "5", "b": {"c": "deep", "d": [1, 2]}},
    {"a": [1, "x", None], "b": {"c": ["deep", "x"]}},
    {"a": [[1, 2], [3]], "b": [{"c": 1}, {"c": "Red"}]},
    {"a": [1, 2], "b": {"c": 1}},
    {"a": "the red cars were parked", "b": ["parked", "red cars"]},
    {"0": "key", "a": {"0": "zero"}},
    {"a": "line\nbreak", "b": "x.y*z"},
    *({"a": text, "b": [text], text: "key"} for text in NASTY),
]
DOCUMENTS = sa.table("pages", sa.column("n", sa.Integer), sa.column("payload", JSONB)).alias("d")


def in_payload(field: str) -> tuple[sa.ColumnElement[Any], tuple[str, ...]]:
    return DOCUMENTS.c.payload, tuple(field.split("."))


@pytest.fixture(scope="module")
def pages(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(conninfo) as conn:
        conn.execute("CREATE TEMPORARY TABLE pages (n integer, payload jsonb)")
        store(conn, [*PAYLOADS, None])
        yield conn
        conn.rollback()


def store(conn: psycopg.Connection[Any], payloads: list[Any]) -> None:
    conn.execute("TRUNCATE pages")
    rows = [(n, None if payload is None else json.dumps(payload)) for n, payload in enumerate(payloads)]
    conn.cursor().executemany("INSERT INTO pages VALUES (%s, %s)", rows)


def ask(conn: psycopg.Connection[Any], filter_: Filter, inputs: dict[str, Any] | None = None) -> list[bool | None]:
    """What the predicate says of every row, in their order."""
    binds = Binds()
    wanted = predicate(filter_, in_payload, binds, "filter")
    statement = render(sa.select(wanted).select_from(DOCUMENTS).order_by(DOCUMENTS.c.n))
    values = {name: bind.convert(fill(bind.value, inputs or {})) for name, bind in binds.found.items()}
    return [row[0] for row in conn.execute(statement, values)]


# The plain reading


def values_at(payload: Any, path: list[str]) -> list[Any]:
    """The values at a path; arrays on the way stand for their elements."""
    found = [payload]
    for key in path:
        found = [value[key] for value in opened(found) if isinstance(value, dict) and key in value]
    return found


def opened(values: list[Any]) -> list[Any]:
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def same(a: Any, b: Any) -> bool:
    """Equality of JSON: true is not 1, but 5.0 is 5."""
    return json.dumps(numbers(a), sort_keys=True) == json.dumps(numbers(b), sort_keys=True)


def numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items()}
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def holds(filter_: Filter, payload: Any) -> bool:
    match filter_:
        case And():
            return all(holds(item, payload) for item in filter_.items)
        case Or():
            return any(holds(item, payload) for item in filter_.items)
        case Not():
            return not holds(filter_.item, payload)
        case Condition(operator="ne"):
            return not holds(Condition(filter_.field, "eq", filter_.value, filter_.case_insensitive), payload)
        case Condition(operator="nin"):
            return not holds(Condition(filter_.field, "in", filter_.value, filter_.case_insensitive), payload)
        case AtLeast() | Nested() | Given():
            raise AssertionError(filter_)
    whole = values_at(payload, filter_.field.split("."))
    elements = opened(opened(whole))
    match filter_.operator, filter_.value:
        case ("eq", None) | ("is_null", True):
            return all(item is None for item in elements)
        case "is_null", _:
            return any(item is not None for item in elements)
        case "exists", wanted:
            return bool(whole) is wanted
        case "eq", list() as wanted:
            return any(same(value, wanted) for value in whole)
        case "eq", dict() as wanted:
            return any(same(value, wanted) for value in opened(whole))
    return any(passes(filter_, item) for item in elements)


def passes(asked: Condition, item: Any) -> bool:
    value, fold = asked.value, asked.case_insensitive
    text = isinstance(item, str)
    folded = item.lower() if text and fold else item
    lower = value.lower() if isinstance(value, str) and fold else value
    match asked.operator:
        case "eq":
            return same(folded, lower)
        case "in":
            return any(passes(Condition("", "eq", one, fold), item) for one in value)
        case "gt" | "gte" | "lt" | "lte" as operator:
            if isinstance(item, bool) or not isinstance(item, str if isinstance(value, str) else int | float):
                return False
            return bool({"gt": item > value, "gte": item >= value, "lt": item < value, "lte": item <= value}[operator])
        case "contains":
            return same(folded, lower) or (text and isinstance(value, str) and lower in folded)
        case "text":
            return text and value.lower() in item.lower()
        case "starts_with":
            return text and folded.startswith(lower)
        case "ends_with":
            return text and folded.endswith(lower)
        case "regex":
            return text and re.search(value, item, re.IGNORECASE if fold else 0) is not None
    raise AssertionError(asked)


def agree(conn: psycopg.Connection[Any], filter_: Filter, payloads: list[Any]) -> None:
    """The predicate, its negation and the plain reading agree on every payload; nothing is NULL."""
    expected = [holds(filter_, payload) for payload in payloads]
    assert ask(conn, filter_) == expected
    assert ask(conn, Not(filter_)) == [not one for one in expected]


SCALARS = [5, 5.0, -1000, 2, True, False, "", "5", "Red", "red", "deep", "x", "e", "Key", *NASTY]
FIELDS = ["a", "b", "b.c", "b.d", "a.0", "0", "absent", *(text for text in NASTY if "." not in text)]
CASES = [
    *(Condition(field, "eq", value) for field in FIELDS for value in (5, "Red", None, "key")),
    *(
        Condition("a", "eq", value)
        for value in (*SCALARS, [], {}, [1, 2], [1, "x", None], {"0": "zero"}, [[1, 2], [3]])
    ),
    *(Condition("b", "eq", value, fold) for value in ("RED", "", {"c": 1}, {"c": "Red"}, 7) for fold in (False, True)),
    *(Condition(field, "ne", value) for field in ("a", "b.c") for value in (5, "deep", None, [1, 2], {"c": 1})),
    *(Condition("b", operator, SCALARS, fold) for operator in ("in", "nin") for fold in (False, True)),
    *(Condition("a", operator, []) for operator in ("in", "nin")),
    *(Condition("a", operator, value) for operator in ("gt", "gte", "lt", "lte") for value in (5, -1e3, 1.5, "5", "é")),
    *(
        Condition(field, operator, value, fold)
        for field in ("a", "b")
        for operator in ("starts_with", "ends_with", "text", "contains")
        for value in ("", "RED", "r", "parked", *NASTY)
        for fold in (False, True)
    ),
    *(Condition(field, "contains", value) for field in ("a", "b") for value in (5, True, 1)),
    *(
        Condition("a", "regex", value, fold)
        for value in ("^the", "red.*PARKED$", "line.break")
        for fold in (False, True)
    ),
    *(Condition(field, flag, on) for field in FIELDS for flag in ("exists", "is_null") for on in (False, True)),
]


def test_every_operator_on_written_payloads(pages: psycopg.Connection[Any]) -> None:
    store(pages, [*PAYLOADS, None])
    for case in CASES:
        # What a NULL payload says is what an empty one says: it has no field.
        agree(pages, case, [*PAYLOADS, {}])


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("words", "parking red", {"a red car, parked", "the red cars were parked"}),
        ("words", "redder", set()),
        ("words", "", set()),
        ("phrase", "red cars", {"a red car, parked", "the red cars were parked"}),
        ("phrase", "cars red", set()),
    ],
)
def test_full_text(pages: psycopg.Connection[Any], operator: str, value: str, expected: set[str]) -> None:
    payloads = [{"t": "a red car, parked"}, {"t": ["the red cars were parked", 5]}, {"t": 5}, {"t": None}, {}, None]
    store(pages, payloads)
    found = ask(pages, Condition("t", operator, value))
    assert found == [bool(expected), bool(expected), False, False, False, False]
    assert ask(pages, Not(Condition("t", operator, value))) == [not one for one in found]


def parsed(raw: Any) -> Filter:
    problems = Problems()
    filter_ = parse_filter(raw, (), problems, FilterLimits(8, 100))
    assert filter_ is not None, problems.found
    return filter_


@pytest.mark.parametrize(
    ("operator", "value", "fold"),
    [
        *(("eq", value, fold) for value in ("Red", 5, True, '"', "a.b*c") for fold in (False, True)),
        *((operator, ["Red", '"', 5], True) for operator in ("in", "nin")),
        *(
            (operator, "red", True)
            for operator in ("ne", "contains", "starts_with", "ends_with", "text", "regex", "gt")
        ),
        *((operator, on, False) for operator in ("exists", "is_null") for on in (False, True)),
    ],
)
def test_templates_mean_what_their_inputs_mean(
    pages: psycopg.Connection[Any], operator: str, value: Any, fold: bool
) -> None:
    store(pages, [*PAYLOADS, None])
    asked = {"field": "b", "operator": operator, "value": "{{INPUT.v}}", "case_insensitive": fold}
    found = ask(pages, parsed(asked), {"v": value})
    assert found == ask(pages, Condition("b", operator, value, fold))
    assert ask(pages, parsed({"NOT": asked}), {"v": value}) == [not one for one in found]


@pytest.mark.parametrize(
    ("operator", "value"),
    [
        *(("eq", value) for value in ([1], {"x": 1}, None, "\0", float("nan"))),
        *(("ne", [1]), ("in", "x"), ("in", [[1]]), ("gt", True), ("gt", [1]), ("regex", "x" * 1001), ("text", 5)),
        *(("exists", "yes"), ("words", 5), ("contains", [1])),
    ],
)
def test_inputs_that_do_not_serve_are_refused_before_the_database(operator: str, value: Any) -> None:
    binds = Binds()
    predicate(parsed({"field": "a", "operator": operator, "value": "{{INPUT.v}}"}), in_payload, binds, "filter")
    with pytest.raises(ValueError, match=f"`{operator}`"):
        [bind.convert(fill(bind.value, {"v": value})) for bind in binds.found.values()]


def test_binds_hold_every_value_and_the_text_none() -> None:
    binds = Binds()
    wanted = predicate(parsed({"AND": [{"sneaky'key": "sneaky'value"}] * 2}), in_payload, binds, "s1_filter")
    assert "sneaky" not in render(sa.select(wanted))
    assert list(binds.found) == ["s1_filter_path", "s1_filter_value", "s1_filter_path_2", "s1_filter_value_2"]


# Properties

texts = st.text(
    st.sampled_from("aAbé.*\\\"'$^\n%{😀0") | st.characters(codec="utf-8", exclude_characters="\0"), max_size=4
)
ascii_texts = st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=4)
scalars = st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1e20]) | ascii_texts | texts
json_values = st.recursive(
    st.none() | scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", '"', "0"]), inner, max_size=3)
    ),
    max_leaves=6,
)
payloads_ = st.lists(st.dictionaries(st.sampled_from(["a", "b"]), json_values, max_size=2), min_size=1, max_size=4)
fields = st.sampled_from(["a", "b", "a.b", 'a."', "a.a.b", "a.0", "b.c"])
conditions = st.one_of(
    st.builds(Condition, fields, st.sampled_from(["eq", "ne"]), json_values),
    st.builds(Condition, fields, st.sampled_from(["eq", "ne", "contains"]), ascii_texts, st.booleans()),
    st.builds(Condition, fields, st.sampled_from(["in", "nin"]), st.lists(scalars, max_size=3)),
    st.builds(Condition, fields, st.sampled_from(["gt", "gte", "lt", "lte"]), st.integers(-2, 2) | texts),
    st.builds(Condition, fields, st.sampled_from(["starts_with", "ends_with", "contains"]), texts),
    st.builds(Condition, fields, st.sampled_from(["exists", "is_null"]), st.booleans()),
)
filters: st.SearchStrategy[Filter] = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda items: And(tuple(items))),
        st.lists(inner, min_size=2, max_size=3).map(lambda items: Or(tuple(items))),
        inner.map(Not),
    ),
    max_leaves=4,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters, payloads_)
def test_any_filter_on_any_payload(pages: psycopg.Connection[Any], filter_: Filter, payloads: list[Any]) -> None:
    store(pages, payloads)
    agree(pages, filter_, payloads)
