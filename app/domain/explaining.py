"""What executing a retriever would do: PostgreSQL's estimates for its statement, stage by stage. Nothing is run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.db.engine import raw, transaction
from app.db.statements import statement
from app.domain import execution, planning
from app.domain.planning import Request
from app.domain.runtime import Prepared, Runtime
from app.retrieval.executor import Page, set_local
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


async def explain(
    runtime: Runtime, namespace: str, retriever: str, given: frozenset[str], version: int | None = None
) -> Explained:
    """Estimates for a request with these inputs; without any, for one that gives all of them."""
    prepared = await execution.prepared(runtime, namespace, retriever, version)
    defaults = {name for name, spec in prepared.input_schema.items() if spec.get("default") is not None}
    provided = given | defaults if given else prepared.pipeline.input_names
    request = Request(dict.fromkeys(provided), None, Page(), ())
    plan = planning.compiled(runtime, prepared, request, 0)
    found, documents = await _planned(runtime, prepared, plan)
    stages = _stages(prepared, plan, found, documents)
    longest = max(stage.estimated_duration_ms for stage in stages)
    slow = [stage.stage_name for stage in stages if stage.estimated_duration_ms >= BOTTLENECK * longest]
    total = round(sum(stage.estimated_duration_ms for stage in stages), 3)
    return Explained(
        prepared.retriever_id or "",
        prepared.retriever_name,
        {"total_credits": 0.0, "total_duration_ms": total},
        stages,
        len(stages),
        slow if len(stages) > 1 else [],
        plan.text,
        plan.settings,
        found,
    )


async def _planned(runtime: Runtime, prepared: Prepared, plan: Plan) -> tuple[dict[str, Any], int]:
    """PostgreSQL's plan for any values of the binds, and its estimate of how many documents there are."""
    numbered = plan.text % {bind.name: f"${n}" for n, bind in enumerate(plan.binds, start=1)}
    async with transaction(runtime.engine, runtime.settings) as conn:
        place = {"schema": prepared.catalog.schema}
        documents = (await conn.execute(statement("estimate_documents"), place)).scalar_one()
        driver = await raw(conn)
        await driver.execute(*set_local(plan.settings))
        # Never prepared: its parameters are left open, which only an unprepared statement may do.
    rows = await (await driver.execute(EXPLAIN + numbered.encode(), prepare=False)).fetchone()
    assert rows is not None
    return rows[0][0]["Plan"], documents


def _stages(prepared: Prepared, plan: Plan, found: dict[str, Any], documents: int) -> list[StageEstimate]:
    nodes = {str(node.get("Subplan Name")): node for node in _nodes(found)}
    embeds = len(plan.embeds)
    estimates: list[StageEstimate] = []
    before, spent = documents, 0.0
    for n, (name, stage) in enumerate(zip(plan.stages, prepared.pipeline.stages, strict=True), start=1):
        node = nodes.get(f"CTE s{n}_{stage.stage_id}", found)
        rows = int(node["Plan Rows"])
        most = stage.most_rows()
        rows = min(rows, most) if most is not None else rows
        took = max(float(node["Total Cost"]) - spent, 0.0) / COST_OF_A_MS
        spent = max(spent, float(node["Total Cost"]))
        if stage.stage_id == "feature_search":
            took += EMBEDDING_MS * embeds
            embeds = 0
        efficiency = round(rows / before, 4) if before else 0.0
        estimates.append(StageEstimate(n - 1, name, stage.stage_type, before, rows, efficiency, round(took, 3)))
        before = rows
    return estimates


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)
