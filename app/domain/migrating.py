"""How a migration of models goes on by itself: its shadow is filled and indexed, then both models are compared.

Each step finds out from the database what is to be done, so that a step whose worker is killed is just begun again.
"""

import asyncio
import logging

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import as_json, statement
from app.domain import comparing, model_migrations, sources, tasks, working
from app.domain.index_repair import defer_build
from app.domain.model_migrations import Migration, checks
from app.domain.namespaces import load_catalog
from app.domain.runtime import Runtime
from app.domain.tasks import Task
from app.errors import Conflict, NotFound
from app.retrieval.catalog import Catalog, VectorConfig

log = logging.getLogger(__name__)
# Documents that are looked at in one transaction of the back-fill.
CHUNK = 500
# Where a rate is asked for, a chunk is what it allows in so long.
PACE_S = 5.0


async def advance(runtime: Runtime, migration_id: str) -> None:
    """Do what can be done now; the job comes again each minute until the migration is ready."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        found = await _find(conn, migration_id)
    if found is None:
        return
    catalog, migration = found
    if migration.state == "backfilling":
        await _fill(runtime, catalog, migration)
        async with transaction(runtime.engine, runtime.settings) as conn:
            found = await _find(conn, migration_id)
    if found is not None and found[1].state == "comparing":
        await _compare(runtime, *found)


async def sweep(conn: AsyncConnection) -> list[str]:
    """Have the job go on with migrations that wait for time, workers or queries. Answers which."""
    found = list((await conn.execute(statement("waiting_model_migrations"))).scalars())
    for migration_id in found:
        await model_migrations.defer(conn, migration_id)
    return found


async def _find(conn: AsyncConnection, migration_id: str) -> tuple[Catalog, Migration] | None:
    place = {"migration_id": migration_id}
    namespace_id = (await conn.execute(statement("namespace_of_model_migration"), place)).scalar_one_or_none()
    if namespace_id is None:
        return None  # deleted with its namespace
    try:
        catalog = await load_catalog(conn, namespace_id)
    except NotFound:
        return None
    return catalog, await model_migrations.find(conn, namespace_id, migration_id)


# The back-fill


async def _fill(runtime: Runtime, catalog: Catalog, migration: Migration) -> None:
    """Queue every document once, have the work done, and go on to comparing when none of it is open."""
    _, shadow = comparing.columns(catalog, migration)
    assert migration.task_id is not None
    await walk(runtime, catalog, migration.task_id, shadow, migration.source_field, migration.rate_per_minute)
    await working.do_all(runtime, catalog.namespace_id)
    async with transaction(runtime.engine, runtime.settings) as conn:
        task = await tasks.find(conn, migration.task_id)
        if task.status not in tasks.ENDED:
            return  # another worker has some of it, or what failed is tried again later
        if task.status in ("FAILED", "CANCELED"):
            message = f"Its back-fill, {task.task_id}, ended: {task.status}, {task.failed} documents failed."
            error = Conflict(message, code="backfill_failed")
            await model_migrations.move(conn, migration.migration_id, ["backfilling"], "failed", error)
            return
        moved = await model_migrations.move(conn, migration.migration_id, ["backfilling"], "comparing")
        if moved and shadow.index_state == "building":
            # Now that the vectors are there: building once is cheaper than inserting each.
            await defer_build(conn, catalog.namespace_id, migration.shadow)


async def walk(
    runtime: Runtime, catalog: Catalog, task_id: str, config: VectorConfig, field: str, rate_per_minute: int | None
) -> None:
    """Queue every document that has this source and no vector in this column, in the order of their ids.

    Each chunk and the place where it ends are one transaction, so that whoever goes on queues nothing twice.
    """
    async with transaction(runtime.engine, runtime.settings) as conn:
        if not await tasks.begin(conn, task_id):
            return
    chunk = CHUNK if rate_per_minute is None else max(1, min(CHUNK, int(rate_per_minute * PACE_S / 60)))
    while True:
        async with transaction(runtime.engine, runtime.settings) as conn:
            task = await tasks.find(conn, task_id)
            if task.state.keys() & tasks.QUEUED or task.status in tasks.ENDED:
                return
            goes_on = await _queue(conn, catalog, task, config, field, chunk)
        if not goes_on:
            return
        if rate_per_minute is not None:
            await asyncio.sleep(chunk * 60 / rate_per_minute)


async def _queue(
    conn: AsyncConnection, catalog: Catalog, task: Task, config: VectorConfig, field: str, chunk: int
) -> bool:
    """The next chunk; whether another one follows."""
    documents = catalog.documents.c
    source = sources.text_of(documents.payload, sa.bindparam("field", field, sa.Text))
    lacks = sa.and_(documents[config.column].is_(None), source.is_not(None))
    ids = sa.select(documents.document_id, lacks).order_by(documents.document_id).limit(chunk)
    if "after" in task.state:
        ids = ids.where(documents.document_id > sa.bindparam("after", task.state["after"], sa.Text))
    rows = (await conn.execute(ids)).all()
    binds = {"namespace_id": catalog.namespace_id, "target": config.column, "task_id": task.task_id}
    subjects = [document_id for document_id, wanted in rows if wanted]
    queued = (await conn.execute(statement("queue_shadow_work"), {**binds, "subjects": subjects})).rowcount
    total = (task.total or 0) + queued
    if len(rows) == chunk:
        await conn.execute(statement("defer_work"), {"namespace_id": catalog.namespace_id})
        return await tasks.advance(conn, task.task_id, {"after": rows[-1][0]}, total=total)
    await tasks.advance(conn, task.task_id, tasks.QUEUED, total=total)
    await tasks.end_counted(conn, task.task_id)
    return False


# Comparing


async def _compare(runtime: Runtime, catalog: Catalog, migration: Migration) -> None:
    """Compare what there is to compare, measure, and be ready where the gate is met and the index built."""
    while await comparing.compare(runtime, catalog, migration):
        pass
    async with transaction(runtime.engine, runtime.settings) as conn:
        metrics = await comparing.measure(conn, catalog, migration)
        binds = {"migration_id": migration.migration_id, "metrics": as_json(metrics)}
        await conn.execute(statement("set_model_migration_metrics"), binds)
        _, shadow = comparing.columns(catalog, migration)
        built = shadow.index_state == "ready"
        if built and all(check.met for check in checks(migration.gate, metrics)):
            await model_migrations.move(conn, migration.migration_id, ["comparing"], "ready")
