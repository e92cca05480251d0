"""The mmr stage selects what its formula says, step by step."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.catalog.namespaces import NewVector
from app.domain.documents.documents import Document
from app.errors import InvalidRequest
from app.settings import Settings
from tests.stages import Found, Given, Stages, stages_on

TIGHT: dict[str, Any] = {
    "max_examples": 40,
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}
DIRECTIONS: list[list[float]] = [
    [1, 0, 0],
    [2, 0, 0],
    [1, 1, 0],
    [0, 1, 0],
    [0, 1, 1],
    [0, 0, 3],
    [-1, 0, 0],
    [3, -1, 2],
]
# The last document has no vectors.
VECTORS: dict[str, list[float] | None] = {"none": None, **{f"d{n}": v for n, v in enumerate(DIRECTIONS)}}
OTHERS: dict[str, list[float] | None] = {"none": None, **{f"d{n}": [n + 1.0, 1] for n in range(len(DIRECTIONS))}}


@pytest.fixture(scope="module")
async def stages(conninfo: str, settings: Settings) -> AsyncIterator[Stages]:
    vectors = [NewVector("v", 3), NewVector("w", 2, "euclidean"), NewVector("s", 9, "dot", kind="sparse")]
    stored = []
    for name in VECTORS:
        given_vectors = {key: of[name] for key, of in (("v", VECTORS), ("w", OTHERS)) if of[name] is not None}
        stored.append(Document(name, given_vectors, json.dumps({"name": name}).encode()))
    async with stages_on(conninfo, settings, "stage_mmr", vectors, {"things": stored}) as made:
        yield made


def similarity(metric: str, one: list[float] | None, other: list[float] | None) -> float:
    if one is None or other is None:
        return 0.0
    a, b = np.array(one), np.array(other)
    if metric == "euclidean":
        return 1 / (1 + float(np.linalg.norm(a - b)))
    return float(a @ b) / (float(np.linalg.norm(a) * np.linalg.norm(b)) if metric == "cosine" else 1.0)


def hold(
    rows: list[Given],
    found: list[Found],
    balance: float,
    alike: Callable[[str, str], float],
    relevance: dict[str, float],
) -> None:
    """Each step took one that no other beat (by more than rounding), in the order of the rows where all are equal."""
    selected: list[str] = []
    for row in found:
        sums = {}
        for name, *_ in rows:
            if name not in selected:
                nearest = max((alike(name, other) for other in selected), default=0.0)
                sums[name] = balance * relevance[name] - (1 - balance) * nearest
        if not selected:  # the first is the most relevant, whatever the balance
            assert relevance[row.document_id] == max(relevance.values())
        else:
            assert sums[row.document_id] >= max(sums.values()) - 1e-6
        assert row.fields["scores"]["mmr"] == pytest.approx(sums[row.document_id], abs=1e-6)
        selected.append(row.document_id)
    assert len(set(selected)) == len(selected)


chosen_rows = st.lists(
    st.tuples(st.sampled_from(sorted(VECTORS)), st.one_of(st.none(), st.integers(-2, 4).map(lambda n: n / 4))),
    unique_by=lambda row: row[0],
    max_size=9,
)


@settings(**TIGHT)
@given(
    chosen_rows,
    st.sampled_from([0, 0.3, 0.5, 0.7, 1]),
    st.integers(1, 9),
    st.sampled_from(["cosine", "dot", "euclidean"]),
)
def test_vectors(
    stages: Stages, chosen: list[tuple[str, float | None]], balance: float, top_k: int, metric: str
) -> None:
    rows: list[Given] = [(name, score, {"name": name}) for name, score in chosen]
    asked = {"lambda": balance, "top_k": top_k, "diversity_feature_uri": "v", "similarity_metric": metric}
    found = stages(rows, ("mmr", asked)).rows
    assert len(found) == min(top_k, len(rows))
    assert [row.rank for row in found] == list(range(1, len(found) + 1))
    assert [(row.document_id, row.score) for row in found] == [
        (row.document_id, dict(chosen)[row.document_id]) for row in found
    ]
    relevance = {name: score or 0.0 for name, score in chosen}
    hold(rows, found, balance, lambda a, b: similarity(metric, VECTORS[a], VECTORS[b]), relevance)


@settings(**TIGHT)
@given(chosen_rows, st.sampled_from([0.3, 0.8]), st.sampled_from([(0.5, 1), (1, 0), (0.25, 0.75)]))
def test_several_vectors_by_their_weights(
    stages: Stages, chosen: list[tuple[str, float | None]], balance: float, weights: tuple[float, float]
) -> None:
    rows: list[Given] = [(name, score, {}) for name, score in chosen]
    features = [{"feature_uri": name, "weight": weight} for name, weight in zip("vw", weights, strict=True)]
    found = stages(rows, ("mmr", {"lambda": balance, "diversity_features": features})).rows

    def alike(a: str, b: str) -> float:
        of = [similarity("cosine", vectors[a], vectors[b]) for vectors in (VECTORS, OTHERS)]
        return sum(weight * each for weight, each in zip(weights, of, strict=True)) / sum(weights)

    hold(rows, found, balance, alike, {name: score or 0.0 for name, score in chosen})


def same(one: dict[str, Any], other: dict[str, Any], field: str) -> bool:
    a, b = one.get(field), other.get(field)
    return a is not None and type(a) is type(b) and a == b


attributes = st.fixed_dictionaries(
    {"n": st.one_of(st.none(), st.integers(0, 4), st.just("many"))},
    optional={"color": st.sampled_from(["red", "blue", 1, True, None, ["red"]]), "maker": st.sampled_from("xy")},
)


@settings(**TIGHT)
@given(st.lists(attributes, max_size=10), st.sampled_from([0, 0.4, 0.9]), st.sampled_from([None, {"color": 3}]))
def test_fields(stages: Stages, given_fields: list[dict[str, Any]], balance: float, weights: Any) -> None:
    of = {f"x{n}": fields for n, fields in enumerate(given_fields)}
    rows: list[Given] = [(name, 1.0, {"info": fields}) for name, fields in of.items()]
    asked = {"lambda": balance, "diversity_fields": ["info.color", "info.maker"], "score_field": "info.n"}
    asked["diversity_field_weights"] = weights and {"info.color": 3}
    found = stages(rows, ("mmr", asked)).rows
    color = 3 if weights else 1

    def alike(a: str, b: str) -> float:
        return (color * same(of[a], of[b], "color") + same(of[a], of[b], "maker")) / (color + 1)

    relevance = {name: float(row["n"]) if isinstance(row["n"], int) else 0.0 for name, row in of.items()}
    hold(rows, found, balance, alike, relevance)


def test_equal_ones_keep_their_order_and_only_the_best_500_take_part(stages: Stages) -> None:
    rows: list[Given] = [(f"r{n}", 1.0, {"color": "red"}) for n in range(510)]
    rows[507] = ("late", 9.0, {"color": "blue"})
    found = stages(rows, ("mmr", {"top_k": 500, "diversity_fields": ["color"]}))
    assert found.ids == [f"r{n}" for n in range(500)]


def test_what_is_beyond_numbers_does_no_harm(stages: Stages) -> None:
    rows: list[Given] = [
        ("d0", None, {"n": 10**400}),
        ("d1", None, {"n": 1e306}),
        ("d3", None, {"n": -1e-400}),
        ("none", None, {}),
    ]
    found = stages(rows, ("mmr", {"score_field": "n", "diversity_feature_uri": "v", "mmr_score_field": "score"}))
    assert found.ids == ["d1", "d3", "none", "d0"]
    assert [row.score for row in found.rows] == pytest.approx([0.7e300, 0.0, 0.0, -0.3])
    assert all("scores" not in row.fields for row in found.rows)


def test_which_index_must_be_said_where_there_are_several(stages: Stages) -> None:
    with pytest.raises(InvalidRequest, match="Give one of"):
        stages([], ("mmr", {"diversity_feature_uri": "null"}))


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"lambda": 1.1}, ("out_of_range", "lambda")),
        ({"top_k": 501}, ("out_of_range", "top_k")),
        ({"diversity_feature_uri": "x"}, ("unknown_index", "diversity_feature_uri")),
        ({"diversity_feature_uri": "s"}, ("bad_parameter", "diversity_feature_uri")),
        ({"diversity_feature_uri": "v", "diversity_fields": ["a"]}, ("bad_parameter", "diversity_fields")),
        ({"diversity_features": [{"feature_uri": "v", "weight": 2}]}, ("out_of_range", "weight")),
        ({"diversity_features": [{"feature_uri": "v", "weight": 0}]}, ("out_of_range", "diversity_features")),
        ({"diversity_fields": ["a"], "diversity_field_weights": {"b": 1}}, ("bad_parameter", "b")),
        ({"diversity_fields": ["a"], "mmr_score_field": ".".join("x" * 17)}, ("bad_field", "mmr_score_field")),
        ({"diversity_fields": [f"f{n}" for n in range(11)]}, ("out_of_range", "diversity_fields")),
    ],
)
def test_what_is_refused(stages: Stages, asked: dict[str, Any], problem: tuple[str, str]) -> None:
    if not any(name.startswith("diversity") for name in asked):
        asked = asked | {"diversity_fields": ["a"]}
    with pytest.raises(InvalidRequest) as refused:
        stages([], ("mmr", asked))
    assert [(each.code, each.location[-1]) for each in refused.value.problems] == [problem]
