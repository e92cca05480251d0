"""MaxSim in SQL is what numpy makes of the same vectors: exactly, over candidates of an index, and as a reranker."""

import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.domain.catalog.namespaces import NewVector
from app.domain.documents.documents import Document
from app.errors import InvalidRequest, Problems
from app.retrieval.compiler import compile_plan
from app.retrieval.pipeline import Segment, parse_pipeline
from app.retrieval.strategy import Way
from app.settings import Settings
from tests.data import glove
from tests.stages import LIMITS, Stages, stages_on

METRICS = ("cosine", "dot", "euclidean")
SIZES = (1, 2, 3, 5, 4, 1, 6, 2)
RNG = np.random.default_rng(4)
# Small whole numbers, so that scores tie; the last document has no vectors.
STORED = {f"d{n}": RNG.integers(-3, 4, (size, 3)) + np.array([0, 0, 5]) for n, size in enumerate(SIZES)}

Matrix = NDArray[Any]


def similarities(metric: str, query: Matrix, vectors: Matrix) -> Matrix:
    """Shape (queries, vectors)."""
    products: Matrix = query @ vectors.T
    if metric == "euclidean":
        products = 1 / (1 + np.linalg.norm(query[:, None] - vectors[None], axis=2))
    elif metric == "cosine":
        products = products / (np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)[None])
    return products


def maxsim(metric: str, query: Any, vectors: Matrix) -> float:
    return float(similarities(metric, np.array(query, float), vectors.astype(float)).max(axis=1).sum())


def ranked(metric: str, query: Any, stored: dict[str, Matrix]) -> list[tuple[str, float]]:
    scores = {name: maxsim(metric, query, vectors) for name, vectors in stored.items()}
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


@pytest.fixture(scope="module")
async def stages(conninfo: str, settings: Settings) -> AsyncIterator[Stages]:
    vectors = [NewVector(metric, 3, metric, kind="multi") for metric in METRICS]
    documents = [
        Document(name, dict.fromkeys(METRICS, rows.tolist()), json.dumps({"size": len(rows)}).encode())
        for name, rows in STORED.items()
    ]
    documents.append(Document("none", {}, b"{}"))
    async with stages_on(conninfo, settings, "maxsim", vectors, {"things": documents}) as made:
        yield made


NUMBERS = st.lists(st.integers(-4, 4), min_size=3, max_size=3).filter(any)


@given(metric=st.sampled_from(METRICS), query=st.lists(NUMBERS, min_size=1, max_size=5), top_k=st.integers(1, 10))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_search_finds_the_greatest_sums(stages: Stages, metric: str, query: list[list[int]], top_k: int) -> None:
    search = {"feature_uri": metric, "query": {"input_mode": "vector", "value": query}, "top_k": top_k}
    found = stages(None, ("feature_search", {"searches": [search]}))
    expected = ranked(metric, query, STORED)[:top_k]
    assert [row.score for row in found.rows] == pytest.approx([score for _, score in expected], abs=1e-5)
    scores = dict(ranked(metric, query, STORED))
    assert all(row.score == pytest.approx(scores[row.document_id], abs=1e-5) for row in found.rows)


def test_one_vector_is_a_query_too(stages: Stages) -> None:
    one = stages(None, ("feature_search", {"searches": [{"feature_uri": "dot", "query": [1, 2, 3]}]}))
    several = stages(None, ("feature_search", {"searches": [{"feature_uri": "dot", "query": [[1, 2, 3]]}]}))
    assert one.rows == several.rows
    assert len(one.rows) == len(STORED)


def test_a_document_is_a_query_and_not_its_own_answer(stages: Stages) -> None:
    query = {"input_mode": "document", "document_ref": {"document_id": "{{INPUT.id}}"}}
    found = stages(
        None, ("feature_search", {"searches": [{"feature_uri": "dot", "query": query}]}), inputs={"id": "d3"}
    )
    others = {name: rows for name, rows in STORED.items() if name != "d3"}
    assert [row.score for row in found.rows] == pytest.approx([s for _, s in ranked("dot", STORED["d3"], others)])
    for missing in ("none", "nobody"):
        stage = ("feature_search", {"searches": [{"feature_uri": "dot", "query": query}]})
        answer = stages(None, stage, inputs={"id": missing})
        assert answer.rows == []
        assert answer.told[1]["searches"] == [
            {"search": 1, "asked": 25, "returned": 0, "exhausted": True, "missing_document": True}
        ]


def test_filters_and_a_search_among_rows(stages: Stages) -> None:
    few = {"must": [{"key": "size", "range": {"lte": 2}}]}
    search = {"feature_uri": "cosine", "query": [[1, 0, 1], [0, 1, 1]]}
    expected = [name for name, _ in ranked("cosine", search["query"], STORED) if len(STORED[name]) <= 2]
    assert stages(None, ("feature_search", {"searches": [search | {"filters": few}]})).ids == expected
    kept = ("attribute_filter", {"conditions": few})
    assert stages(None, kept, ("feature_search", {"searches": [search]})).ids == expected


# The reranker


def test_the_reranker_orders_the_first_rows(stages: Stages) -> None:
    query = [[1, 0, 2], [0, 2, 1]]
    rows = [("d5", 0.9, {"n": 0}), ("none", 0.8, {"n": 1}), ("d2", 0.7, {"n": 2}), ("d6", 0.6, {"n": 3})]
    scores = dict(ranked("dot", query, STORED))
    stage: dict[str, Any] = {"feature_uri": "dot", "query": "{{INPUT.q}}", "top_n": 3}
    found = stages(rows, ("maxsim_rerank", stage), inputs={"q": query})
    best = sorted(("d5", "d2"), key=lambda name: -scores[name])
    assert found.ids == [*best, "none", "d6"]
    assert [row.score for row in found.rows] == [*(pytest.approx(scores[name]) for name in best), None, None]
    assert [row.rank for row in found.rows] == [1, 2, 3, 4]
    assert {row.document_id: row.fields["n"] for row in found.rows} == {"d5": 0, "none": 1, "d2": 2, "d6": 3}
    dropped = stages(rows, ("maxsim_rerank", stage | {"missing": "drop"}), inputs={"q": query})
    assert dropped.ids == [*best, "d6"]


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"feature_uri": "nothing", "query": [[1, 2, 3]]}, "unknown_index"),
        ({"feature_uri": "dot", "query": "some words"}, "text_needs_service"),
        ({"feature_uri": "dot", "query": [[1, 2]]}, "bad_vector"),
        ({"feature_uri": "dot", "query": [[1, 2, 3]], "top_n": 1_001}, "out_of_range"),
        ({"feature_uri": "dot", "query": [[1, 2, 3]], "match_on": "root_object_id"}, "not_offered"),
    ],
)
def test_what_the_reranker_refuses(stages: Stages, parameters: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        stages([("d1", 1.0, {})], ("maxsim_rerank", parameters))
    assert [problem.code for problem in refused.value.problems] == [code]


# Candidates of an index

DOCUMENTS = 1_500


@pytest.fixture(scope="module")
async def many(conninfo: str, settings: Settings) -> AsyncIterator[tuple[Stages, Matrix]]:
    """Documents of 4 words each that lie near a common one, as the tokens of a text do: (documents, 4, 50)."""
    words = glove.load().stored[:3_000]
    unit = words / np.linalg.norm(words, axis=1, keepdims=True)
    near = np.argsort(-(unit[:DOCUMENTS] @ unit.T), axis=1)[:, :4]
    stored = words[near]
    documents = [Document(f"{n:04}", {"v": rows.tolist()}, b'{"half": %d}' % (n % 2)) for n, rows in enumerate(stored)]
    async with stages_on(
        conninfo, settings, "maxsim_many", [NewVector("v", 50, kind="multi")], {"t": documents}
    ) as made:
        made.conn.execute("ANALYZE maxsim_many.documents_v")
        yield made, stored


def found_by(stages: Stages, way: Way, query: Matrix, filters: Any = None) -> tuple[list[str], dict[str, Any], str]:
    """The ten best by this strategy, what the search told, and PostgreSQL's plan."""
    search = {"feature_uri": "v", "query": "{{INPUT.q}}", "filters": filters}
    raw = [{"config": {"stage_id": "feature_search", "parameters": {"searches": [search], "final_top_k": 10}}}]
    pipeline = parse_pipeline(raw, LIMITS, Problems())
    chosen = {"s1_search_1": way}
    plan = compile_plan(
        Segment(0, pipeline.steps),
        stages.catalog,
        LIMITS,
        retriever_id=None,
        provided=frozenset({"q"}),
        ways=chosen,
    )
    assert [shape.ready for shape in plan.shapes] == [True]
    values = {bind.name: bind.convert(bind.value) for bind in plan.binds if bind.name != "s1_query_1"}
    values |= {"s1_query_1": list(query.astype(np.float32)), "page_limit": None, "page_offset": 0}
    with stages.conn.transaction():
        for name, value in (("hnsw.ef_search", "160"), ("hnsw.iterative_scan", "relaxed_order")):
            stages.conn.execute("SELECT set_config(%s, %s, true)", [name, value])
        explained = "\n".join(row[0] for row in stages.conn.execute("EXPLAIN " + plan.text, values))
        rows = stages.conn.execute(plan.text, values).fetchall()
    return [row[6] for row in rows], json.loads(rows[0][3])[0][0], explained


@pytest.mark.parametrize("filters", [None, {"must": [{"key": "half", "match": {"value": 1}}]}])
def test_candidates_of_the_index_are_nearly_the_exact_ones(many: tuple[Stages, Matrix], filters: Any) -> None:
    stages, stored = many
    words = glove.load().queries
    unit = words / np.linalg.norm(words, axis=1, keepdims=True)
    queries = [words[np.argsort(-(unit[n] @ unit.T))[:4]] for n in range(15)]
    way, hits = Way("hnsw" if filters is None else "hnsw_iterative"), 0
    for query in queries:
        found, told, plan = found_by(stages, way, query, filters)
        assert "documents_v_hnsw" in plan
        assert (told["returned"], told["exhausted"], len(found)) == (10, False, 10)
        kept = {f"{n:04}": rows for n, rows in enumerate(stored) if filters is None or n % 2 == 1}
        exact = found_by(stages, Way("exact"), query, filters)[0]
        best = ranked("cosine", query, kept)
        scores = dict(best)
        assert [scores[name] for name in exact] == pytest.approx([score for _, score in best[:10]], abs=1e-5)
        hits += len(set(found) & set(exact))
    assert hits / (len(queries) * 10) >= 0.95


def test_too_few_candidates_are_made_up_for(many: tuple[Stages, Matrix]) -> None:
    stages, _ = many
    one = {"must": [{"key": "document_id", "match": {"any": [f"{n:04}" for n in range(0, 700, 70)]}}]}
    query = glove.load().queries[:2]
    exact = found_by(stages, Way("exact"), query, one)
    assert len(exact[0]) == 10
    found, told, _ = found_by(stages, Way("hnsw_iterative", scan=16), query, one)
    assert (found, told["exhausted"]) == (exact[0], True)
