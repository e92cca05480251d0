"""Adopting: a table that its user has already becomes a standalone namespace, in place. It stays the user's.

Nothing of the table is changed, copied or locked against anybody: the namespace's schema holds a view over it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import adopted_ddl
from app.db.adopted_ddl import View
from app.db.statements import as_json, statement
from app.domain.catalog import adoptable, namespaces
from app.domain.catalog.adoptable import Column, Decision, Index, Table, Wanted
from app.domain.documents.documents import DIRECT_UPSERT
from app.domain.retrieving import functions
from app.domain.security import access, audit
from app.errors import Conflict, Problems
from app.retrieval.adopted import Adopted
from app.retrieval.catalog import Catalog
from app.settings import Settings

TABLE = ("body", "table")


@dataclass(frozen=True, slots=True)
class Adoption:
    """The namespace, the table that it reads, and what its owner may want to know."""

    catalog: Catalog
    table: str
    warnings: Sequence[str]


async def adopt(conn: AsyncConnection, settings: Settings, wanted: Wanted) -> Adoption:
    """Adopt a table in the caller's transaction. Raises `InvalidRequest` with every problem, or `Conflict`."""
    access.require_creatable(wanted.namespace_id)
    problems = Problems()
    namespaces.check_name(wanted.namespace_id, ("body", "namespace_id"), problems)
    if wanted.namespace_name is not None:
        namespaces.check_name(wanted.namespace_name, ("body", "namespace_name"), problems)
    table = await _find(conn, wanted.table, problems)
    decision = adoptable.decide(table, wanted, settings, problems) if table is not None else None
    if problems:
        await _check_free(conn, wanted, problems)
    problems.refuse()
    assert table is not None and decision is not None, "else there was a problem"
    schema = await namespaces.insert(
        conn,
        namespace_id=wanted.namespace_id,
        namespace_name=wanted.namespace_name or wanted.namespace_id,
        mode="standalone",
        dynamic=False,
        description=wanted.description,
        settings="{}",
    )
    await namespaces.insert_configs(conn, wanted.namespace_id, decision.configs)
    payload = [] if isinstance(decision.payload, str) else decision.payload
    fields = adoptable.scalar_fields(table, {column.name: column.number for column in payload})
    vectors = {name: column.number for name, column in decision.vectors.items()}
    adopted = Adopted(table.oid, decision.key_type, vectors, fields)
    await _note(conn, wanted.namespace_id, adopted)
    await _create(conn, schema, table, decision, adopted)
    about = {"table": table.quoted, "vector_indexes": list(decision.vectors)}
    await audit.record(conn, "namespace", "adopted", wanted.namespace_id, wanted.namespace_id, **about)
    return Adoption(await namespaces.load_catalog(conn, wanted.namespace_id), table.quoted, decision.warnings)


async def _note(conn: AsyncConnection, namespace_id: str, adopted: Adopted) -> None:
    read_as = {name: value for name, value in asdict(adopted).items() if name != "table"}
    binds = {"namespace_id": namespace_id, "table": adopted.table, "adopted_as": as_json(read_as)}
    await conn.execute(statement("note_adoption"), binds)


async def _create(conn: AsyncConnection, schema: str, table: Table, decision: Decision, adopted: Adopted) -> None:
    payload, columns = decision.payload, {name: column.name for name, column in decision.vectors.items()}
    view = View(
        schema=schema,
        table=(table.schema, table.name),
        key=decision.key,
        raw_key=decision.key_type != "text",
        collection_id=DIRECT_UPSERT,
        at=(await conn.execute(sa.select(sa.func.now()))).scalar_one(),
        payload=payload if isinstance(payload, str) else [(column.name, column.base) for column in payload],
        columns=columns | {field.column: name for name, field in adopted.fields.items()},
    )
    await adopted_ddl.create_view(conn, view)


async def look_again(conn: AsyncConnection, catalog: Catalog) -> Catalog:
    """Use the indexes that the table has now: nothing is built, for that is its owner's to do.

    The caller holds the namespace's lock.
    """
    assert catalog.adopted is not None, "the caller has looked"
    table = await _look(conn, catalog.adopted.table)
    if table is None:
        message = (
            f"The table of the namespace {catalog.namespace_id!r} is gone; delete the namespace, and adopt another."
        )
        raise Conflict(message, code="adopted_table")
    for config in catalog.vector_configs:
        column = table.column_of(catalog.adopted.vectors[config.column])
        index, method = adoptable.index_for(table, column, config.metric) if column else (None, "exact")
        binds = {"namespace_id": catalog.namespace_id, "name": config.name, "index_method": method}
        binds["index_name"] = index.name if index else config.index_name
        await conn.execute(statement("follow_index"), binds)
    fields = adoptable.scalar_fields(table, {name: field.number for name, field in catalog.adopted.fields.items()})
    await _note(conn, catalog.namespace_id, replace(catalog.adopted, fields=fields))
    await conn.execute(statement("bump_namespace"), {"namespace_id": catalog.namespace_id})
    await functions.follow(conn, catalog.namespace_id)
    return await namespaces.load_catalog(conn, catalog.namespace_id)


async def _find(conn: AsyncConnection, name: str, problems: Problems) -> Table | None:
    """The table of that name; what PostgreSQL has against the name is a problem, too."""
    why = "there is no such table"
    try:
        async with conn.begin_nested():
            oid = (await conn.execute(statement("find_table"), {"name": name.replace("\0", "")})).scalar_one()
            if oid is not None:
                return await _look(conn, oid)
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.ProgrammingError | psycopg.DataError | psycopg.NotSupportedError):
            raise
        why = str(error.orig).splitlines()[0]
    problems.add(TABLE, "no_table", f"{name!r} cannot be adopted: {why}. Name it with its schema, as public.films.")
    return None


async def _look(conn: AsyncConnection, oid: int) -> Table | None:
    binds = {"table": oid}
    row = (await conn.execute(statement("adoptable_table"), binds)).mappings().one_or_none()
    if row is None:
        return None
    columns = (await conn.execute(statement("adoptable_columns"), binds)).mappings()
    indexes = (await conn.execute(statement("adoptable_indexes"), binds)).mappings()
    return Table(oid=oid, **row, columns=[Column(**c) for c in columns], indexes=[Index(**i) for i in indexes])


async def _check_free(conn: AsyncConnection, wanted: Wanted, problems: Problems) -> None:
    """Beside other problems; else inserting finds it."""
    names = [wanted.namespace_id, wanted.namespace_name or wanted.namespace_id]
    if (await conn.execute(statement("identifiers_taken"), {"identifiers": names})).scalar_one():
        problems.add(("body", "namespace_id"), "already_exists", str(namespaces.taken(*names)))
