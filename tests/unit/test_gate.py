"""The gate of a migration of models, and what it is measured by."""

from typing import Any

import pytest

from app.domain.models.comparing import ndcg, overlap
from app.domain.models.model_migrations import Gate, checks

GOOD = {"coverage": 0.995, "queries": 20, "judged": 5, "overlap": 0.6, "ndcg_after": 0.8}


@pytest.mark.parametrize(
    ("gate", "metrics", "unmet"),
    [
        (Gate(), {}, ["min_coverage"]),
        (Gate(), GOOD, []),
        (Gate(min_coverage=1.0), GOOD, ["min_coverage"]),
        (Gate(min_overlap=0.6, min_ndcg=0.8, min_queries=20), GOOD, []),
        (Gate(min_overlap=0.61, min_ndcg=0.81, min_queries=21), GOOD, ["min_queries", "min_overlap", "min_ndcg"]),
        (Gate(min_overlap=0.0), GOOD | {"queries": 0, "overlap": None}, ["min_queries", "min_overlap"]),
        (Gate(min_ndcg=0.0), GOOD | {"judged": 0, "ndcg_after": None}, ["min_ndcg"]),
    ],
)
def test_the_gate_is_met_by_what_was_measured_alone(gate: Gate, metrics: dict[str, Any], unmet: list[str]) -> None:
    assert [check.name for check in checks(gate, metrics) if not check.met] == unmet


@pytest.mark.parametrize(
    ("found", "relevant", "expected"),
    [
        (["a", "b"], ["a"], 1.0),
        (["b", "a"], ["a"], 0.6309),
        (["b"], ["a"], 0.0),
        ([], ["a"], 0.0),
        (["a", "x", "b"], ["a", "b"], 0.9197),
        ([f"d{n}" for n in range(10)], [f"d{n}" for n in range(50)], 1.0),
    ],
)
def test_ndcg_is_that_of_the_textbook(found: list[str], relevant: list[str], expected: float) -> None:
    assert ndcg(found, relevant) == pytest.approx(expected, abs=1e-4)


def test_overlap_is_the_share_of_the_longer_list() -> None:
    assert overlap(["a", "b", "c"], ["c", "b", "x"]) == pytest.approx(2 / 3)
    assert (overlap([], []), overlap(["a"], [])) == (1.0, 0.0)
