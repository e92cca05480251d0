"""The aggregate stage answers what a plain reading of its documentation computes."""

import json
import statistics
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.settings import Settings
from tests.stages import Given, Stages, stages_on

FUNCTIONS = ["count", "count_distinct", "sum", "avg", "min", "max", "first", "last", "collect", "collect_distinct"]
FUNCTIONS += ["percentile", "stddev", "variance", "frequency", "co_occurrence", "correlation"]
STATISTICS = ("sum", "avg", "percentile", "stddev", "variance", "correlation")


@pytest.fixture(scope="module")
async def stages(conninfo: str, settings: Settings) -> AsyncIterator[Stages]:
    async with stages_on(conninfo, settings, "stage_aggregate") as made:
        yield made


# The plain reading

ORDER = {dict: 5, list: 4, bool: 3, int: 2, float: 2, str: 1}


def key_of(value: Any) -> str:
    """Equal for what is the same JSON: 5.0 is 5, true is not 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        return "[" + ",".join(map(key_of, value)) + "]"
    return json.dumps(value)


def rank_of(value: Any) -> tuple[Any, ...]:
    """PostgreSQL's order of jsonb, for scalars and for lists by their lengths (as tests use them)."""
    return (ORDER[type(value)], len(value) if isinstance(value, list) else value)


def numbers(values: list[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


def correlation(pairs: list[tuple[Any, Any]]) -> float | None:
    both = [(x, y) for x, y in pairs if len(numbers([x, y])) == 2]
    if len({x for x, _ in both}) < 2 or len({y for _, y in both}) < 2:
        return None
    return statistics.correlation([x for x, _ in both], [y for _, y in both])


def percentile(found: list[Any], percent: float) -> float | None:
    if not found:
        return None
    place = (len(found) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(found) - 1)
    ordered = sorted(found)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def distinct(values: list[Any]) -> list[Any]:
    return list({key_of(value): value for value in reversed(values)}.values())[::-1]


def commonest(keys: list[str], most: int) -> list[tuple[str, int]]:
    counted = {key: keys.count(key) for key in dict.fromkeys(keys)}
    return sorted(counted.items(), key=lambda item: -item[1])[:most]


def expected(function: str, rows: list[dict[str, Any]]) -> Any:
    """What the function answers of fields `a` (and `b`)."""
    values = [row.get("a") for row in rows]
    there = [value for value in values if value is not None]
    found = numbers(there)
    match function:
        case "count":
            return len(there)
        case "count_distinct":
            return len(distinct(there))
        case "sum":
            return sum(found)
        case "avg":
            return statistics.fmean(found) if found else None
        case "min" | "max":
            return (min if function == "min" else max)(there, key=rank_of, default=None)
        case "first" | "last":
            return values[0 if function == "first" else -1] if values else None
        case "collect":
            return there
        case "collect_distinct":
            seen: dict[str, Any] = {}
            for value in there:
                seen.setdefault(key_of(value), value)
            return list(seen.values())
        case "frequency":
            return commonest([key_of(value) for value in there], 2)
        case _:
            return statistic(function, found, [(row.get("a"), row.get("b")) for row in rows])


def statistic(function: str, found: list[Any], pairs: list[tuple[Any, Any]]) -> Any:
    match function:
        case "percentile":
            return percentile(found, 30)
        case "stddev":
            return statistics.stdev(found) if len(found) > 1 else None
        case "variance":
            return statistics.variance(found) if len(found) > 1 else None
        case "co_occurrence":
            return commonest([f"{key_of(a)}|{key_of(b)}" for a, b in pairs if a is not None and b is not None], 2)
        case _:
            return correlation(pairs)


def shown(function: str, value: Any) -> Any:
    """The value so that equal JSON compares equal, and floats about."""
    if function == "frequency":
        return [(key_of(item["value"]), item["count"]) for item in value]
    if function == "co_occurrence":
        return [(f"{key_of(item['value'])}|{key_of(item['value_b'])}", item["count"]) for item in value]
    if function.startswith("collect"):
        return [key_of(item) for item in value]
    if function in STATISTICS:
        return None if value is None else pytest.approx(value, rel=1e-9, abs=1e-7)
    return key_of(value)


def aggregation(function: str) -> dict[str, Any]:
    asked: dict[str, Any] = {"function": function, "field": "a", "alias": f"the {function}"}
    if function in ("co_occurrence", "correlation"):
        asked["field_b"] = "b"
    if function == "percentile":
        asked["percentile_value"] = 30
    if function in ("frequency", "co_occurrence"):
        asked["top_k"] = 2
    return asked


# Few values, so that some are common.
scalars = st.sampled_from([0, 1, 2.0, -1.25, "x", "x", "5", True, None])
# Not []: to jsonb it is smaller than everything.
values = st.one_of(scalars, st.sampled_from([[1], ["x", 2]]))
fields = st.fixed_dictionaries({}, optional={"a": values, "b": values, "g": scalars, "h": st.sampled_from(["p", "q"])})


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(fields, max_size=8), st.sampled_from([[], ["g"], ["g", "h"]]))
def test_every_function_as_it_is_read(stages: Stages, given_fields: list[dict[str, Any]], keys: list[str]) -> None:
    rows: list[Given] = [(f"d{n}", None, row) for n, row in enumerate(given_fields)]
    asked = {"aggregations": [aggregation(function) for function in FUNCTIONS]}
    answer = stages(rows, ("aggregate", asked | {"group_by": [{"field": key} for key in keys]}))
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {} if keys else {(): []}
    for row in given_fields:
        groups.setdefault(tuple(key_of(row.get(key)) for key in keys), []).append(row)
    told = answer.told[1]
    assert answer.rows == []
    assert told["group_count"] == len(groups)
    assert [tuple(key_of(entry["group"][key]) for key in keys) for entry in told["aggregations"]] == list(groups)
    for entry, members in zip(told["aggregations"], groups.values(), strict=True):
        for function in FUNCTIONS:
            wanted = expected(function, members)
            if function not in (*STATISTICS, "frequency", "co_occurrence"):
                wanted = shown(function, wanted)
            assert wanted == shown(function, entry["metrics"][f"the {function}"]), function


ROWS: list[Given] = [
    ("a", 0.9, {"kind": "x", "price": 10, "info": {"tags": ["p", "q"]}}),
    ("b", 0.8, {"kind": "y", "price": 30}),
    ("c", 0.7, {"kind": "x", "price": "cheap"}),
    ("d", 0.6, {"price": 20}),
]


def test_groups_are_sorted_and_limited(stages: Stages) -> None:
    asked = {
        "aggregations": [{"function": "avg", "field": "price", "alias": "price"}, {"function": "count", "alias": "n"}],
        "group_by": [{"field": "kind", "alias": "sort"}],
    }

    def groups(**more: Any) -> list[Any]:
        found = stages(ROWS, ("aggregate", asked | more)).told[1]
        assert found["group_count"] == 3
        return [entry["group"]["sort"] for entry in found["aggregations"]]

    assert groups() == ["x", "y", None]
    assert groups(sort_by="price") == ["y", None, "x"]
    assert groups(sort_by="price", sort_order="asc", limit=2) == ["x", None]
    assert groups(sort_by="n") == ["x", "y", None]
    assert groups(sort_by="sort") == ["y", "x", None]
    assert groups(sort_by="null", limit=1) == ["x"]


def test_documents_go_on_where_they_are_included(stages: Stages) -> None:
    asked = {"aggregations": [{"function": "max", "field": "score", "alias": "best"}], "include_documents": True}
    answer = stages(ROWS, ("aggregate", asked), ("limit", {"limit": 2, "offset": 1}), ("aggregate", asked))
    assert answer.ids == ["b", "c"]
    assert [answer.told[n]["aggregations"][0]["metrics"]["best"] for n in (1, 3)] == [0.9, 0.8]


def test_lists_are_bounded_and_numbers_beyond_floats_left_out(stages: Stages) -> None:
    rows: list[Given] = [(f"r{n}", None, {"n": n % 1200}) for n in range(1300)]
    asked = [{"function": function, "field": "n", "alias": function} for function in ("collect", "collect_distinct")]
    metrics = stages(rows, ("aggregate", {"aggregations": asked})).told[1]["aggregations"][0]["metrics"]
    assert metrics["collect"] == metrics["collect_distinct"] == list(range(1000))
    large: list[Given] = [
        ("a", None, {"a": 10**400, "b": 1}),
        ("b", None, {"a": 1e306, "b": 2}),
        ("c", None, {"a": -1e306, "b": 3}),
    ]
    asked = [aggregation(function) for function in ("sum", "stddev", "percentile", "correlation")]
    metrics = stages(large, ("aggregate", {"aggregations": asked})).told[1]["aggregations"][0]["metrics"]
    assert metrics["the sum"] == 0
    assert metrics["the stddev"] == pytest.approx(2**0.5 * 1e306)
    assert metrics["the percentile"] == pytest.approx(-4e305)
    assert metrics["the correlation"] == -1


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"aggregations": []}, "out_of_range@aggregations"),
        ({"group_by": [{"field": f"f{n}"} for n in range(11)]}, "out_of_range@group_by"),
        ({"limit": 0}, "out_of_range@limit"),
        ({"sort_by": "price"}, "bad_parameter@sort_by"),
        ({"group_by": [{"field": "deep.n"}]}, "duplicate_name@aggregations"),
        ({"group_by": [{"field": "a..b", "alias": "g"}]}, "bad_field@group_by.0.field"),
        ({"aggregations": [{"function": "sum", "alias": "s"}]}, "bad_parameter@aggregations.0.field"),
        ({"aggregations": [{"function": "count", "alias": ""}]}, "bad_name@aggregations.0.alias"),
        (
            {"aggregations": [{"function": "correlation", "field": "a", "alias": "c"}]},
            "bad_parameter@aggregations.0.field_b",
        ),
        (
            {"aggregations": [{"function": "sum", "field": "a", "field_b": "b", "alias": "s"}]},
            "bad_parameter@aggregations.0.field_b",
        ),
        (
            {"aggregations": [{"function": "sum", "field": "a", "top_k": 3, "alias": "s"}]},
            "bad_parameter@aggregations.0.top_k",
        ),
        (
            {"aggregations": [{"function": "percentile", "field": "a", "percentile_value": 101, "alias": "s"}]},
            "out_of_range@aggregations.0.percentile_value",
        ),
    ],
)
def test_what_is_refused(stages: Stages, asked: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        stages([], ("aggregate", {"aggregations": [{"function": "count", "alias": "n"}]} | asked))
    places = [(each.code, each.location[5:]) for each in refused.value.problems]
    assert [f"{code}@{'.'.join(map(str, place))}" for code, place in places] == [problem]


def test_the_commonest_values_and_pairs_come_first(stages: Stages) -> None:
    pairs = [("x", 1), ("y", 2), ("z", 1), ("y", 2), ("z", 1), ("y", 1), (None, 1), ("w", None)]
    rows: list[Given] = [(f"r{n}", None, {"a": a, "b": b}) for n, (a, b) in enumerate(pairs)]
    asked = [aggregation(function) for function in ("frequency", "co_occurrence")]
    metrics = stages(rows, ("aggregate", {"aggregations": asked})).told[1]["aggregations"][0]["metrics"]
    assert metrics["the frequency"] == [{"value": "y", "count": 3}, {"value": "z", "count": 2}]
    assert metrics["the co_occurrence"] == [
        {"value": "y", "value_b": 2, "count": 2},
        {"value": "z", "value_b": 1, "count": 2},
    ]
