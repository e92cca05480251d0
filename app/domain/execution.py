"""Executing a retriever: prepared and compiled once, checked against the versions in force, answered as hits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.db.engine import transaction
from app.domain import retrievers
from app.domain.documents import hit
from app.domain.namespaces import load_catalog
from app.domain.runtime import Prepared, Runtime
from app.errors import Conflict, InvalidRequest, Problems
from app.retrieval.compiler import compile_plan
from app.retrieval.executor import Page, Rows, Stale, Versions, execute, fill_binds
from app.retrieval.filters import parse_filter
from app.retrieval.inputs import check_inputs
from app.retrieval.plan import Plan
from app.telemetry import Timings

# Catalog or retriever changed under a request: reload and try again this often before giving up.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Execution:
    """What a caller asks of a retriever, beside its own definition."""

    inputs: Mapping[str, Any]
    filters: Any = None
    page: Page = field(default_factory=Page)
    return_vectors: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The hits and what is told about them."""

    prepared: Prepared
    plan: Plan
    rows: Rows
    documents: list[dict[str, Any]]
    warnings: list[str]


async def run(runtime: Runtime, namespace: str, retriever: str, wanted: Execution, timings: Timings) -> Outcome:
    """Execute; a plan that is out of date is compiled anew, so no answer comes from a state that is gone."""
    for _attempt in range(ATTEMPTS):
        with timings("plan"):
            kept = runtime.prepared.get((namespace, retriever))
            prepared = kept or await _prepare(runtime, namespace, retriever)
        try:
            return await _run(runtime, prepared, wanted, timings)
        except Stale:
            pass
        except InvalidRequest:
            # Refused by what was kept, which may be out of date: only what was just read may refuse.
            if kept is None:
                raise
        runtime.prepared.forget((namespace, retriever))
    raise Conflict("The namespace or the retriever keeps changing; try again.", code="changing", retryable=True)


async def _prepare(runtime: Runtime, namespace: str, identifier: str) -> Prepared:
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace)
        retriever = await retrievers.find(conn, catalog.namespace_id, identifier)
    prepared = retrievers.prepare(retriever, catalog, runtime.limits)
    return runtime.prepared.put((namespace, identifier), prepared)


async def _run(runtime: Runtime, prepared: Prepared, wanted: Execution, timings: Timings) -> Outcome:
    problems = Problems()
    inputs = check_inputs(prepared.input_schema, wanted.inputs, problems, ("body", "inputs"))
    with timings("plan"):
        plan = _plan(runtime, prepared, wanted, frozenset(inputs), problems)
    with timings("embed"):
        values = await fill_binds(plan, inputs, runtime.inference)
    versions = Versions(prepared.catalog.version, prepared.version)
    limits = {"statement_timeout": f"{runtime.settings.statement_timeout_ms}ms"}
    rows = await execute(runtime.engine, plan, versions, values, wanted.page, limits, timings)
    with timings("encode"):
        warnings: list[str] = []
        documents = [hit(row, plan.vectors, warnings) for row in rows.hits]
    return Outcome(prepared, plan, rows, documents, list(dict.fromkeys(warnings)))


def _plan(
    runtime: Runtime, prepared: Prepared, wanted: Execution, provided: frozenset[str], problems: Problems
) -> Plan:
    limits = runtime.limits
    filters = parse_filter(wanted.filters, ("body", "filters"), problems, limits.filters)
    problems.refuse()
    vectors = tuple(prepared.catalog.by_name) if wanted.return_vectors else ()
    # Only inputs that templates use change the shape of the statement.
    key = (provided & prepared.pipeline.input_names, vectors)
    plan = prepared.plans.get(key) if filters is None else None
    if plan is None:
        plan = compile_plan(
            prepared.pipeline,
            prepared.catalog,
            limits,
            retriever_id=prepared.retriever_id,
            provided=provided,
            filters=filters,
            vectors=vectors,
            ef_search=runtime.settings.hnsw_ef_search,
        )
        if filters is None:
            prepared.plans.put(key, plan)
    return plan
