"""Inputs over HTTP: what an input schema may declare, and values checked against it with every problem told."""

from typing import Any

import pytest

from tests.http import Api, document, feature_search, search, stage


@pytest.fixture
def shelf(api: Api) -> Api:
    api.standalone(("v", 2))
    api.upsert([document(f"d{n}", {"v": [1, n]}, day=f"2026-01-0{n + 1}", n=n) for n in range(5)])
    return api


def by(name: str) -> dict[str, Any]:
    value = f"{{{{INPUT.{name}|tojson}}}}"
    return stage("attribute_filter", conditions={"field": "x", "operator": "ne", "value": value})


GOOD_AND_BAD: list[tuple[Any, list[Any], list[Any]]] = [
    ({"type": "string"}, ["", "x"], [1, [], {}, True]),
    ({"type": "integer"}, [3, -1, 2.0], [1.5, "3", True, []]),
    ({"type": "number"}, [3, 1.5], ["3", False]),
    ({"type": "float"}, [3, 1.5], ["x"]),
    ({"type": "boolean"}, [True, False], [0, 1, "true"]),
    ({"type": "date"}, ["2026-01-31"], ["2026-02-30", "20260131", "2026-01-31T00:00:00", "today", 3]),
    ({"type": "datetime"}, ["2026-01-31T10:00:00Z", "2026-01-31T10:00:00+02:00"], ["2026-13-01T00:00:00", "noon", 3]),
    ({"type": "image"}, ["https://example.org/a.png"], [3, {}]),
    ({"type": "string", "enum": ["a", "b"]}, ["a"], ["c", 1]),
    ({"type": "integer", "enum": [1, 2]}, [1, 2.0], [3, True]),
    ({"type": "array", "items": {"type": "integer"}}, [[], [1, 2]], [["1"], [1, 1.5], 3]),
    ({"type": "array", "items": {"type": "string", "enum": ["a"]}}, [["a"]], [["b"]]),
    (
        {"type": "object", "properties": {"n": {"type": "integer", "required": True}, "s": {"type": "string"}}},
        [{"n": 1}, {"n": 1, "s": "x", "other": []}],
        [{}, {"n": "1"}, {"n": 1, "s": 2}],
    ),
    (
        {"type": "document_reference"},
        ["d1", {"document_id": "d1"}, {"collection_id": "c", "document_id": "d1"}],
        [3, {}, {"collection_id": "c"}, {"document_id": 3}, {"document_id": "d", "more": "x"}],
    ),
]


@pytest.mark.parametrize(("field", "good", "bad"), GOOD_AND_BAD, ids=lambda value: str(value)[:40])
def test_values_are_of_their_types(shelf: Api, field: Any, good: list[Any], bad: list[Any]) -> None:
    shelf.retriever("r", by("x"), input_schema={"x": {**field, "required": True, "description": "x"}})
    for value in good:
        assert len(shelf.ids("r", inputs={"x": value})) == 5
    for value in bad:
        code, problems = shelf.refused("POST", "/retrievers/r/execute", {"inputs": {"x": value}})
        assert code in ("bad_input", "missing_input"), value
        assert all(problem.split("@")[1].startswith("body.inputs.x") for problem in problems)


def test_every_problem_is_told_with_its_place(shelf: Api) -> None:
    schema = {
        "a": {"type": "integer", "required": True},
        "b": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer", "required": True}}}},
        "c": {"type": "date"},
        "v": {"type": "array", "required": True},
    }
    shelf.retriever("r", feature_search(search("v", "{{INPUT.v}}")), input_schema=schema)
    body = {"inputs": {"b": [{"n": 1}, {"n": "x"}, {}, 3], "c": "soon"}, "filters": {"must": 3}}
    _, problems = shelf.refused("POST", "/retrievers/r/execute", body)
    assert problems[:6] == [
        "missing_input@body.inputs.a",
        "bad_input@body.inputs.b.1.n",
        "missing_input@body.inputs.b.2.n",
        "bad_input@body.inputs.b.3",
        "bad_input@body.inputs.c",
        "missing_input@body.inputs.v",
    ]
    assert problems[6].startswith("bad_filter@body.filters")


def test_defaults_fill_in_at_every_level(shelf: Api) -> None:
    schema = {
        "day": {"type": "date", "default": "2026-01-03"},
        "range": {"type": "object", "properties": {"least": {"type": "integer", "default": 2}}},
    }
    conditions = [
        {"field": "day", "operator": "gte", "value": "{{INPUT.day}}"},
        {"field": "n", "operator": "gte", "value": "{{INPUT.range.least}}"},
    ]
    shelf.retriever("r", stage("attribute_filter", conditions={"AND": conditions}), input_schema=schema)
    assert shelf.ids("r", inputs={"range": {}}) == ["d2", "d3", "d4"]
    assert shelf.ids("r", inputs={"range": {"least": 4}}) == ["d4"]
    assert shelf.ids("r", inputs={"range": {"least": 1}, "day": "2026-01-02"}) == ["d1", "d2", "d3", "d4"]
    assert shelf.ids("r", inputs={"range": {}, "day": None}) == ["d2", "d3", "d4"]


@pytest.mark.parametrize(
    ("field", "place"),
    [
        (3, "x"),
        ({}, "x"),
        ({"type": ["string"]}, "x"),
        ({"type": "strings"}, "x"),
        ({"type": "string", "required": "yes"}, "x.required"),
        ({"type": "string", "description": 3}, "x.description"),
        ({"type": "string", "enum": "a"}, "x.enum"),
        ({"type": "string", "enum": ["a", 3]}, "x.enum.1"),
        ({"type": "string", "enum": ["a"], "default": "b"}, "x.default"),
        ({"type": "date", "default": "2026-02-30"}, "x.default"),
        ({"type": "string", "items": {"type": "string"}}, "x.items"),
        ({"type": "array", "items": {"type": "x"}}, "x.items"),
        ({"type": "array", "items": {"type": "integer"}, "default": [1, "2"]}, "x.default.1"),
        ({"type": "array", "properties": {}}, "x.properties"),
        ({"type": "object", "properties": []}, "x.properties"),
        ({"type": "object", "properties": {"a": {"type": "array", "items": 3}}}, "x.properties.a.items"),
        ({"type": "integer", "minimum": 3}, "x.minimum"),
    ],
)
def test_bad_schemas_are_refused(shelf: Api, field: Any, place: str) -> None:
    body = {"retriever_name": "r", "stages": [by("x")], "input_schema": {"x": field}}
    assert shelf.refused("POST", "/retrievers", body)[1] == [f"bad_input_schema@body.input_schema.{place}"]


def test_a_name_that_is_not_declared_is_an_error_when_it_is_stored(shelf: Api) -> None:
    body = {"retriever_name": "r", "stages": [by("x"), by("y")], "input_schema": {"y": {"type": "string"}}}
    assert shelf.refused("POST", "/retrievers", body)[0] == "unknown_input"
    shelf.retriever("r", by("x"), by("y"))  # one without a schema takes what its templates read
    changed = {"input_schema": {"x": {"type": "string"}}}
    assert shelf.refused("PATCH", "/retrievers/r", changed)[0] == "unknown_input"


def test_an_input_schema_may_change_in_any_way(shelf: Api) -> None:
    shelf.retriever("r", by("x"), input_schema={"x": {"type": "string"}})
    told = shelf("PATCH", "/retrievers/r", {"input_schema": {"x": {"type": "integer", "required": True}}})
    assert told["retriever"]["input_schema"]["x"]["type"] == "integer"
    assert shelf.refused("POST", "/retrievers/r/execute")[0] == "missing_input"
    shelf("PATCH", "/retrievers/r", {"input_schema": None})
    assert len(shelf.ids("r", inputs={"x": "y"})) == 5


def test_inputs_are_bounded(shelf: Api) -> None:
    shelf.retriever("r", by("x"))
    execute = "/retrievers/r/execute"
    assert shelf.refused("POST", execute, {"inputs": {"x": "y" * 2**23}}) == (
        "input_too_large",
        ["input_too_large@body.inputs"],
    )
    deep: Any = "x"
    for _ in range(63):
        deep = [deep]
    shelf("POST", execute, {"inputs": {"x": deep}})
    assert shelf.refused("POST", execute, {"inputs": {"x": [[deep]]}}) == ("too_deep", ["too_deep@body.inputs"])
    for _ in range(400):
        deep = {"a": deep}
    assert shelf.refused("POST", execute, {"inputs": {"x": deep}})[0] == "too_deep"
    batch = {"queries": [{"inputs": {"x": "y" * 2**22}}] * 3}
    assert shelf.refused("POST", f"{execute}/batch", batch)[0] == "input_too_large"
    schema: Any = {"type": "string"}
    for _ in range(9):
        schema = {"type": "array", "items": schema}
    body = {"retriever_name": "r", "stages": [by("x")], "input_schema": {"x": schema}}
    assert shelf.refused("POST", "/retrievers", body)[0] == "bad_input_schema"
