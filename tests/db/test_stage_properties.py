"""Stages on scores and groups answer what a plain reading of their documentation computes."""

import json
import math
import statistics
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.settings import Settings
from tests.stages import Answer, Given, Stages, stages_on

TIGHT: dict[str, Any] = {
    "max_examples": 40,
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@pytest.fixture(scope="module")
async def stages(conninfo: str, settings: Settings) -> AsyncIterator[Stages]:
    async with stages_on(conninfo, settings, "stage_properties") as made:
        yield made


# What goes in

numbers = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, -1.25, 2.0]))
scores = st.one_of(st.none(), numbers)
values = st.sampled_from([None, 0, 1, 1.0, True, "1", "a", "A", "é", "É", [1], [], ["a"], {"x": 1}, {"x": None}])
fields = st.fixed_dictionaries(
    {}, optional={"kind": values, "info": st.fixed_dictionaries({}, optional={"score": st.one_of(numbers, values)})}
)


@st.composite
def given_rows(draw: st.DrawFn) -> list[Given]:
    """Rows whose ids say nothing of their order; some documents have several."""
    rows = draw(st.lists(st.tuples(st.integers(0, 40), scores, fields), max_size=12))
    return [(f"d{n}", None if score is None else float(score), found) for n, score, found in rows]


def value_at(row: Given, field: str) -> Any:
    """None where it is missing or null."""
    found: Any = {**row[2], "document_id": row[0], "score": row[1]}
    for name in field.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def key_of(value: Any) -> str:
    """Equal for what is the same JSON: 1.0 is 1, true is not."""
    if isinstance(value, list | dict):
        items = enumerate(value) if isinstance(value, list) else sorted(value.items())
        return f"{type(value).__name__}({', '.join(f'{name}: {key_of(item)}' for name, item in items)})"
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def score_at(row: Given, field: str) -> float | None:
    found = value_at(row, field)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def is_as(answer: Answer, rows: Sequence[Given]) -> bool:
    """The answer is these rows, whole, in this order."""
    ranks = [row.rank for row in answer.rows]
    assert ranks == sorted(set(ranks))
    return [(row.document_id, row.score, row.fields) for row in answer.rows] == list(rows)


score_fields = st.sampled_from(["score", "info.score", "kind"])


# sort_relevance


@settings(**TIGHT)
@given(given_rows(), score_fields, st.booleans(), st.sampled_from(["bottom", "top", "preserve"]))
def test_sort_relevance(stages: Stages, rows: list[Given], field: str, down: bool, missing: str) -> None:
    there = [row for row in rows if score_at(row, field) is not None]
    there.sort(key=lambda row: (score_at(row, field) or 0.0) * (-1 if down else 1))  # stable
    without = [row for row in rows if score_at(row, field) is None]
    if missing == "preserve":
        ordered = iter(there)
        wanted = [row if score_at(row, field) is None else next(ordered) for row in rows]
    else:
        wanted = there + without if missing == "bottom" else without + there
    asked = {"score_field": field, "direction": "desc" if down else "asc", "missing_score": missing}
    assert is_as(stages(rows, ("sort_relevance", asked)), wanted)


def test_numbers_that_are_no_scores_are_missing(stages: Stages) -> None:
    rows: list[Given] = [("a", 1.0, {"s": 10**400}), ("b", 2.0, {"s": -1e300}), ("c", None, {"s": 3})]
    assert stages(rows, ("sort_relevance", {"score_field": "s"})).ids == ["c", "b", "a"]


# score_threshold


@settings(**TIGHT)
@given(given_rows(), score_fields, st.booleans(), st.booleans(), st.one_of(numbers, st.just("{{INPUT.least}}")))
def test_score_threshold(stages: Stages, rows: list[Given], field: str, above: bool, keep: bool, least: Any) -> None:
    bound = 0.5 if isinstance(least, str) else least

    def passes(row: Given) -> bool | None:
        score = score_at(row, field)
        return None if score is None else score > bound if above else score >= bound

    asked = {"min_score": least, "score_field": field, "comparison": "gt" if above else "gte"}
    asked["missing_score"] = "keep" if keep else "drop"
    answer = stages(rows, ("score_threshold", asked), inputs={"least": 0.5})
    assert is_as(answer, [row for row in rows if passes(row) or (keep and passes(row) is None)])
    assert answer.told[1] == {"all_below_threshold": bool(rows) and not any(map(passes, rows))}


# score_normalize


def normalized(method: str, x: list[float], low: float | None, high: float | None) -> list[float]:
    least, most = min(x) if low is None else low, max(x) if high is None else high
    match method:
        case "min_max" if most > least:
            return [min(1.0, max(0.0, (each - least) / (most - least))) for each in x]
        case "min_max":
            return [float(each >= least) for each in x]
        case "z_score":
            deviation = statistics.pstdev(x)
            return [(each - statistics.fmean(x)) / deviation if deviation else 0.0 for each in x]
        case "softmax":
            return [math.exp(each) / sum(map(math.exp, x)) for each in x]
        case _:
            norm = math.sqrt(sum(each * each for each in x))
            return [each / norm if norm else 0.0 for each in x]


@settings(**TIGHT)
@given(
    given_rows(),
    st.sampled_from(["min_max", "z_score", "softmax", "l2"]),
    st.sampled_from(["score", "info.score"]),
    st.sampled_from([None, "score", "scores.new", "info"]),
    st.sampled_from([(None, None), (0.0, None), (None, 1.0), (-1.0, 2.0)]),
)
def test_score_normalize(
    stages: Stages, rows: list[Given], method: str, field: str, output: str | None, bounds: tuple[Any, Any]
) -> None:
    asked: dict[str, Any] = {"method": method, "score_field": field, "output_field": output}
    low, high = bounds if method == "min_max" else (None, None)
    answer = stages(rows, ("score_normalize", asked | {"min_value": low, "max_value": high}))
    wanted = normalized(method, [score_at(row, field) or 0.0 for row in rows], low, high) if rows else []
    assert answer.ids == [row[0] for row in rows]
    assert [score_at((r.document_id, r.score, r.fields), output or field) for r in answer.rows] == pytest.approx(wanted)
    # Nothing else has changed.
    if output == "score" or (output is None and field == "score"):
        assert [row.fields for row in answer.rows] == [row[2] for row in rows]
    else:
        assert [row.score for row in answer.rows] == [row[1] for row in rows]
        assert [row.fields.get("kind") for row in answer.rows] == [row[2].get("kind") for row in rows]


@pytest.mark.parametrize("method", ["min_max", "z_score", "softmax", "l2"])
def test_numbers_of_any_size_are_normalized(stages: Stages, method: str) -> None:
    found = [
        1e300,
        -1e300,
        1e-300,
        5e-324,
        0.0,
        1e99,
        -1e-99,
        700.0,
        1.5e308,
        float("inf"),
        float("-inf"),
        float("nan"),
    ]
    rows: list[Given] = [(f"d{n}", score if math.isfinite(score) else None, {}) for n, score in enumerate(found)]
    for some in (rows, rows[2:5], rows[:2], rows[6:8], rows[:1]):
        answer = stages(some, ("score_normalize", {"method": method}))
        assert all(row.score is not None and math.isfinite(row.score) for row in answer.rows)


# group_by


@settings(**TIGHT)
@given(given_rows(), st.sampled_from(["kind", "info", "document_id"]), st.integers(1, 4))
def test_group_by(stages: Stages, rows: list[Given], field: str, most: int) -> None:
    groups: dict[str, list[Given]] = {}
    for row in rows:
        groups.setdefault(key_of(value_at(row, field)), []).append(row)
    for group in groups.values():
        group.sort(key=lambda row: math.inf if row[1] is None else -row[1])
    asked = {"group_by_field": field, "max_per_group": most}
    told = {"total_groups": len(groups), "total_documents": len(rows)}

    answer = stages(rows, ("group_by", {**asked, "output_mode": "first"}))
    assert is_as(answer, [group[0] for group in groups.values()])
    assert answer.told[1] == told
    answer = stages(rows, ("group_by", {**asked, "output_mode": "flatten"}))
    assert is_as(answer, [row for group in groups.values() for row in group[:most]])
    answer = stages(rows, ("group_by", asked))
    assert answer.told[1] == told
    wanted = []
    for group in groups.values():
        document_id, score, found = group[0]
        listed = [
            {**row[2], "document_id": row[0], **({} if row[1] is None else {"score": row[1]})} for row in group[:most]
        ]
        more = {"group_key": value_at(group[0], field), "group_count": len(group), "group_documents": listed}
        wanted.append((document_id, score, {**found, **more}))
    assert is_as(answer, wanted)


@pytest.mark.parametrize(
    ("stage", "asked", "problem"),
    [
        ("sort_relevance", {"score_field": "a..b"}, ("bad_field", "score_field")),
        ("sort_relevance", {"feature_address": "mixpeek://x"}, ("not_offered", "feature_address")),
        ("score_threshold", {"min_score": "0.5"}, ("bad_parameter", "min_score")),
        ("score_threshold", {"min_score": True}, ("bad_parameter", "min_score")),
        ("score_normalize", {"method": "l2", "min_value": 0}, ("bad_parameter", "min_value")),
        ("score_normalize", {"min_value": 1, "max_value": 1}, ("bad_parameter", "min_value")),
        ("score_normalize", {"max_value": 1e101}, ("out_of_range", "max_value")),
        ("score_normalize", {"output_field": "payload"}, ("bad_field", "output_field")),
        ("group_by", {"max_per_group": 0}, ("out_of_range", "max_per_group")),
        ("group_by", {"docs_per_group": 1_001}, ("out_of_range", "max_per_group")),
        ("group_by", {"field": ""}, ("bad_field", "group_by_field")),
        ("limit", {"limit": 0}, ("out_of_range", "limit")),
        ("limit", {"offset": 10_001}, ("out_of_range", "offset")),
    ],
)
def test_what_is_refused(stages: Stages, stage: str, asked: dict[str, Any], problem: tuple[str, str]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        stages([], (stage, asked))
    assert [(each.code, each.location[-1]) for each in refused.value.problems] == [problem]


@pytest.mark.parametrize("least", ["high", None, True, 10**400])
def test_a_threshold_that_is_no_number_is_refused(stages: Stages, least: Any) -> None:
    with pytest.raises(ValueError, match="min_score"):
        stages([("a", 1.0, {})], ("score_threshold", {"min_score": "{{INPUT.least}}"}), inputs={"least": least})
