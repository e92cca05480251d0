"""The answer of an execution: its documents, encoded once, the page, and everything that is told about them."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from litestar import Response

from app.api.execution_page import limits_of, shown
from app.domain.execution import Execution, Outcome
from app.telemetry import Timings

_encode = msgspec.json.Encoder().encode


def answer(
    outcome: Outcome, wanted: Execution, timings: Timings, warnings: Sequence[str] = (), *, explain: bool = False
) -> dict[str, Any]:
    """The body, in which the documents are JSON text already."""
    total_ms = round(timings.phases["total"], 3)
    body: dict[str, Any] = {
        "execution_id": f"exec_{secrets.token_hex(12)}",
        "retriever_id": outcome.prepared.retriever_id,
        "status": "completed",
        "documents": msgspec.Raw(_encode(outcome.documents)),
        "pagination": shown(wanted.window, outcome.place, len(outcome.documents)),
        "stage_statistics": {"stages": _stages(outcome, timings), "total_time_ms": total_ms},
        "budget": {"credits_used": 0, "credits_remaining": None, "time_used_ms": total_ms},
        "warnings": [*warnings, *outcome.warnings],
        "interpretation": _interpretation(outcome, wanted.inputs),
        "cache_hit": False,
        "consistency_mode": "strong",
    }
    if outcome.limits:
        body["limits"] = limits_of(outcome.limits)
    if explain:
        body["explain_plan"] = {"statement": outcome.plan.text, "settings": dict(outcome.plan.settings)}
    return body


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
    if outcome.plan.relaxed:
        told["relaxations"] = [
            {"dropped": dropped, "reason": "its input was not provided"} for dropped in outcome.plan.relaxed
        ]
    return told


def _stages(outcome: Outcome, timings: Timings) -> dict[str, Any]:
    """What each stage took in and gave. The stages run as one statement, whose time stands at the last of them."""
    found: dict[str, Any] = {}
    before, last = 0, len(outcome.plan.stages) - 1
    for n, (name, count) in enumerate(zip(outcome.plan.stages, outcome.rows.counts, strict=True)):
        unique = name if name not in found else f"{name}_{n + 1}"
        found[unique] = {
            "input_count": before,
            "output_count": count,
            "duration_ms": round(timings.phases["db"], 3) if n == last else 0.0,
            "efficiency": round(count / before, 4) if before else 0,
        }
        before = count
    return found
