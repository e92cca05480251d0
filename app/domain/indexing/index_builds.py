"""What the job does: builds a vector index beside readers and writers, puts it in force, and drops what is not.

Where an index is in force already, the new one is built beside it under another name; one short transaction then makes
the catalog name the new one, and the old one is dropped once nobody reads it. What may be left of a build that is cut
off is noted before it begins (`pgretrieve.loose_indexes`), and dropped by the next one or by the sweep.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.ddl import create_index_concurrently, drop_index_concurrently
from app.db.engine import connection, raw, transaction
from app.db.identifiers import free_name
from app.db.statements import as_json, statement
from app.domain.background import tasks
from app.domain.background.tasks import Task
from app.domain.catalog.namespaces import load_catalog, state_of
from app.domain.indexing.index_repair import BUILD, DEFINITION, REBUILD
from app.domain.retrieving import functions
from app.domain.runtime import Runtime
from app.errors import NotFound, PgretrieveError, Unavailable
from app.retrieval.catalog import Catalog, VectorConfig

log = logging.getLogger(__name__)
# How soon a build notices that its task was cancelled.
CANCEL_CHECK_S = 0.5


async def run(
    runtime: Runtime, conn: AsyncConnection, namespace_id: str, name: str, task_id: str | None, *, last: bool
) -> None:
    """Do the task (a job of an older version has none yet), on a connection in autocommit; `last`: where it fails, it
    is not tried again."""
    try:
        catalog = await load_catalog(conn, namespace_id)
    except NotFound:
        return  # deleted since the job was deferred, and its tasks with it
    task_id = task_id or await tasks.create(conn, namespace_id, BUILD, subject=name)
    config = next((c for c in (*catalog.vector_configs, *catalog.shadows) if c.name == name), None)
    if config is None or not await tasks.begin(conn, task_id):
        await tasks.end(conn, task_id, "CANCELED")
        await _let_go(conn, catalog, name)
        return
    try:
        new = await _built(runtime, conn, catalog, config, await tasks.find(conn, task_id))
        await _put_in_force(runtime, catalog, config, new, task_id)
    except (DBAPIError, PgretrieveError) as error:
        if await _failed(conn, catalog, name, task_id, error, last=last):
            log.info("the build of index %s of %s was cancelled", name, namespace_id)
            return
        raise
    await _let_go(conn, catalog, name)
    log.info("built index %s of %s: %s", name, namespace_id, new.index_name)


async def _let_go(conn: AsyncConnection, catalog: Catalog, name: str, *, keep: str | None = None) -> None:
    """Where nothing is in force and nobody builds it, the catalog says so; what is loose is dropped."""
    await conn.execute(statement("give_up_building"), {"namespace_id": catalog.namespace_id, "name": name})
    await functions.follow(conn, catalog.namespace_id)
    await drop_loose(conn, catalog, keep=keep)


async def _built(
    runtime: Runtime, conn: AsyncConnection, catalog: Catalog, config: VectorConfig, task: Task
) -> VectorConfig:
    """The index as it is to be, whole and valid in PostgreSQL, but not in force yet."""
    wanted = replace(config, **{name: task.about[name] for name in DEFINITION if name in task.about})
    if wanted.index_method == "exact":
        return wanted
    begun = task.state.get("index_name")
    if begun is not None and await _is_valid(conn, catalog, begun):
        return replace(wanted, index_name=begun)  # an earlier try came so far
    await drop_loose(conn, catalog)
    new = replace(wanted, index_name=await _name_of(conn, catalog, config))
    place = {"namespace_id": catalog.namespace_id, "index_name": new.index_name}
    if config.index_state != "ready":
        await drop_index_concurrently(conn, catalog.schema, new.index_name)
    await conn.execute(statement("note_loose_index"), place)
    await tasks.advance(conn, task.task_id, {"index_name": new.index_name})
    await _create(runtime, conn, catalog, new, task.task_id)
    if not await _is_valid(conn, catalog, new.index_name):
        raise Unavailable(f"The index {new.index_name!r} is not valid after its build.", code="build_failed")
    return new


async def _name_of(conn: AsyncConnection, catalog: Catalog, config: VectorConfig) -> str:
    """The name that the catalog has, where nothing is in force under it; else one that is free."""
    if config.index_state != "ready":
        return config.index_name
    taken = set((await conn.execute(statement("relation_names"), {"schema": catalog.schema})).scalars())
    taken |= {c.index_name for c in (*catalog.vector_configs, *catalog.shadows)}
    return free_name(f"documents_{config.column}_hnsw", frozenset(), taken)


async def _create(runtime: Runtime, conn: AsyncConnection, catalog: Catalog, new: VectorConfig, task_id: str) -> None:
    """Build; ends with an error of the database where the task is cancelled meanwhile."""
    driver = await raw(conn)
    building = asyncio.ensure_future(create_index_concurrently(conn, catalog.schema, new, runtime.settings))
    try:
        while not (await asyncio.wait({building}, timeout=CANCEL_CHECK_S))[0]:
            if not await _is_wanted(runtime, task_id):
                with suppress(psycopg.Error):
                    await driver.cancel_safe(timeout=10)
        building.result()
    finally:
        building.cancel()
        await asyncio.gather(building, return_exceptions=True)


async def _is_wanted(runtime: Runtime, task_id: str) -> bool:
    with suppress(DBAPIError, PgretrieveError):  # who cannot be asked has not said no
        async with connection(runtime.engine) as conn:
            return await tasks.is_open(conn, task_id)
    return True


async def _put_in_force(runtime: Runtime, catalog: Catalog, old: VectorConfig, new: VectorConfig, task_id: str) -> None:
    """One transaction: from here on searches are compiled for the new index, and the old one is loose.

    Writers of documents go on. Where the task was cancelled, or the index was dropped, nothing is switched.
    """
    binds = {"namespace_id": catalog.namespace_id, "name": old.name, "column": old.column, "before": old.index_name}
    binds |= {name: getattr(new, name) for name in ("index_name", *DEFINITION)}
    async with transaction(runtime.engine, runtime.settings) as conn:
        if not await tasks.begin(conn, task_id):
            return
        await conn.execute(statement("hold_version"), {"namespace_id": catalog.namespace_id})
        before = await load_catalog(conn, catalog.namespace_id)
        if (await conn.execute(statement("switch_index"), binds)).one_or_none() is None:
            await tasks.end(conn, task_id, "CANCELED")
            return
        await functions.follow(conn, catalog.namespace_id)
        task = await tasks.find(conn, task_id)
        if task.kind == REBUILD:
            await _audit(conn, before, await load_catalog(conn, catalog.namespace_id), task)
        await tasks.end(conn, task_id)


async def _audit(conn: AsyncConnection, before: Catalog, after: Catalog, task: Task) -> None:
    row = {"namespace_id": after.namespace_id, "operation": "rebuild", "changed_by": task.created_by or "pgretrieve"}
    row |= {"request": as_json({"name": task.subject, **task.about})}
    row |= {"before": as_json(state_of(before)), "after": as_json(state_of(after))}
    await conn.execute(statement("insert_vector_change"), row)


async def _failed(
    conn: AsyncConnection, catalog: Catalog, name: str, task_id: str, error: Exception, *, last: bool
) -> bool:
    """Leave nothing behind but what the next try can use; and where there is none, say so. Whether it was cancelled."""
    await conn.rollback()  # gives a new connection where the server ended this one
    cancelled, whole = not await tasks.is_open(conn, task_id), None
    if not last and not cancelled:
        begun = (await tasks.find(conn, task_id)).state.get("index_name")
        whole = begun if begun is not None and await _is_valid(conn, catalog, begun) else None
    elif not cancelled:
        cause = str(error.orig if isinstance(error, DBAPIError) else error).splitlines()[0]
        told = Unavailable(f"The index {name!r} was not built: {cause}", code="build_failed")
        await tasks.end(conn, task_id, "FAILED", told)
    try:
        await _let_go(conn, catalog, name, keep=whole)
    except DBAPIError as again:
        log.warning("what the build of %s left is for the sweep: %s", name, again)
    return cancelled


async def drop_loose(conn: AsyncConnection, catalog: Catalog, *, keep: str | None = None) -> list[str]:
    """Drop the indexes of a namespace that are not in force (but the one to `keep`), on a connection in autocommit.

    For jobs of its lock alone: nobody builds meanwhile.
    """
    names = (await conn.execute(statement("loose_indexes"), {"namespace_id": catalog.namespace_id})).scalars()
    found = [name for name in names if name != keep]
    for index_name in found:
        await drop_index_concurrently(conn, catalog.schema, index_name)
        place = {"namespace_id": catalog.namespace_id, "index_name": index_name}
        await conn.execute(statement("forget_loose_index"), place)
    return found


async def _is_valid(conn: AsyncConnection, catalog: Catalog, index_name: str) -> bool:
    binds = {"schema": catalog.schema, "index_name": index_name}
    valid: bool = (await conn.execute(statement("index_is_valid"), binds)).scalar_one()
    return valid
