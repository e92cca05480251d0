"""Aggregations and distinct values over HTTP, by example and against a reference in Python."""

import json
from collections import defaultdict
from datetime import datetime
from fractions import Fraction
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http import ROOT_KEY, Api, document

AGGREGATE = "/collections/_direct_upsert/documents/aggregate"
DISTINCT = "/collections/_direct_upsert/documents/distinct"
COUNT = {"function": "count", "alias": "n"}


@pytest.fixture
def sales(api: Api) -> Api:
    api.standalone(("v", 1))
    documents = [
        document(
            "a", {}, shop="x", price=1.10, at="2024-01-31T23:30:00Z", tags=["p", "q"], lines=[{"sum": 1}, {"sum": 2}]
        ),
        document("b", {}, shop="x", price=2, at="2024-02-01T00:30:00+01:00", tags=["p"], lines=[]),
        document("c", {}, shop="y", price=None, at="2024-02-29", tags="q", lines={"sum": 5}),
        document("d", {}, shop=None, price="free", at="no date", lines=[{"sum": 7}, None, {}]),
        document("e", {}, price=12345678901234567000, at=7),
    ]
    api.upsert(documents)
    return api


def rows(api: Api, *metrics: Any, **more: Any) -> list[Any]:
    answer = api("POST", AGGREGATE, {"aggregations": metrics or [COUNT], **more})
    assert answer["total_groups"] == len(answer["results"])
    return [(tuple(row["group"].values()), *row["metrics"].values()) for row in answer["results"]]


def metric(function: str, field: str | None = None, alias: str = "m") -> dict[str, Any]:
    return {"function": function, "field": field, "alias": alias}


def test_every_function(sales: Api) -> None:
    def by_shop(function: str, field: str = "price") -> list[Any]:
        found = rows(sales, metric(function, field), group_by=[{"field": "shop"}])
        assert [row[0] for row in found] == [("x",), ("y",), (None,)]
        return [row[1] for row in found]

    assert by_shop("count") == [2, 0, 2]
    assert by_shop("count_distinct") == [2, 0, 2]
    assert by_shop("sum") == [3.1, 0, 12345678901234567000]
    assert by_shop("avg") == [1.55, None, 12345678901234567000]
    assert by_shop("min") == [1.1, None, "free"]
    assert by_shop("max") == [2, None, 12345678901234567000]
    assert by_shop("first") == [1.1, None, "free"]
    assert by_shop("last") == [2, None, 12345678901234567000]
    assert by_shop("push") == [[1.1, 2], [], ["free", 12345678901234567000]]
    assert by_shop("add_to_set", "tags") == [[["p"], ["p", "q"]], ["q"], []]
    assert rows(sales) == [((), 5)]
    assert rows(sales, metric("sum", "price"), filters={"shop": "x"}) == [((), 3.1)]
    assert rows(sales, COUNT, filters={"shop": "none"}) == [((), 0)]
    assert rows(sales, COUNT, filters={"shop": "none"}, group_by=[{"field": "shop"}]) == []
    distinct = {"function": "count_distinct", "alias": "n", "distinct_field": "shop"}
    assert rows(sales, distinct) == [((), 2)]


def test_sums_keep_their_digits(sales: Api) -> None:
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": sales.namespace}
    for price in ("1.10", "12345678901234567890.5"):
        text = f'{{"huge": {price}}}'
        assert sales.http.post("/collections/_direct_upsert/documents", content=text, headers=headers).is_success
    body = {"aggregations": [metric("sum", "huge", "total")]}
    assert '"total":12345678901234567891.60' in sales.http.post(AGGREGATE, json=body, headers=headers).text


def test_dates_are_cut_and_taken_apart(sales: Api) -> None:
    def by(**group: str) -> list[Any]:
        return [(row[0][0], row[1]) for row in rows(sales, group_by=[{"field": "at", "alias": "t", **group}])]

    january, february = "2024-01-01T00:00:00+00:00", "2024-02-01T00:00:00+00:00"
    assert by(date_trunc="month") == [(january, 2), (february, 1), (None, 2)]
    assert by(date_trunc="hour")[0] == ("2024-01-31T23:00:00+00:00", 2)
    assert by(date_part="month") == [(1, 2), (2, 1), (None, 2)]
    assert by(date_part="dayOfWeek") == [(4, 2), (5, 1), (None, 2)]
    assert by(date_part="dayOfYear") == [(31, 2), (60, 1), (None, 2)]
    assert by(date_part="hour") == [(0, 1), (23, 2), (None, 2)]
    assert by(date_part="minute") == [(0, 1), (30, 2), (None, 2)]
    created = rows(sales, group_by=[{"field": "_internal.created_at", "date_trunc": "year"}])
    assert [row[1] for row in created] == [5]


def test_ranges(sales: Api) -> None:
    buckets = [{"field": "price", "boundaries": [0, 1.10, 2, 5.0], "default_bucket": "dear"}]
    assert rows(sales, range_buckets=buckets) == [(("0-1.1",), 1), (("1.1-2",), 1), (("dear",), 1), ((None,), 2)]
    buckets = [{"field": "price", "boundaries": [2]}]
    assert rows(sales, range_buckets=buckets) == [(("other",), 3), ((None,), 2)]


def test_unwinding(sales: Api) -> None:
    assert rows(sales, COUNT, metric("sum", "lines.sum"), unwind="lines") == [((), 6, 15)]
    by_tag = rows(sales, metric("push", "shop"), unwind="tags", group_by=[{"field": "tags"}])
    assert by_tag == [(("p",), ["x", "x"]), (("q",), ["x", "y"])]
    assert rows(sales, metric("first", "lines.sum"), metric("last", "lines.sum", "l"), unwind="lines") == [
        ((), 1, None)
    ]


def test_groups_are_kept_sorted_and_limited(sales: Api) -> None:
    group = [{"field": "shop"}]
    having = [{"field": "n", "operator": "gte", "value": 2}]
    assert rows(sales, group_by=group, having=having) == [(("x",), 2), ((None,), 2)]
    assert rows(sales, group_by=group, having=[{"field": "shop", "operator": "ne", "value": "x"}]) == [
        (("y",), 1),
        ((None,), 2),
    ]
    assert rows(sales, group_by=group, having=[{"field": "n", "operator": "gt", "value": "1"}]) == []
    assert rows(sales, group_by=group, sort_by="n") == [(("x",), 2), ((None,), 2), (("y",), 1)]
    assert rows(sales, group_by=group, sort_by="n", sort_direction="asc", limit=1) == [(("y",), 1)]
    assert rows(sales, group_by=group, sort_by="shop") == [(("y",), 1), (("x",), 2), ((None,), 2)]


def test_what_cannot_be_aggregated(sales: Api) -> None:
    body = {
        "aggregations": [metric("sum"), metric("count", "a..b"), COUNT],
        "group_by": [{"field": "at", "date_trunc": "day", "date_part": "hour"}],
        "range_buckets": [{"field": "at", "boundaries": [2, 1]}, {"field": "p", "boundaries": ["x"]}],
        "having": [{"field": "none", "operator": "gt", "value": 1}],
        "sort_by": "none",
        "limit": 0,
        "unwind": "",
    }
    code, problems = sales.refused("POST", AGGREGATE, body)
    assert code == "out_of_range"
    assert problems == [
        "out_of_range@body.limit",
        "missing_field@body.aggregations.0.field",
        "bad_field@body.aggregations.1.field",
        "one_of@body.group_by.0.date_part",
        "out_of_range@body.range_buckets.0.boundaries",
        "bad_type@body.range_buckets.1.boundaries",
        "duplicate_name@body",
        "duplicate_name@body",
        "unknown_name@body.sort_by",
        "unknown_name@body.having.0.field",
        "bad_field@body.unwind",
    ]
    assert sales.refused("POST", AGGREGATE, {"aggregations": []})[0] == "bad_type"
    assert sales.refused("POST", AGGREGATE, {"aggregations": [metric("median", "a")]})[0] == "bad_type"
    bad = {"aggregations": [COUNT], "having": [{"field": "n", "operator": "eq", "value": "\0"}]}
    assert sales.refused("POST", AGGREGATE, bad)[0] == "bad_value"


def test_distinct_values(sales: Api) -> None:
    answer = sales("POST", DISTINCT, {"field": "tags"})
    assert answer["values"] == [{"value": "p", "count": 2}, {"value": "q", "count": 2}]
    assert (answer["field"], answer["total_distinct"], answer["query_info"]) == ("tags", 2, {})
    shops = sales(
        "POST", DISTINCT, {"field": "shop", "limit": 1, "filters": {"AND": [{"field": "price", "operator": "exists"}]}}
    )
    assert shops["values"] == [{"value": "x", "count": 2}]
    assert sales("POST", DISTINCT, {"field": "none"})["values"] == []
    assert sales.refused("POST", DISTINCT, {"field": "", "limit": 10_001})[1] == [
        "out_of_range@body.limit",
        "bad_field@body.field",
    ]


# Against a reference in Python

NUMBERS = st.integers(-5, 5) | st.sampled_from([0.5, 1.25, -2.75])
PAYLOADS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "g": st.sampled_from(["x", "y", 1, True, None]),
            "n": NUMBERS | st.none() | st.sampled_from(["text", True]),
            "many": st.lists(NUMBERS, max_size=3) | NUMBERS | st.none(),
            "at": st.datetimes(datetime(2000, 1, 1), datetime(2003, 1, 1)).map(datetime.isoformat) | st.just("x"),
        },
    ),
    max_size=12,
)
FUNCTIONS = ["count", "count_distinct", "sum", "avg", "first", "last", "push", "add_to_set"]


def reference(payloads: list[dict[str, Any]], field: str, unwind: bool, year: bool) -> dict[str, list[Any]]:
    """Group → the metrics of `FUNCTIONS`, and how many rows."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for payload in payloads:
        many = payload.get("many")
        elements = [e for e in (many if isinstance(many, list) else [many]) if many is not None] if unwind else [None]
        for element in elements:
            key = payload.get("g")
            if year:
                at = payload.get("at", "x")
                key = None if at == "x" else datetime.fromisoformat(at).year
            groups[json.dumps(key)].append(element if unwind and field == "many" else payload.get(field))
    return {key: [*computed(values), len(values)] for key, values in groups.items()}


def computed(values: list[Any]) -> list[Any]:
    there = [value for value in values if value is not None]
    numbers = [Fraction(value) for value in there if isinstance(value, int | float) and not isinstance(value, bool)]
    once = {json.dumps(value) for value in there}
    total = sum(numbers, Fraction(0))
    average = float(total / len(numbers)) if numbers else None
    return [len(there), len(once), float(total), average, values[0], values[-1], there, once]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payloads=PAYLOADS, field=st.sampled_from(["n", "many"]), unwind=st.booleans(), year=st.booleans())
def test_aggregations_mean_what_the_reference_says(
    summing: httpx.Client, payloads: list[dict[str, Any]], field: str, unwind: bool, year: bool
) -> None:
    namespace = summing.headers["X-Namespace"]
    every = {"field": "document_id", "operator": "exists"}
    summing.request("DELETE", "/collections/_direct_upsert/documents/batch", json={"filters": every})
    documents = [document(f"d{n:02}", {}, **payload) for n, payload in enumerate(payloads)]
    if documents:
        assert summing.post(f"/namespaces/{namespace}/documents/upsert", json={"documents": documents}).is_success
    body = {
        "aggregations": [*(metric(function, field, function) for function in FUNCTIONS), COUNT],
        "group_by": [{"field": "at", "alias": "k", "date_part": "year"} if year else {"field": "g", "alias": "k"}],
        "unwind": "many" if unwind else None,
    }
    answer = summing.post(AGGREGATE, json=body)
    assert answer.is_success, answer.text
    found = {}
    for row in answer.json()["results"]:
        values = list(row["metrics"].values())
        values[3] = None if values[3] is None else pytest.approx(values[3])
        found[json.dumps(row["group"]["k"])] = [*values[:7], {json.dumps(value) for value in values[7]}, values[8]]
    assert found == reference(payloads, field, unwind, year)


@pytest.fixture
def summing(api: Api) -> httpx.Client:
    api.standalone(("v", 1))
    api.http.headers.update({"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": api.namespace})
    return api.http
