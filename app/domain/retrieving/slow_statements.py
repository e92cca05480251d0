"""Statements of retrievers that took long are logged, with PostgreSQL's plan for them; never with values of anybody."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from app import metrics
from app.db.engine import raw, transaction
from app.domain.retrieving.formatting import readable
from app.domain.runtime import Prepared, Runtime
from app.errors import PgretrieveError
from app.retrieval.executor import EXPLAIN, set_local
from app.retrieval.plan import Plan

log = logging.getLogger("pgretrieve.slow")
# Of a plan's node; all others may hold values: vectors in an order, texts in a condition.
TOLD = ("Relation Name", "Index Name", "CTE Name", "Join Type", "Plan Rows", "Total Cost")


def note(runtime: Runtime, prepared: Prepared, plan: Plan, values: Mapping[str, Any], took_ms: float) -> None:
    """Log it beside the request, where it took longer than PGRETRIEVE_SLOW_STATEMENT_MS. One plan is asked for at a
    time: a database that is slow for all has no time for more."""
    limit = runtime.settings.slow_statement_ms
    if not limit or took_ms < limit:
        return
    metrics.slow_statements.inc()
    if runtime.explaining:
        _write(prepared, plan, took_ms, "not asked for, as another one is")
        return
    task = asyncio.create_task(_explain(runtime, prepared, plan, values, took_ms), name="slow-statement")
    runtime.explaining.add(task)
    task.add_done_callback(runtime.explaining.discard)


async def _explain(runtime: Runtime, prepared: Prepared, plan: Plan, values: Mapping[str, Any], took_ms: float) -> None:
    """EXPLAIN without ANALYZE, for these values and settings: the statement is planned again, and not run again."""
    try:
        async with transaction(runtime.engine, runtime.settings) as conn:
            driver = await raw(conn)
            if plan.settings:
                await driver.execute(*set_local(plan.settings))
            row = await (await driver.execute(EXPLAIN + plan.text.encode(), values, prepare=False)).fetchone()
        found: Any = told(row[0][0]["Plan"]) if row else None
    except (SQLAlchemyError, psycopg.Error, PgretrieveError, OSError) as error:
        found = f"not available ({type(error).__name__})"
    _write(prepared, plan, took_ms, found)


def told(node: Mapping[str, Any]) -> dict[str, Any]:
    """A node of a plan with what is below it, without any value."""
    found = {"node": node["Node Type"], **{name: node[name] for name in TOLD if name in node}}
    if below := node.get("Plans"):
        found["plans"] = [told(each) for each in below]
    return found


def _write(prepared: Prepared, plan: Plan, took_ms: float, found: Any) -> None:
    about = {
        "namespace": prepared.catalog.namespace_id,
        "retriever": prepared.retriever_id,
        "ms": round(took_ms, 1),
        "settings": dict(plan.settings),
        "statement": readable(plan.text),
        "plan": found,
    }
    log.warning("a slow statement: %s", about, extra=about)
