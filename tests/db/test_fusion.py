"""Searches and their fusion are what a plain model in Python makes of the same vectors and queries."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.catalog.namespaces import NewVector
from app.domain.documents.documents import Document
from app.settings import Settings
from tests.stages import Stages, stages_on

# Whole numbers and inner products, so that scores are exact and tie often.
RNG = np.random.default_rng(11)
DENSE = {f"d{n:02}": RNG.integers(-3, 4, 3).tolist() for n in range(24) if n % 6 != 5}
SPARSE = {f"d{n:02}": dict(zip([n % 7, 7 + n % 5], [1 + n % 3, 2], strict=True)) for n in range(24) if n % 4 != 3}
PAYLOAD = {f"d{n:02}": {"half": n % 2, "third": n % 3} for n in range(24)}
FAST: dict[str, Any] = {
    "max_examples": 40,
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@pytest.fixture(scope="module")
async def stages(conninfo: str, settings: Settings) -> AsyncIterator[Stages]:
    vectors = [NewVector("dense", 3, "dot"), NewVector("sparse", 20, "dot", kind="sparse")]
    stored = []
    for name, payload in PAYLOAD.items():
        of: dict[str, Any] = {"dense": DENSE[name]} if name in DENSE else {}
        if name in SPARSE:
            of["sparse"] = sparse(SPARSE[name])
        stored.append(Document(name, of, json.dumps(payload).encode()))
    async with stages_on(conninfo, settings, "fusion", vectors, {"things": stored}) as made:
        yield made


def sparse(vector: Mapping[int, float]) -> dict[str, Any]:
    return {"indices": list(vector), "values": list(vector.values())}


def found_by(search: Mapping[str, Any], rows: Sequence[str] | None = None) -> list[tuple[str, float]]:
    """The rows of one search, in their order."""
    query = search["query"]
    if search["feature_uri"] == "dense":
        scores = {name: float(np.dot(vector, query)) for name, vector in DENSE.items()}
    else:
        wanted = dict(zip(query["indices"], query["values"], strict=True))
        scores = {n: float(sum(v * wanted.get(i, 0) for i, v in vector.items())) for n, vector in SPARSE.items()}
        scores = {name: score for name, score in scores.items() if score > 0}
    kept = {name: score for name, score in scores.items() if rows is None or name in rows}
    if "filters" in search:
        wanted_half = search["filters"]["must"][0]["match"]["value"]
        kept = {name: score for name, score in kept.items() if PAYLOAD[name]["half"] == wanted_half}
    ranked = sorted(kept.items(), key=lambda item: (-item[1], item[0]))
    return [(name, score) for name, score in ranked if score >= search.get("min_score", -1e9)]


def fused(searches: Sequence[Mapping[str, Any]], fusion: str, k: int) -> dict[str, float]:
    sums: dict[str, float] = {}
    for search in searches:
        rows, weight = found_by(search), search["weight"]
        low, high = (min(s for _, s in rows), max(s for _, s in rows)) if rows else (0.0, 0.0)
        for rank, (name, score) in enumerate(rows, start=1):
            part = {
                "rrf": weight / (k + rank),
                "dbsf": weight * ((score - low) / (high - low) if high > low else 1.0),
                "weighted": weight * score,
                "max": score,
            }[fusion]
            sums[name] = max(sums.get(name, part), part) if fusion == "max" else sums.get(name, 0.0) + part
    return sums


NUMBER = st.integers(-3, 3)
DENSE_QUERY = st.fixed_dictionaries(
    {"feature_uri": st.just("dense"), "query": st.lists(NUMBER, min_size=3, max_size=3)}
)
INDICES = st.lists(st.integers(0, 11), min_size=1, max_size=5, unique=True)
SPARSE_QUERY = st.fixed_dictionaries(
    {
        "feature_uri": st.just("sparse"),
        "query": INDICES.map(lambda indices: sparse({index: 1 + index % 3 for index in indices})),
    }
)
OPTIONS = st.fixed_dictionaries(
    {"weight": st.sampled_from([0.25, 0.5, 1.0])},
    optional={
        "min_score": st.integers(-2, 6),
        "filters": st.integers(0, 1).map(lambda half: {"must": [{"key": "half", "match": {"value": half}}]}),
    },
)
SEARCH = st.tuples(st.one_of(DENSE_QUERY, SPARSE_QUERY), OPTIONS).map(lambda pair: {**pair[0], **pair[1]})


@given(
    searches=st.lists(SEARCH, min_size=1, max_size=3),
    fusion=st.sampled_from(["rrf", "dbsf", "weighted", "max"]),
    k=st.sampled_from([1, 60]),
    top_k=st.integers(1, 30),
)
@settings(**FAST)
def test_fusion_is_its_formula(stages: Stages, searches: list[dict[str, Any]], fusion: str, k: int, top_k: int) -> None:
    top_k = top_k if len(searches) > 1 else 30  # which of a search's last ties it finds is not promised
    parameters = {"searches": searches, "fusion": fusion, "rrf_k": k, "final_top_k": top_k, "explain_scores": True}
    answer = stages(None, ("feature_search", parameters))
    single = found_by(searches[0])
    expected = dict(single) if len(searches) == 1 else fused(searches, fusion, k)
    order = sorted(expected, key=lambda name: -expected[name])[:top_k]
    assert [row.score for row in answer.rows] == pytest.approx([expected[name] for name in order])
    assert all(row.score == pytest.approx(expected[row.document_id]) for row in answer.rows)
    assert [row.rank for row in answer.rows] == list(range(1, len(order) + 1))
    ties = [(-round(row.score or 0, 9), row.document_id) for row in answer.rows]
    assert ties == sorted(ties)
    told = answer.told[1]["searches"]
    for n, search in enumerate(searches, start=1):
        rows = found_by(search)
        assert told[n - 1]["returned"] == len(rows)
        scores = {name: {"rank": rank, "score": score} for rank, (name, score) in enumerate(rows, start=1)}
        shown = {row.document_id: row.fields["scores"].get(f"search_{n}") for row in answer.rows}
        assert shown == {name: scores.get(name) for name in shown}


@given(search=SEARCH, rows=st.lists(st.sampled_from(sorted(PAYLOAD)), min_size=1, max_size=12))
@settings(**FAST)
def test_a_later_stage_searches_among_its_rows_and_carries_their_fields(
    stages: Stages, search: dict[str, Any], rows: list[str]
) -> None:
    # A document may come more than once, as after an unwind.
    before = [(name, 1.0, {**PAYLOAD[name], "place": place}) for place, name in enumerate(rows)]
    answer = stages(before, ("feature_search", {"searches": [search]}))
    expected = [
        (name, score, place)
        for name, score in found_by(search, rows)
        for place, given_name in enumerate(rows)
        if given_name == name
    ]
    assert [(row.document_id, row.score, row.fields["place"]) for row in answer.rows] == expected[:25]


def test_filters_of_a_later_stage_read_the_fields_as_they_are(stages: Stages) -> None:
    before = [("d00", 1.0, {"half": 5}), ("d01", 0.5, {"half": 6}), ("d02", 0.4, {"half": 5})]
    search = {"feature_uri": "dense", "query": [1, 1, 1]}
    wanted = {"must": [{"key": "half", "match": {"value": 5}}]}
    by_search = stages(before, ("feature_search", {"searches": [search | {"filters": wanted}]}))
    by_stage = stages(before, ("feature_search", {"searches": [search], "filters": wanted}))
    assert sorted(by_search.ids) == sorted(by_stage.ids) == ["d00", "d02"]


# Facets


@given(searches=st.lists(SEARCH, max_size=2), limit=st.integers(1, 4))
@settings(**FAST)
def test_facets_count_what_the_searches_match(stages: Stages, searches: list[dict[str, Any]], limit: int) -> None:
    conditions = {"must": [{"key": "third", "range": {"gte": 1}}]}
    facets: list[Any] = [{"key": "half", "limit": limit, "exact": True}, "third", "nothing"]
    answer = stages(None, ("feature_search", {"searches": searches, "facets": facets, "filters": conditions}))
    matching = set() if searches else set(PAYLOAD)
    for search in searches:
        half = search["filters"]["must"][0]["match"]["value"] if "filters" in search else None
        of = DENSE if search["feature_uri"] == "dense" else SPARSE
        matching |= {name for name in of if half is None or PAYLOAD[name]["half"] == half}
    kept = [PAYLOAD[name] for name in matching if PAYLOAD[name]["third"] >= 1]
    expected = []
    for key, most in (("half", limit), ("third", 10), ("nothing", 10)):
        values = [payload[key] for payload in kept if key in payload]
        counts = sorted((-values.count(value), value) for value in set(values))[:most]
        expected.append({"key": key, "values": [{"value": value, "count": -count} for count, value in counts]})
    assert answer.told[1]["facets"] == expected


def test_facets_of_rows_and_of_arrays(stages: Stages) -> None:
    fields: list[Any] = [["a", "b", "a"], "b", None, {"x": 1}, True]
    before = [(f"d{n:02}", 1.0, {"tags": tags}) for n, tags in enumerate(fields)]
    answer = stages(before, ("feature_search", {"searches": [], "facets": ["tags"], "filters": {"must": []}}))
    counted = [(each["value"], each["count"]) for each in answer.told[1]["facets"][0]["values"]]
    assert counted[0] == ("b", 2)
    assert sorted(map(str, counted[1:])) == ["('a', 1)", "(True, 1)"]


# Groups and filters alone


def test_groups_are_those_of_the_stage_group_by(stages: Stages) -> None:
    search = {"feature_uri": "dense", "query": [2, 1, 3]}
    found = found_by(search)
    by_third: dict[int, list[str]] = {}
    for name, _ in found:
        by_third.setdefault(PAYLOAD[name]["third"], []).append(name)
    group: dict[str, Any] = {"field": "third", "max_per_group": 2, "limit": 2}
    groups = list(by_third.values())[:2]
    flat = stages(None, ("feature_search", {"searches": [search], "group_by": group | {"output_mode": "flatten"}}))
    assert flat.ids == [name for names in groups for name in names[:2]]
    assert [row.rank for row in flat.rows] == sorted({row.rank for row in flat.rows})
    first = stages(None, ("feature_search", {"searches": [search], "group_by": group | {"output_mode": "first"}}))
    assert first.ids == [names[0] for names in groups]
    every = stages(None, ("feature_search", {"searches": [search], "group_by": group}))
    assert [[d["document_id"] for d in row.fields["group_documents"]] for row in every.rows] == [n[:2] for n in groups]
    assert [row.fields["group_count"] for row in every.rows] == [len(names) for names in groups]
    short = stages(None, ("feature_search", {"searches": [search], "group_by": "third", "group_size": 2}))
    assert [len(row.fields["group_documents"]) for row in short.rows] == [2, 2, 2]


def test_without_searches_the_filters_answer(stages: Stages) -> None:
    conditions = {"must": [{"key": "half", "match": {"value": 1}}]}
    answer = stages(None, ("feature_search", {"filters": conditions, "final_top_k": 5}))
    assert answer.ids == [name for name in PAYLOAD if PAYLOAD[name]["half"]][:5]
    assert {row.score for row in answer.rows} == {None}
