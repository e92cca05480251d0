"""The answer of an execution: its documents, encoded once, the page, and everything that is told about them."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from litestar import Response

from app.api.execution_page import limits_of, shown
from app.db.replica import reading
from app.domain.retrieving.analyzing import Analysis
from app.domain.retrieving.execution import Execution, Outcome
from app.domain.retrieving.segments import StageRun
from app.telemetry import Timings

_encode = msgspec.json.Encoder().encode


def new_execution_id() -> str:
    return f"exec_{secrets.token_hex(12)}"


def answer(
    outcome: Outcome,
    wanted: Execution,
    timings: Timings,
    warnings: Sequence[str] = (),
    *,
    explain: bool = False,
    execution_id: str = "",
) -> dict[str, Any]:
    """The body, in which the documents are JSON text already."""
    total_ms = round(timings.phases["total"], 3)
    body: dict[str, Any] = {
        "execution_id": execution_id or new_execution_id(),
        "retriever_id": outcome.prepared.retriever_id,
        "retriever_version": outcome.prepared.version,
        "status": "degraded" if outcome.ran.degraded else "completed",
        "documents": msgspec.Raw(_encode(outcome.documents)),
        "pagination": shown(wanted.window, outcome.place, len(outcome.documents)),
        "stage_statistics": {"stages": _stages(outcome), "total_time_ms": total_ms},
        "budget": {"credits_used": 0, "credits_remaining": None, "time_used_ms": total_ms},
        "warnings": [*warnings, *outcome.warnings],
        "interpretation": _interpretation(outcome, wanted.inputs),
        "cache_hit": False,
        "consistency_mode": "eventual" if (read := reading.get()) and read.used else "strong",
    }
    if outcome.limits:
        body["limits"] = limits_of(outcome.limits)
    if outcome.ran.degraded:
        body["degraded"] = outcome.ran.degraded
    if facets := [facet for stage in outcome.ran.stages for facet in stage.told.get("facets", ())]:
        body["facets"] = facets
    if explain and outcome.ran.plans:
        plan = outcome.ran.plans[0]
        body["explain_plan"] = {"statement": plan.text, "settings": dict(plan.settings)}
    return body


def analysis(found: Analysis, timings: Timings) -> dict[str, Any]:
    """What an execution was, as explaining tells it; of its documents only how many there were."""
    outcome = found.outcome
    return {
        "returned": len(outcome.documents),
        "total_time_ms": round(timings.phases["total"], 3),
        "findings": [msgspec.to_builtins(finding) for finding in found.findings],
        "segments": [msgspec.to_builtins(segment) for segment in found.segments],
        "stage_statistics": {"stages": _stages(outcome)},
        "warnings": outcome.warnings,
    }


def response(body: dict[str, Any], timings: Timings, *, results: bool, **headers: str) -> Response[dict[str, Any]]:
    """The answer with its timings; with `results`, an older name of `documents`, the same bytes once more."""
    if results:
        body["results"] = body["documents"]
    return Response(body, headers={"Server-Timing": timings.header(), **headers}, status_code=200)


def _interpretation(outcome: Outcome, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """How the request was understood: which inputs came, which had their defaults, which nothing reads, and which
    conditions were dropped for want of theirs."""
    prepared = outcome.prepared
    told: dict[str, Any] = {"provided_input_keys": list(inputs)}
    inferred = {
        name: field["default"]
        for name, field in prepared.input_schema.items()
        if inputs.get(name) is None and field.get("default") is not None
    }
    if inferred:
        told["inferred_inputs"] = inferred
    read = prepared.pipeline.input_names | ({"filters"} if prepared.filters_may_be_an_input else set())
    if ignored := [name for name in inputs if name not in read]:
        told["ignored_input_keys"] = ignored
    if relaxed := [dropped for plan in outcome.ran.plans for dropped in plan.relaxed]:
        told["relaxations"] = [{"dropped": dropped, "reason": "its input was not provided"} for dropped in relaxed]
    return told


def _stages(outcome: Outcome) -> dict[str, Any]:
    """What each stage took in, gave and told. Those of one statement share its time, which stands at the last."""
    found: dict[str, Any] = {}
    before = 0
    for n, stage in enumerate(outcome.ran.stages):
        unique = stage.name if stage.name not in found else f"{stage.name}_{n + 1}"
        found[unique] = statistics(stage, before)
        before = stage.count
    return found


def statistics(stage: StageRun, before: int) -> dict[str, Any]:
    """What one stage took in, gave and told."""
    found: dict[str, Any] = {
        "input_count": before,
        "output_count": stage.count,
        "duration_ms": stage.duration_ms,
        "efficiency": round(stage.count / before, 4) if before else 0,
    }
    if stage.told:
        found["metadata"] = dict(stage.told)
    if stage.error:
        found["error"] = stage.error
    return found
