"""Runs the statement of one segment: planned, its texts embedded, executed within the time that is left."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import psycopg

from app import metrics
from app.db.replica import FAILURES, reading
from app.domain.inference.embedding import embed_one
from app.domain.models import comparing
from app.domain.retrieving import planning, slow_statements
from app.domain.retrieving.planning import Planned, Request
from app.domain.runtime import Prepared, Runtime
from app.domain.security import access
from app.retrieval.executor import Page, Rows, Stale, execute, fill_binds
from app.retrieval.host import Row
from app.retrieval.plan import Plan
from app.telemetry import Timings


async def run_statement(
    runtime: Runtime,
    prepared: Prepared,
    request: Request,
    n: int,
    given: Sequence[Row] | None,
    page: Page,
    left_s: float,
    timings: Timings,
) -> tuple[Planned, Rows]:
    """What the n-th segment answers, of the rows that the host hands back where there are any."""
    planned = await planning.plan(runtime, prepared, request, n, after_host=given is not None, timings=timings)
    with timings("embed"):
        values = await fill_binds(planned.plan, planned.inputs, partial(embed_one, runtime))
    values |= prepared.catalog.restriction
    if given is not None:
        values["rows"] = _json(given)
    limit_ms = min(runtime.settings.statement_timeout_ms, prepared.max_time_ms, max(1, int(left_s * 1000)))
    limit_ms = min(limit_ms, planned.plan.timeout_ms or limit_ms)
    limits = {"statement_timeout": f"{limit_ms}ms"}
    request.observe("statement", {"segment": n, "plan": planned.plan, "values": {**values, **page.binds()}})
    before = timings.phases.get("db", 0.0)
    found = await _execute(runtime, planned.plan, prepared.versions, values, page, limits, timings)
    took = timings.phases["db"] - before
    slow_statements.note(runtime, prepared, planned.plan, {**values, **page.binds()}, took)
    for choice in planned.choices.values():
        metrics.searches.labels(choice.strategy).inc()
    planning.refuse_missing(found.told)
    planning.learn(runtime, planned, found.told)
    if prepared.catalog.compared:
        await comparing.sample(runtime, prepared.catalog, planned.plan, planned.inputs)
    return planned, found


async def _execute(runtime: Runtime, plan: Plan, *rest: Any) -> Rows:
    """On the replica, where there is one that this request may read from; else, and where it fails, on the primary."""
    wanted, replica = reading.get(), runtime.replica
    if wanted is not None and access.restriction() is not None:
        wanted.primary = True  # what was revoked is not on a replica at once
    if replica is not None and wanted is not None and not wanted.primary:
        outcome = "too_old"
        if await replica.can_serve(wanted):
            try:
                found = await execute(replica.engine, plan, *rest)
            except psycopg.errors.QueryCanceled:
                raise
            except Stale:  # it has not seen the change that this plan was compiled after
                outcome = "behind"
            except FAILURES:
                outcome = "failed"
            else:
                metrics.reads.labels("replica").inc()
                wanted.used = True
                return found
        metrics.reads.labels(outcome).inc()
        wanted.primary = True
    return await execute(runtime.engine, plan, *rest)


def rows_of(found: Rows) -> list[Row]:
    """What a statement answered, for the host; the stored payload stands for fields that nothing changed."""
    return [
        Row(hit[1], hit[2], msgspec.json.decode(fields if fields is not None else hit[4] or "{}"), hit[3:])
        for hit, fields in zip(found.hits, found.fields, strict=True)
    ]


def _json(rows: Sequence[Row]) -> str:
    given = [
        {"document_id": row.document_id, "score": row.score, "rank": rank, "fields": row.fields}
        for rank, row in enumerate(rows, start=1)
    ]
    return msgspec.json.encode(given).decode()
