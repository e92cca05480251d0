"""What every later change of vector indexes and mappings owes: a new version, an audit row, and no retriever broken."""

from collections.abc import Mapping
from typing import Any

import msgspec
import psycopg
from sqlalchemy.exc import InternalError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import ddl
from app.db.statements import as_json, statement
from app.domain.catalog.namespaces import load_catalog, state_of, watch_sources
from app.domain.retrieving import functions
from app.domain.retrieving.definitions import check_definition
from app.errors import Conflict, InvalidRequest, NotFound
from app.retrieval.catalog import Catalog, VectorConfig
from app.retrieval.stages.base import Limits

SHOWN = 20


async def finish(
    conn: AsyncConnection, before: Catalog, operation: str, changed_by: str, request: Mapping[str, Any]
) -> Catalog:
    """End a change that holds the namespace for itself: plans are out of date, and it is on record."""
    await conn.execute(statement("bump_namespace"), {"namespace_id": before.namespace_id})
    await functions.follow(conn, before.namespace_id)
    after = await load_catalog(conn, before.namespace_id)
    if bool(before.sources) != bool(after.sources):
        await watch_sources(conn, after)
    audit = {"namespace_id": before.namespace_id, "operation": operation, "changed_by": changed_by}
    audit |= {"request": as_json(request), "before": as_json(state_of(before)), "after": as_json(state_of(after))}
    await conn.execute(statement("insert_vector_change"), audit)
    return after


def index_of(catalog: Catalog, name: str) -> VectorConfig:
    """The vector index of exactly that name."""
    config = catalog.by_name.get(name)
    if config is None:
        available = ", ".join(map(repr, catalog.by_name)) or "none"
        raise NotFound("vector index", name, f"Available indexes: {available}.")
    return config


async def refuse_while_migrating(conn: AsyncConnection, catalog: Catalog, name: str) -> None:
    """Raises `Conflict` where the index has a shadow: a migration ends first."""
    binds = {"namespace_id": catalog.namespace_id, "index_name": name}
    found = (await conn.execute(statement("open_model_migration"), binds)).one_or_none()
    if found is not None:
        message = (
            f"The index {name!r} has a migration of models, {found.migration_id}, which is {found.state}; finish or "
            "cancel it first."
        )
        raise Conflict(message, code="migration_open", migration_id=found.migration_id)


async def refuse_broken(conn: AsyncConnection, before: Catalog, after: Catalog, name: str, limits: Limits) -> None:
    """Raises `Conflict` with the retrievers that a change of this index would break."""
    found = await broken(conn, before, after, name, limits)
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        message = (
            f"Retrievers search the index {name!r}: {', '.join(map(repr, found[:SHOWN]))}{more}. Change them first, or "
            "use force=true: then they are refused when they are executed."
        )
        raise Conflict(message, code="index_in_use", retrievers=found[:SHOWN], retriever_count=len(found))


async def broken(conn: AsyncConnection, before: Catalog, after: Catalog, name: str, limits: Limits) -> list[str]:
    """The retrievers (at their present versions) that have more problems in `after` than in `before`."""
    binds = {"namespace_id": before.namespace_id, "name": name}
    found = []
    for row in await conn.execute(statement("retrievers_naming"), binds):
        definition = msgspec.json.decode(row.definition)
        if _problems(definition, after, limits) - _problems(definition, before, limits):
            found.append(row.retriever_name)
    return found


def _problems(definition: Mapping[str, Any], catalog: Catalog, limits: Limits) -> set[tuple[Any, ...]]:
    try:
        check_definition(definition, catalog, limits)
    except InvalidRequest as error:
        return {(problem.location, problem.code) for problem in error.problems}
    return set()


async def drop_column(conn: AsyncConnection, catalog: Catalog, config: VectorConfig) -> None:
    """Drop a column that the catalog has forgotten; `Conflict` where something else in the database needs it."""
    try:
        await ddl.drop_vector_column(conn, catalog.schema, config)
    except InternalError as error:
        if isinstance(error.orig, psycopg.errors.DependentObjectsStillExist):
            told = error.orig.diag.message_detail or ""
            message = f"Something in the database depends on the column {config.column!r}; drop that first. {told}"
            raise Conflict(message.strip(), code="index_in_use") from None
        raise
