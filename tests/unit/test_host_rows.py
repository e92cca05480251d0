"""Rows between stages, and paths into JSON: what is put is got, and nothing is changed in place."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.retrieval import json_path
from app.retrieval.host import Row

NAMES = st.text("ab.", min_size=1, max_size=6).filter(lambda path: "" not in path.split("."))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "ab"]), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from(["a", "b", "ab"]), JSON, max_size=3)


@given(FIELDS, NAMES, JSON)
def test_what_is_put_is_got_and_the_rest_stays(fields: dict[str, Any], path: str, value: Any) -> None:
    before = copy.deepcopy(fields)
    row = Row("d", 1.0, fields)
    row.put(path, value)
    assert row.get(path) == value
    assert fields == before
    first = path.split(".")[0]
    assert {key: item for key, item in row.fields.items() if key != first} == {
        key: item for key, item in before.items() if key != first
    }


def test_a_row_is_read() -> None:
    row = Row("d", 0.5, {"a": {"b": [1, {"c": None}]}, "t": "x", "score": "own"})
    assert (row.get("a.b.0"), row.get("a.b.1.c"), row.get("a.x"), row.get("t.x")) == (1, None, None, None)
    assert (row.get("document_id"), row.get("score")) == ("d", "own")
    assert Row("d", 0.5).get("score") == 0.5
    assert (row.text("a"), row.text("t"), row.text("x")) == ('{"b": [1, {"c": null}]}', "x", "")


@pytest.mark.parametrize(
    ("path", "value"),
    [("$", {"a": [{"b c": 1}, 2]}), ("$.a[0]['b c']", 1), ("$.a[-1]", 2), ("$['a'][1]", 2), ("$.a", [{"b c": 1}, 2])],
)
def test_paths(path: str, value: Any) -> None:
    assert json_path.value_at({"a": [{"b c": 1}, 2]}, json_path.parse(path)) == value


@pytest.mark.parametrize("path", ["", "a", "$..a", "$.*", "$[*]", "$.a[0:1]", "$[?(@.a)]", "$.", "$[a]", "$ .a"])
def test_paths_that_name_more_than_one_value(path: str) -> None:
    with pytest.raises(ValueError, match=r"a path is \$"):
        json_path.parse(path)


@pytest.mark.parametrize("path", ["$.b", "$.a[2]", "$.a.b", "$[0]", "$.a['b c']"])
def test_what_is_not_there(path: str) -> None:
    with pytest.raises(LookupError):
        json_path.value_at({"a": [{"b c": 1}, 2]}, json_path.parse(path))


@given(st.text(max_size=12), JSON)
def test_any_path_is_followed_or_refused(path: str, value: Any) -> None:
    try:
        json_path.value_at(value, json_path.parse(f"${path}"))
    except (ValueError, LookupError):
        return
    assert path == "" or path[0] in ".["
