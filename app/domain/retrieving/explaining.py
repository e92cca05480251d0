"""What executing a retriever would do: PostgreSQL's estimates for its statement, stage by stage. Nothing is run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.db.engine import raw, transaction
from app.db.statements import statement
from app.domain.retrieving import execution, planning
from app.domain.retrieving.execution import Execution
from app.domain.runtime import Prepared, Runtime
from app.retrieval.executor import Page, set_local
from app.retrieval.pipeline import Segment
from app.retrieval.plan import Plan

# For any values of the parameters, which are not sent.
EXPLAIN = b"EXPLAIN (GENERIC_PLAN, FORMAT JSON) "
# PostgreSQL counts in reads of a page, of which a warm machine does some hundreds in a millisecond.
COST_OF_A_MS = 300.0
EMBEDDING_MS = 10.0
# As the public API has it: what takes this share of the slowest stage's time is a bottleneck.
BOTTLENECK = 0.8


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """One stage. Credits are an idea of the public API: nothing costs any here, and nothing is cached."""

    stage_index: int
    stage_name: str
    stage_type: str
    estimated_input: int
    estimated_output: int
    estimated_efficiency: float
    estimated_duration_ms: float
    estimated_cost_credits: float = 0.0
    cache_likely: bool = False
    optimization_notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Explained:
    """The estimates, and what they are for: the statement with its settings."""

    retriever_id: str
    retriever_name: str
    estimated_cost: dict[str, float]
    execution_plan: list[StageEstimate]
    total_estimated_stages: int
    bottleneck_stages: list[str]
    statement: str
    settings: Mapping[str, str]
    plan: Any
    optimization_level: str = "none"
    optimization_applied: bool = False
    optimization_suggestions: list[dict[str, Any]] = field(default_factory=list)
    optimization_details: dict[str, Any] | None = None


async def explain(runtime: Runtime, namespace: str, retriever: str, wanted: Execution) -> Explained:
    """Estimates for a request with these inputs, whatever their values; without any, for one that gives all of them."""
    prepared = await execution.fresh(runtime, namespace, retriever, wanted.version)
    given = frozenset(wanted.inputs)
    defaults = {name for name, spec in prepared.input_schema.items() if spec.get("default") is not None}
    provided = given | defaults if given else prepared.pipeline.input_names
    of = execution.fingerprint_of(prepared, wanted)
    request, _ = execution.requested(runtime, replace(prepared, input_schema={}), wanted, of)
    request = replace(request, inputs=dict.fromkeys(provided), page=Page())
    plans = {
        n: planning.compiled(runtime, prepared, request, n, after_host=n > 0)
        for n, segment in enumerate(prepared.pipeline.segments)
        if segment.host is None
    }
    found, documents = await _planned(runtime, prepared, plans)
    stages = _stages(prepared, plans, found, documents)
    longest = max(stage.estimated_duration_ms for stage in stages)
    slow = [stage.stage_name for stage in stages if stage.estimated_duration_ms >= BOTTLENECK * longest]
    total = round(sum(stage.estimated_duration_ms for stage in stages), 3)
    first = next(iter(plans), None)
    return Explained(
        prepared.retriever_id or "",
        prepared.retriever_name,
        {"total_credits": 0.0, "total_duration_ms": total},
        stages,
        len(stages),
        slow if len(stages) > 1 else [],
        plans[first].text if first is not None else "",
        plans[first].settings if first is not None else {},
        found[first] if first is not None else None,
    )


async def _planned(
    runtime: Runtime, prepared: Prepared, plans: Mapping[int, Plan]
) -> tuple[dict[int, dict[str, Any]], int]:
    """PostgreSQL's plans for any values of the binds, and its estimate of how many documents there are."""
    found = {}
    async with transaction(runtime.engine, runtime.settings) as conn:
        place = {"schema": prepared.catalog.schema}
        documents = (await conn.execute(statement("estimate_documents"), place)).scalar_one()
        driver = await raw(conn)
        for n, plan in plans.items():
            if plan.settings:
                await driver.execute(*set_local(plan.settings))
            numbered = plan.text % {bind.name: f"${m}" for m, bind in enumerate(plan.binds, start=1)}
            # Never prepared: its parameters are left open, which only an unprepared statement may do.
            row = await (await driver.execute(EXPLAIN + numbered.encode(), prepare=False)).fetchone()
            assert row is not None
            found[n] = row[0][0]["Plan"]
    return found, documents


def _stages(
    prepared: Prepared, plans: Mapping[int, Plan], found: Mapping[int, dict[str, Any]], documents: int
) -> list[StageEstimate]:
    estimates: list[StageEstimate] = []
    before = documents
    for n, segment in enumerate(prepared.pipeline.segments):
        if n in plans:
            estimates += _of_statement(segment, plans[n], found[n], before)
        else:
            step = segment.steps[0]
            most = step.stage.most_rows()
            rows = before if most is None else min(before, most)
            note = "It runs on the host: how long it takes is not estimated."
            told = StageEstimate(
                segment.first, step.name, step.stage.stage_type, before, rows, _share(rows, before), 0.0
            )
            estimates.append(replace(told, optimization_notes=[note]))
        before = estimates[-1].estimated_output
    return estimates


def _of_statement(segment: Segment, plan: Plan, found: dict[str, Any], before: int) -> list[StageEstimate]:
    nodes = {str(node.get("Subplan Name")): node for node in _nodes(found)}
    embeds, spent = len(plan.embeds), 0.0
    estimates: list[StageEstimate] = []
    for n, step in enumerate(segment.steps, start=segment.first + 1):
        stage = step.stage
        node = nodes.get(f"CTE s{n}_{stage.stage_id}", found)
        rows = int(node["Plan Rows"])
        most = stage.most_rows()
        rows = min(rows, most) if most is not None else rows
        took = max(float(node["Total Cost"]) - spent, 0.0) / COST_OF_A_MS
        spent = max(spent, float(node["Total Cost"]))
        if stage.stage_id == "feature_search":
            took += EMBEDDING_MS * embeds
            embeds = 0
        share = _share(rows, before)
        estimates.append(StageEstimate(n - 1, step.name, stage.stage_type, before, rows, share, round(took, 3)))
        before = rows
    return estimates


def _share(rows: int, before: int) -> float:
    return round(rows / before, 4) if before else 0.0


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)
