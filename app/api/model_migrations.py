"""/v1/namespaces/…/migrations: an index moved from one model to another, and back, without a gap."""

from typing import Any

from litestar import Request, Router, get, post
from litestar.params import FromPath, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from app.api.locks import giving_way
from app.api.model_migration_models import CutOverInput, MigrationInput, ModelMigration, ModelMigrations, shown
from app.api.paging import PAGED, PageQuery, page_of, pagination
from app.api.promotion import services_of
from app.api.wire import Json, RuntimeDep
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog
from app.domain.models import cutting_over, model_migrations
from app.domain.models.model_migrations import Migration
from app.domain.runtime import Runtime

AnyRequest = Request[Any, Any, Any]


@post(
    "/{namespace_id:str}/migrations",
    dto=Json[MigrationInput],
    return_dto=None,
    status_code=200,
    scope="manage",
    operation_id="start_model_migration",
)
async def start(
    namespace_id: FromPath[str], data: JSONBody[MigrationInput], runtime: RuntimeDep, request: AnyRequest
) -> ModelMigration:
    """Start moving an index to another model. Answers stay the old model's until `cut-over`.

    A second column is filled in the background, and written with the first one from now on; then both are compared.
    """
    wanted, created_by = data.wanted(), request.state.principal.key_id
    services = await services_of(runtime, [data.to_service])

    async def work(conn: AsyncConnection) -> ModelMigration:
        migration = await model_migrations.start(conn, namespace_id, wanted, services, created_by)
        return shown(await load_catalog(conn, migration.namespace_id), migration)

    return await giving_way(runtime, namespace_id, work)


@get("/{namespace_id:str}/migrations", scope="read", operation_id="list_model_migrations", **PAGED)
async def list_migrations(namespace_id: FromPath[str], runtime: RuntimeDep, paging: PageQuery) -> ModelMigrations:
    """A page of migrations in the order of their ids."""
    page = page_of(None, paging, runtime.settings.max_page_size)
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_id)
        of = catalog.namespace_id
        found = await model_migrations.page(conn, of, after=page.after, limit=page.size + 1)
        total = await model_migrations.count(conn, of)
    return ModelMigrations(
        results=[shown(catalog, migration) for migration in found[: page.size]],
        pagination=pagination(page, [migration.migration_id for migration in found], total),
        total_count=total,
    )


@get("/{namespace_id:str}/migrations/{migration_id:str}", scope="read", operation_id="get_model_migration")
async def get_migration(
    namespace_id: FromPath[str], migration_id: FromPath[str], runtime: RuntimeDep
) -> ModelMigration:
    """How far a migration is, what was measured, and whether its gate is met."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_id)
        return shown(catalog, await model_migrations.find(conn, catalog.namespace_id, migration_id))


@post(
    "/{namespace_id:str}/migrations/{migration_id:str}/cut-over",
    dto=Json[CutOverInput],
    return_dto=None,
    status_code=200,
    scope="manage",
    operation_id="cut_over_model_migration",
)
async def cut_over(
    namespace_id: FromPath[str],
    migration_id: FromPath[str],
    runtime: RuntimeDep,
    request: AnyRequest,
    data: JSONBody[CutOverInput | None] = None,
) -> ModelMigration:
    """The new model answers from now on, at once. 409 while its gate is not met, unless `force`."""
    force, by = (data or CutOverInput()).force, request.state.principal.key_id

    async def work(conn: AsyncConnection) -> Migration:
        return await cutting_over.cut_over(conn, namespace_id, migration_id, by, force=force)

    return await _change(runtime, namespace_id, work)


@post(
    "/{namespace_id:str}/migrations/{migration_id:str}/roll-back",
    status_code=200,
    scope="manage",
    operation_id="roll_back_model_migration",
)
async def roll_back(
    namespace_id: FromPath[str], migration_id: FromPath[str], runtime: RuntimeDep, request: AnyRequest
) -> ModelMigration:
    """The old model answers again, at once; its column was written all along."""
    by = request.state.principal.key_id
    return await _change(
        runtime, namespace_id, lambda conn: cutting_over.roll_back(conn, namespace_id, migration_id, by)
    )


@post(
    "/{namespace_id:str}/migrations/{migration_id:str}/finish",
    status_code=200,
    scope="manage",
    operation_id="finish_model_migration",
)
async def finish(
    namespace_id: FromPath[str], migration_id: FromPath[str], runtime: RuntimeDep, request: AnyRequest
) -> ModelMigration:
    """Drop the old column after a cut-over: there is no way back."""
    by = request.state.principal.key_id
    return await _change(runtime, namespace_id, lambda conn: cutting_over.finish(conn, namespace_id, migration_id, by))


@post(
    "/{namespace_id:str}/migrations/{migration_id:str}/cancel",
    status_code=200,
    scope="manage",
    operation_id="cancel_model_migration",
)
async def cancel(
    namespace_id: FromPath[str], migration_id: FromPath[str], runtime: RuntimeDep, request: AnyRequest
) -> ModelMigration:
    """Drop the new column before a cut-over, or after a roll-back: everything is as before."""
    by = request.state.principal.key_id
    return await _change(runtime, namespace_id, lambda conn: cutting_over.cancel(conn, namespace_id, migration_id, by))


async def _change(runtime: Runtime, namespace_id: str, change: Any) -> ModelMigration:
    async def work(conn: AsyncConnection) -> ModelMigration:
        migration = await change(conn)
        return shown(await load_catalog(conn, migration.namespace_id), migration)

    return await giving_way(runtime, namespace_id, work)


router = Router(
    "/namespaces",
    route_handlers=[start, list_migrations, get_migration, cut_over, roll_back, finish, cancel],
    tags=["Migrations of models"],
)
