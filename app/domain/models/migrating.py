"""How a migration of models goes on by itself: its shadow is filled and indexed, then both models are compared.

Each step finds out from the database what is to be done, so that a step whose worker is killed is just begun again.
"""

import asyncio
import logging
import time

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import as_json, statement
from app.domain.background import tasks, working
from app.domain.catalog.namespaces import load_catalog
from app.domain.indexing.index_repair import defer_build
from app.domain.models import comparing, filling_up, model_migrations
from app.domain.models.model_migrations import Migration, checks
from app.domain.runtime import Runtime
from app.errors import Conflict, NotFound
from app.retrieval.catalog import Catalog

log = logging.getLogger(__name__)
# A job walks so long, that others may run.
SLICE_S = 5.0


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
    """Walk over the documents for a while, and go on to comparing when none of the work is open."""
    _, shadow = comparing.columns(catalog, migration)
    assert migration.task_id is not None
    pause = await _walk(runtime, migration.task_id)
    await working.do_all(runtime, catalog.namespace_id)
    async with transaction(runtime.engine, runtime.settings) as conn:
        task = await tasks.find(conn, migration.task_id)
        if task.status not in tasks.ENDED:
            # The walk goes on; or another worker has some of it, or what failed is tried again later.
            if pause is not None:
                await model_migrations.defer(conn, migration.migration_id, pause)
            return
        if task.status in ("FAILED", "CANCELED"):
            message = f"Its back-fill, {task.task_id}, ended: {task.status}, {task.failed} documents failed."
            error = Conflict(message, code="backfill_failed")
            await model_migrations.move(conn, migration.migration_id, ["backfilling"], "failed", error)
            return
        moved = await model_migrations.move(conn, migration.migration_id, ["backfilling"], "comparing")
        if moved and shadow.index_state == "building":
            # Now that the vectors are there: building once is cheaper than inserting each.
            await defer_build(conn, catalog.namespace_id, migration.shadow)


async def _walk(runtime: Runtime, task_id: str) -> float | None:
    """Fill the shadow up; answers after how many seconds to go on, None where all of it has been taken."""
    ends = time.monotonic() + SLICE_S
    while (pause := await filling_up.advance(runtime, task_id)) is not None:
        if time.monotonic() + pause > ends:
            return pause
        await asyncio.sleep(pause)
    return None


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
