"""What is asked of a migration of models: cut over, roll back, finish, cancel; each one transaction of the caller.

A cut-over changes rows of the catalog alone, however many documents there are: an index and its shadow change columns,
and the services go with them. Plans carry the catalog's version, which their statements check in the very snapshot that
they search, so that no query which one model embedded is answered from vectors of the other.
"""

from dataclasses import asdict

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain.background import tasks
from app.domain.catalog.namespaces import load_catalog, lock_catalog
from app.domain.indexing import vector_changes
from app.domain.indexing.index_repair import defer_build
from app.domain.models import model_migrations
from app.domain.models.model_migrations import Migration, State, checks
from app.domain.security import audit
from app.errors import Conflict
from app.retrieval.catalog import Catalog


async def cut_over(
    conn: AsyncConnection, identifier: str, migration_id: str, changed_by: str, *, force: bool
) -> Migration:
    """The new model answers from now on. Without `force` only once the gate has been met."""
    before, migration = await _taken(conn, identifier, migration_id)
    if migration.state == "comparing" and not force:
        unmet = [asdict(check) for check in checks(migration.gate, migration.metrics) if not check.met]
        said = ", ".join(f"{check['name']} {check['wanted']} (found {check['found']})" for check in unmet)
        message = (
            f"The gate of {migration_id!r} is not met: {said or 'its index is not built yet'}. force=true skips it."
        )
        raise Conflict(message, code="gate_not_met", checks=unmet)
    await _move(conn, migration, ("comparing", "ready", "rolled_back"), "cut_over")
    await _swap(conn, migration)
    request = {"migration_id": migration_id, "force": force}
    await vector_changes.finish(conn, before, "cut_over", changed_by, request)
    about = {"index": migration.index, "force": force}
    await audit.record(conn, "model_migration", "cut_over", migration_id, before.namespace_id, **about)
    return await model_migrations.find(conn, before.namespace_id, migration_id)


async def roll_back(conn: AsyncConnection, identifier: str, migration_id: str, changed_by: str) -> Migration:
    """The old model answers again: the same swap."""
    before, migration = await _taken(conn, identifier, migration_id)
    await _move(conn, migration, ("cut_over",), "rolled_back")
    await _swap(conn, migration)
    await vector_changes.finish(conn, before, "roll_back", changed_by, {"migration_id": migration_id})
    await audit.record(conn, "model_migration", "rolled_back", migration_id, before.namespace_id, index=migration.index)
    return await model_migrations.find(conn, before.namespace_id, migration_id)


async def finish(conn: AsyncConnection, identifier: str, migration_id: str, changed_by: str) -> Migration:
    """Drop the old column: there is no way back."""
    before, migration = await _taken(conn, identifier, migration_id)
    await _move(conn, migration, ("cut_over",), "finished")
    return await _drop_shadow(conn, before, migration, "finish_migration", changed_by)


async def cancel(conn: AsyncConnection, identifier: str, migration_id: str, changed_by: str) -> Migration:
    """Drop the new column; nothing was changed for anybody."""
    before, migration = await _taken(conn, identifier, migration_id)
    open_: tuple[State, ...] = ("backfilling", "comparing", "ready", "rolled_back", "failed")
    await _move(conn, migration, open_, "canceled")
    if migration.task_id is not None and (await tasks.find(conn, migration.task_id)).status not in tasks.ENDED:
        await tasks.cancel(conn, migration.task_id)
    return await _drop_shadow(conn, before, migration, "cancel_migration", changed_by)


async def _taken(conn: AsyncConnection, identifier: str, migration_id: str) -> tuple[Catalog, Migration]:
    """The namespace for the transaction alone, and the migration as it is then."""
    catalog = await lock_catalog(conn, identifier, exclusive=True)
    return catalog, await model_migrations.find(conn, catalog.namespace_id, migration_id)


async def _move(conn: AsyncConnection, migration: Migration, before: tuple[State, ...], to: State) -> None:
    if not await model_migrations.move(conn, migration.migration_id, before, to):
        message = f"The migration {migration.migration_id!r} is {migration.state}; it can become {to} from "
        raise Conflict(f"{message}{', '.join(before)}.", code="migration_state", state=migration.state)


async def _swap(conn: AsyncConnection, migration: Migration) -> None:
    binds = {"namespace_id": migration.namespace_id, "index_name": migration.index, "shadow": migration.shadow}
    for name in ("swap_columns", "swap_mappings", "move_mapping"):
        await conn.execute(statement(name), binds)
    # A build that runs now ends without a result, for its column is another config's.
    swapped = await load_catalog(conn, migration.namespace_id)
    for config in swapped.every_config:
        if config.name in (migration.index, migration.shadow) and config.index_state == "building":
            await defer_build(conn, migration.namespace_id, config.name)


async def _drop_shadow(
    conn: AsyncConnection, before: Catalog, migration: Migration, operation: str, changed_by: str
) -> Migration:
    config = next(config for config in before.shadows if config.name == migration.shadow)
    binds = {"namespace_id": before.namespace_id, "name": config.name, "migration_id": migration.migration_id}
    await conn.execute(statement("delete_vector_config"), binds)
    await conn.execute(statement("forget_queries"), binds)
    await vector_changes.finish(conn, before, operation, changed_by, {"migration_id": migration.migration_id})
    done = "finished" if operation == "finish_migration" else "canceled"
    about = {"index": migration.index}
    await audit.record(conn, "model_migration", done, migration.migration_id, before.namespace_id, **about)
    found = await model_migrations.find(conn, before.namespace_id, migration.migration_id)
    # Last, for its lock shuts out readers, too, until the transaction ends.
    await vector_changes.drop_column(conn, before, config)
    return found
