"""An execution taken apart: the very statements that ran, their settings and values, and how PostgreSQL ran them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from app.db.engine import raw, transaction
from app.domain.retrieving import execution
from app.domain.retrieving.execution import Execution, Outcome
from app.domain.retrieving.findings import Finding, Statement, findings
from app.domain.retrieving.formatting import readable, shortened
from app.domain.retrieving.segments import StageRun
from app.domain.runtime import Prepared, Runtime
from app.retrieval.executor import set_local
from app.retrieval.pipeline import Segment
from app.retrieval.plan import Plan
from app.telemetry import Timings

EXPLAIN = b"EXPLAIN (ANALYZE, BUFFERS, SETTINGS, FORMAT JSON) "


@dataclass(frozen=True, slots=True)
class SegmentAnalysis:
    """Stages that ran as one statement, or one that ran on the host, which has none.

    `plan` is PostgreSQL's, for these values; `binds` are shortened where they are long.
    """

    stages: list[str]
    runs_on: str
    statement: str | None = None
    settings: Mapping[str, str] | None = None
    binds: Mapping[str, Any] | None = None
    planning_ms: float | None = None
    execution_ms: float | None = None
    plan: Any = None


@dataclass(frozen=True, slots=True)
class Analysis:
    """What ran, and what is to be said about it."""

    outcome: Outcome
    segments: list[SegmentAnalysis]
    findings: list[Finding]


async def analyze(runtime: Runtime, namespace: str, retriever: str, wanted: Execution, timings: Timings) -> Analysis:
    """Execute, and then have each statement explained as it runs once more, with the values that it ran with."""
    statements: dict[int, Mapping[str, Any]] = {}

    def observe(event: str, about: Mapping[str, Any]) -> None:
        if event == "statement":
            statements[about["segment"]] = about

    with timings("total"):
        observed = replace(wanted, observe=observe)
        outcome = await execution.run(runtime, namespace, retriever, observed, timings)
    prepared = outcome.prepared
    told = {f"s{n}": stage.told for n, stage in enumerate(outcome.ran.stages, start=1)}
    segments, found = list[SegmentAnalysis](), list[Finding]()
    for n, segment in enumerate(prepared.pipeline.segments):
        names = [step.name for step in segment.steps]
        if (ran := statements.get(n)) is None:
            segments.append(SegmentAnalysis(names, "host", execution_ms=_duration(outcome.ran.stages, segment)))
            continue
        explained, documents = await _explained(runtime, prepared, ran["plan"], ran["values"])
        segments.append(await asyncio.to_thread(_shown, names, ran["plan"], ran["values"], explained))
        found += findings(Statement(segment, prepared.catalog, told, documents), explained)
    return Analysis(outcome, segments, found)


def _duration(stages: list[StageRun], segment: Segment) -> float | None:
    return stages[segment.first].duration_ms if segment.first < len(stages) else None


async def _explained(
    runtime: Runtime, prepared: Prepared, plan: Plan, values: Mapping[str, Any]
) -> tuple[dict[str, Any], int]:
    """PostgreSQL's account of the statement, and how many documents there are."""
    count = sa.select(sa.func.count()).select_from(prepared.catalog.documents)
    async with transaction(runtime.engine, runtime.settings) as conn:
        documents = (await conn.execute(count)).scalar_one()
        driver = await raw(conn)
        if plan.settings:
            await driver.execute(*set_local(plan.settings))
        # Never prepared: the plan is to be the one for these values.
        row = await (await driver.execute(EXPLAIN + plan.text.encode(), values, prepare=False)).fetchone()
    assert row is not None
    return row[0][0], documents


def _shown(names: list[str], plan: Plan, values: Mapping[str, Any], explained: Mapping[str, Any]) -> SegmentAnalysis:
    return SegmentAnalysis(
        stages=names,
        runs_on="database",
        statement=readable(plan.text),
        settings=plan.settings,
        binds=shortened(values),
        planning_ms=explained["Planning Time"],
        execution_ms=explained["Execution Time"],
        plan=explained["Plan"],
    )
