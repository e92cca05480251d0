"""Filters: both languages parse to one AST, and whatever is wrong is said, all of it, with its place."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Problems
from app.retrieval.filter_parser import parse_filter
from app.retrieval.filters import And, AtLeast, Condition, Filter, FilterLimits, Nested, Not, Or, drop_missing, to_json
from app.retrieval.templates import Template

LIMITS = FilterLimits(depth=6, conditions=50)
A1 = Condition("a", "eq", 1)
B2 = Condition("b", "eq", 2)


def parsed(raw: Any) -> Filter | None:
    problems = Problems()
    found = parse_filter(raw, (), problems, LIMITS)
    assert not problems, problems.found
    return found


def refused(raw: Any, limits: FilterLimits = LIMITS) -> list[tuple[tuple[str | int, ...], str]]:
    problems = Problems()
    parse_filter(raw, ("f",), problems, limits)
    return [(problem.location, problem.code) for problem in problems.found]


K1 = Condition("a", "key.match.value", 1)


@pytest.mark.parametrize(
    ("raw", "ast"),
    [
        ({"a": 1}, A1),
        ({"field": "a", "value": 1}, A1),
        ({"a": 1, "b": 2}, And((A1, B2))),
        ({"OR": [{"a": 1}, {"b": 2}]}, Or((A1, B2))),
        ({"should": [{"a": 1}, {"b": 2}]}, Or((A1, B2))),
        ({"NOT": [{"a": 1}, {"b": 2}]}, Not(Or((A1, B2)))),
        ({"must_not": [{"a": 1}, {"b": 2}]}, Not(Or((A1, B2)))),
        ({"not": {"a": 1}}, Not(A1)),
        ([{"a": 1}, {"or": [{"a": 1}, {"b": 2}]}], And((A1, Or((A1, B2))))),
        ({"must": [{"a": 1}], "should": [{"a": 1}, {"b": 2}]}, And((A1, Or((A1, B2))))),
        ({"must": [{"key": "a", "match": {"value": 1}}, {"b": 2}]}, And((K1, B2))),
        ({"must_not": {"key": "a", "match": {"value": 1}}}, Not(K1)),
        ({"field": "a", "operator": "in", "value": [1, "x"]}, Condition("a", "in", [1, "x"])),
        ({"key": "a", "match": {"any": [1, "x"], "value": None}}, Condition("a", "key.match.any", [1, "x"])),
        ({"key": "a", "range": {"gt": 1, "lt": None}, "match": None}, Condition("a", "key.range", {"gt": 1})),
        ({"key": "a", "range": {"gt": "2024-01-31"}}, Condition("a", "key.range", {"gt": "2024-01-31"})),
        ({"key": "a[].b", "values_count": {"gte": 2}}, Condition("a[].b", "key.values_count", {"gte": 2})),
        ({"key": '"a.b"[0]', "is_null": False}, Condition('"a.b"[0]', "key.is_null", False)),
        ({"field": "a", "operator": "is_null"}, Condition("a", "is_null", True)),
        ({"is_null": {"key": "a"}}, Condition("a", "key.is_null", True)),
        ({"is_empty": {"key": "a"}}, Not(Condition("a", "key.is_empty", False))),
        ({"must": {"has_id": ["d1"]}}, Condition("document_id", "in", ["d1"])),
        ({"nested": {"key": "a", "filter": {"must": [{"a": 1}]}}}, Nested("a", A1)),
        ({"min_should": {"conditions": [{"a": 1}, {"b": 2}], "min_count": 1}}, AtLeast(1, (A1, B2))),
        ({"a": {"type": "dynamic", "field": "inputs.x"}}, Condition("a", "eq", Template("{{INPUT.x}}"))),
        ({"AND": [], "OR": None, "case_sensitive": False}, None),
        ({"must": [], "should": None, "min_should": None}, None),
    ],
)
def test_both_languages_are_read(raw: Any, ast: Filter | None) -> None:
    assert parsed(raw) == ast


CIRCLE: dict[str, Any] = {"center": {"lat": 52.5, "lon": 13.4}, "radius": 1000}
BOX = {"top_left": {"lat": 1, "lon": 0}, "bottom_right": {"lat": 0, "lon": 1}}
POLYGON: dict[str, Any] = {
    "exterior": {"points": [{"lat": lat, "lon": lon} for lat, lon in ((0, 0), (0, 1), (1, 1), (0, 0))]}
}


@pytest.mark.parametrize(
    ("shape", "area"), [("geo_radius", CIRCLE), ("geo_bounding_box", BOX), ("geo_polygon", POLYGON)]
)
def test_areas_are_read_in_both_languages(shape: str, area: Any) -> None:
    assert parsed({"field": "a", "operator": shape, "value": area}) == Condition("a", shape, area)
    assert parsed({"key": "a", shape: area}) == Condition("a", f"key.{shape}", area)


@pytest.mark.parametrize("raw", [None, {}, [], {"AND": []}, {"must": [], "must_not": []}, {"case_sensitive": True}])
def test_nothing_asked_is_no_filter(raw: Any) -> None:
    assert parsed(raw) is None


def test_conditions_as_the_sdk_sends_them() -> None:
    sent = {"case_sensitive": False, "AND": None, "field": "a", "operator": "eq", "value": 1}
    assert parsed({"AND": [sent], "case_sensitive": False, "NOT": None}) == A1


def test_fields_that_are_named_like_keys_of_qdrant() -> None:
    assert parsed({"is_null": True}) == Condition("is_null", "eq", True)
    assert parsed({"key": "x"}) == Condition("key", "eq", "x")
    assert parsed({"match": "x", "range": 2}) == And((Condition("match", "eq", "x"), Condition("range", "eq", 2)))


WRONG_CIRCLES: list[Any] = [
    {"radius": -1},
    {"radius": True},
    {"unit": "km"},
    {"center": {"lat": 91, "lon": 0}},
    {"center": 5},
]
WRONG_POLYGONS: list[Any] = [
    {"exterior": {"points": POLYGON["exterior"]["points"][:3]}},
    {"exterior": {"points": [*POLYGON["exterior"]["points"][:3], {"lat": 5, "lon": 5}]}},
    {"exterior": {"points": POLYGON["exterior"]["points"] * 300}},
    POLYGON | {"interiors": 5},
    POLYGON | {"interiors": [{"points": []}]},
]
WRONG_BOUNDS: list[Any] = [
    {"gte": []},
    {"gt": True},
    {"gt": "soon"},
    {"gt": 1, "lt": "2024-01-01"},
    {"gt": "2024-02-30"},
]
WRONG_KEYS: list[Any] = [
    5,
    "",
    "a..b",
    "a[",
    "a[x]",
    "a[-1]",
    "[0]",
    '"a',
    'a"b',
    "a[]b",
    "a.",
    "x" * 256,
    "{{INPUT.f}}",
    "\0",
]


@pytest.mark.parametrize(
    ("raw", "location", "code"),
    [
        ("x", (), "bad_filter"),
        ({"AND": "x"}, ("AND",), "bad_filter"),
        ({"AND": [{"a": 1}, 5]}, ("AND", 1), "bad_filter"),
        ({"OR": [{"a": 1}, {}]}, ("OR", 1), "bad_filter"),
        ({"AND": [{"a": 1}], "b": 2}, ("b",), "bad_filter"),
        ({"a": {"$gt": 1}}, ("a",), "bad_filter"),
        ({"a": {"gt": 1}}, ("a",), "bad_filter"),
        ({"field": "a", "operator": "=", "value": 1}, ("operator",), "unknown_operator"),
        ({"field": "a", "operator": ["eq"], "value": 1}, ("operator",), "unknown_operator"),
        ({"field": "a", "operator": "geo_radius", "value": {}}, ("value",), "bad_filter"),
        ({"field": "a", "operator": "geo_within", "value": {}}, ("operator",), "unknown_operator"),
        *(({"key": "a", "geo_radius": CIRCLE | changed}, ("geo_radius",), "bad_filter") for changed in WRONG_CIRCLES),
        ({"key": "a", "geo_bounding_box": {"top_left": {"lat": 1, "lon": 0}}}, ("geo_bounding_box",), "bad_filter"),
        *(({"key": "a", "geo_polygon": polygon}, ("geo_polygon",), "bad_filter") for polygon in WRONG_POLYGONS),
        ({"field": "a", "operator": "gt"}, (), "bad_filter"),
        ({"field": "a", "operator": "gt", "value": True}, ("value",), "bad_filter"),
        ({"field": "a", "operator": "lt", "value": [1]}, ("value",), "bad_filter"),
        ({"field": "a", "operator": "lt", "value": float("nan")}, ("value",), "bad_filter"),
        ({"field": "a", "value": {"deep": [float("inf")]}}, ("value",), "bad_filter"),
        ({"field": "a", "value": {"nul\0": 1}}, ("value",), "bad_filter"),
        ({"field": "a", "value": "\ud800"}, ("value",), "bad_filter"),
        ({"field": "a", "operator": "in", "value": "x"}, ("value",), "bad_filter"),
        ({"field": "a", "operator": "in", "value": [[1]]}, ("value",), "bad_filter"),
        ({"field": "a", "operator": "in", "value": [None]}, ("value",), "bad_filter"),
        ({"field": "a", "operator": "nin", "value": list(range(1001))}, ("value",), "bad_filter"),
        ({"field": "a", "operator": "regex", "value": "x" * 1001}, ("value",), "bad_filter"),
        ({"field": "a", "operator": "words", "value": 5}, ("value",), "bad_filter"),
        ({"field": "a", "operator": "exists", "value": "yes"}, ("value",), "bad_filter"),
        ({"field": "a", "value": 1, "surplus": 1}, ("surplus",), "bad_filter"),
        ({"field": "a", "value": 1, "case_insensitive": "no"}, ("case_insensitive",), "bad_filter"),
        ({"field": "a", "value": "{{DOC.x}}"}, ("value",), "bad_template"),
        *(({"field": field, "value": 1}, ("field",), "bad_filter") for field in ("", "a..b", ".", "x" * 256, 5, "\0")),
        ({"field": "{{INPUT.f}}", "value": 1}, ("field",), "bad_filter"),
        ({"a.": 1}, ("a.",), "bad_filter"),
        ({"key": "a", "match": {}}, ("match",), "bad_filter"),
        ({"key": "a", "range": {"gt": None}, "geo_radius": None}, ("range",), "bad_filter"),
        ({"key": "a", "range": None, "match": None}, (), "bad_filter"),
        ({"key": "a", "match": 5}, ("match",), "bad_filter"),
        ({"key": "a", "is_empty": {}}, ("is_empty",), "bad_filter"),
        ({"key": "a", "match": {"value": 1}, "range": {"gt": 1}}, (), "bad_filter"),
        ({"key": "a", "match": {"value": 1, "any": [1]}}, ("match",), "bad_filter"),
        ({"key": "a", "match": {"value": None}}, ("match",), "bad_filter"),
        ({"key": "a", "match": {"value": [1]}}, ("match", "value"), "bad_filter"),
        ({"key": "a", "match": {"value": 1}, "has_id": ["x"]}, ("has_id",), "bad_filter"),
        ({"key": "a", "match": {"like": 1}}, ("match", "like"), "bad_filter"),
        ({"key": "a", "match": {"any": 1}}, ("match", "any"), "bad_filter"),
        ({"key": "a", "match": {"text": "x " * 101}}, ("match", "text"), "bad_filter"),
        ({"key": "a", "range": 5}, ("range",), "bad_filter"),
        ({"key": "a", "range": {"above": 5}}, ("range", "above"), "bad_filter"),
        *(({"key": "a", "range": bounds}, ("range",), "bad_filter") for bounds in WRONG_BOUNDS),
        *(({"key": "a", "values_count": {"gt": count}}, ("values_count",), "bad_filter") for count in (-1, 1.5, True)),
        *(({"key": key, "match": {"value": 1}}, ("key",), "bad_filter") for key in WRONG_KEYS),
        ({"nested": {"key": "a", "filter": {}}}, ("nested", "filter"), "bad_filter"),
        ({"nested": {"key": "a.", "filter": {"b": 1}}}, ("nested", "key"), "bad_filter"),
        (
            {"nested": {"key": "a", "filter": {"must": [{"has_id": ["x"]}]}}},
            ("nested", "filter", "must", 0, "has_id"),
            "bad_filter",
        ),
        ({"must": [{"has_vector": "v"}]}, ("must", 0, "has_vector"), "not_offered"),
        ({"must": [{"has_id": [5]}]}, ("must", 0, "has_id"), "bad_filter"),
        ({"min_should": [{"a": 1}]}, ("min_should",), "bad_filter"),
        ({"min_should": {"conditions": [{"a": 1}], "min_count": -1}}, ("min_should", "min_count"), "bad_filter"),
    ],
)
def test_what_is_wrong_has_its_place(raw: Any, location: tuple[str | int, ...], code: str) -> None:
    assert refused(raw) == [(("f", *location), code)]


def test_every_problem_at_once() -> None:
    raw = {"AND": [{"field": "", "operator": "gt", "value": None}, {"OR": [{"field": ".", "operator": "~"}]}]}
    assert refused(raw) == [
        (("f", "AND", 0, "field"), "bad_filter"),
        (("f", "AND", 0, "value"), "bad_filter"),
        (("f", "AND", 1, "OR", 0, "operator"), "unknown_operator"),
        (("f", "AND", 1, "OR", 0, "field"), "bad_filter"),
    ]


def nested(levels: int) -> Any:
    raw: Any = {"a": 1}
    for _ in range(levels):
        raw = {"AND": [raw]}
    return raw


def test_depth_and_size_are_bounded() -> None:
    limits = FilterLimits(depth=3, conditions=2)
    assert refused(nested(3), limits) == []
    assert refused(nested(4), limits) == [(("f", *("AND", 0) * 3, "AND"), "filter_too_deep")]
    assert len(refused(nested(50_000), limits)) == 1
    assert refused({"a": 1, "b": 2}, limits) == []
    assert refused([{"a": 1, "b": 2}, {"key": "c", "range": {"gt": 1}}], limits) == [(("f",), "filter_too_large")]


def test_conditions_without_their_inputs_are_dropped() -> None:
    found = parsed(
        {
            "AND": [
                {"a": "{{INPUT.a}}"},
                {"OR": [{"b": "{{INPUT.b}}"}, {"c": 3}]},
                {"NOT": [{"d": {"x": ["{{INPUT.d}}"]}}]},
                {"e": "{{INPUT.e|default(1)}}"},
            ]
        }
    )
    assert found is not None
    kept, dropped = drop_missing(found, {"a"})
    a, e = Condition("a", "eq", Template("{{INPUT.a}}")), Condition("e", "eq", Template("{{INPUT.e|default(1)}}"))
    assert kept == And((a, Condition("c", "eq", 3), e))
    assert [condition.field for condition in dropped] == ["b", "d"]
    assert drop_missing(found, {"a", "b", "d"}) == (found, ())
    assert drop_missing(Not(a), ()) == (None, (a,))
    assert drop_missing(Nested("x", a), ()) == (None, (a,))
    assert drop_missing(AtLeast(2, (A1, a)), ()) == (AtLeast(1, (A1,)), (a,))
    assert drop_missing(AtLeast(2, (a,)), ()) == (None, (a,))


# Properties

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0{"), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
known = texts.filter(bool).filter(lambda field: "." not in field)
fields = st.lists(known, min_size=1, max_size=3).map(".".join)
things = scalars.filter(lambda value: value is not None)
folds = st.booleans()
keys_ = st.sampled_from(["a", "a.b", "a[].b", "a[0]", '"a.b"[].c', "é"])
conditions = st.one_of(
    st.builds(Condition, fields, st.sampled_from(["eq", "ne"]), values | st.just(Template("{{INPUT.x}}")), folds),
    st.builds(Condition, fields, st.sampled_from(["in", "nin"]), st.lists(things, max_size=4), folds),
    st.builds(Condition, fields, st.sampled_from(["gt", "gte", "lt", "lte"]), st.integers() | texts, folds),
    st.builds(Condition, fields, st.sampled_from(["regex", "text", "words", "starts_with"]), texts, folds),
    st.builds(Condition, fields, st.sampled_from(["exists", "is_null"]), st.booleans(), folds),
    st.builds(Condition, keys_, st.just("key.match.value"), things, folds),
    st.builds(Condition, keys_, st.sampled_from(["key.match.any", "key.match.except"]), st.lists(things), folds),
    st.builds(Condition, keys_, st.just("key.range"), st.fixed_dictionaries({"gt": st.integers()}), folds),
    st.builds(Condition, keys_, st.just("key.is_empty"), st.booleans(), folds),
    st.builds(Condition, keys_, st.just("key.geo_polygon"), st.just(POLYGON), folds),
)
groups: st.SearchStrategy[Filter] = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda items: And(tuple(items))),
        st.lists(inner, min_size=2, max_size=3).map(lambda items: Or(tuple(items))),
        st.builds(AtLeast, st.integers(0, 3), st.lists(inner, max_size=3).map(tuple)),
        st.builds(Nested, keys_, inner),
        inner.map(Not),
    ),
    max_leaves=6,
)


@given(groups)
def test_a_filter_is_read_back_as_it_was_written(filter_: Filter) -> None:
    problems = Problems()
    limits = FilterLimits(depth=50, conditions=50)
    assert parse_filter(to_json(filter_), (), problems, limits) == filter_
    assert not problems


keys = st.sampled_from(
    [
        *(
            "AND",
            "OR",
            "NOT",
            "must",
            "should",
            "must_not",
            "min_should",
            "case_sensitive",
            "field",
            "operator",
            "value",
        ),
        *("key", "match", "range", "gt", "any", "has_id", "is_null", "is_empty", "nested", "type", "a.b"),
        *("filter", "conditions", "min_count", "values_count", "geo_radius", "center", "text"),
    ]
)
leaves = scalars | st.sampled_from(["eq", "in", "dynamic", "inputs.x", "{{INPUT.x}}", "{{", float("nan"), "\0"])
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


@settings(max_examples=300)
@given(anything)
def test_no_json_makes_the_parser_raise(raw: Any) -> None:
    problems = Problems()
    found = parse_filter(raw, (), problems, LIMITS)
    if found is not None and not problems:
        assert parse_filter(to_json(found), (), problems, FilterLimits(50, 50)) == found
