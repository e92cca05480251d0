"""Imports: chunks of a source stored one after another, each in a transaction that also notes how far the import is.

So an import that is cut off, however that happens, goes on after its last chunk, and nothing is lost or stored twice.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from psycopg import DataError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db.ddl import drop_index_concurrently
from app.db.engine import transaction
from app.db.statements import statement
from app.domain.catalog.namespaces import load_catalog, lock_catalog
from app.domain.documents import bulk
from app.domain.documents.bulk import Refused
from app.domain.indexing.index_repair import defer_build, open_builds
from app.domain.retrieving import functions
from app.errors import Conflict, InvalidRequest, Problem
from app.moving.rows import Rows
from app.retrieval.catalog import Catalog, VectorConfig
from app.settings import Settings

# So many problems are told one by one, the others are counted.
MOST_TOLD = 1_000


@dataclass(slots=True)
class Import:
    """An import as it stands: the last row of its source that was dealt with, and what became of all of them."""

    import_id: int
    last_row: int = 0
    place: str | None = None
    stored: int = 0
    refused: int = 0
    problems: list[Refused] = field(default_factory=list)  # of this run, the first of them


@dataclass(frozen=True, slots=True)
class Manner:
    """How documents are stored: all in one collection, and whether a chunk is refused whole for one of its rows."""

    collection_id: str | None = None
    strict: bool = True


async def open_import(
    conn: AsyncConnection, namespace_id: str, source: str, source_hash: str, *, anew: bool = False
) -> Import:
    """The import of this source that was begun and has not ended; else, or `anew`, a new one."""
    binds = {"namespace_id": namespace_id, "source_hash": source_hash}
    if anew:
        await conn.execute(statement("forget_import"), binds)
    row = (await conn.execute(statement("open_import"), {**binds, "source": source})).one()
    return Import(row.import_id, row.last_row, row.place, row.stored, row.refused)


async def run(
    engine: AsyncEngine,
    settings: Settings,
    namespace_id: str,
    chunks: Iterator[Rows],
    current: Import,
    manner: Manner,
    tell: Callable[[Import], None],
) -> None:
    """Store all chunks. The next one is read, in a thread, while one is stored.

    Raises `InvalidRequest` with everything that is wrong with a chunk, where it is to be refused whole.
    """
    reading = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
    try:
        while (rows := await reading) is not None:
            reading = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
            await _store(engine, settings, namespace_id, rows, current, manner)
            tell(current)
    finally:
        await asyncio.gather(reading, return_exceptions=True)
    async with transaction(engine, settings) as conn:
        await conn.execute(statement("finish_import"), {"import_id": current.import_id})


async def _store(
    engine: AsyncEngine, settings: Settings, namespace_id: str, rows: Rows, current: Import, manner: Manner
) -> None:
    async with transaction(engine, settings) as conn:
        catalog = await lock_catalog(conn, namespace_id, exclusive=False)
        stored, refused = await store_chunk(conn, catalog, settings, rows, manner)
        binds = {"import_id": current.import_id, "before": current.last_row, "last_row": rows.last, "place": rows.place}
        noted = await conn.execute(statement("advance_import"), {**binds, "stored": stored, "refused": len(refused)})
        if noted.one_or_none() is None:
            message = "Another process imports the same source into this namespace, or has done so meanwhile."
            raise Conflict(message, code="import_elsewhere")
    current.last_row, current.place, current.stored = rows.last, rows.place, current.stored + stored
    current.refused += len(refused)
    current.problems += refused[: max(0, MOST_TOLD - len(current.problems))]


async def store_chunk(
    conn: AsyncConnection, catalog: Catalog, settings: Settings, rows: Rows, manner: Manner
) -> tuple[int, list[Refused]]:
    """Store what may be stored of the chunk, in the caller's transaction: how many documents, and what is wrong."""
    oid = await bulk.vector_oid(conn)
    arriving, refused = await asyncio.to_thread(bulk.check, rows, catalog, settings, manner.collection_id, oid)
    if manner.strict:
        refuse(refused)
    try:
        elsewhere = await bulk.store(conn, catalog, arriving)
    except (DataError, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(cause, DataError):
            raise
        where = f"rows {rows.numbers[0]} to {rows.numbers[-1]}"
        message = f"PostgreSQL refuses something in {where}: {str(cause).splitlines()[0]}"
        raise InvalidRequest([Problem(("file",), "refused_by_database", message)]) from error
    if manner.strict:
        refuse(elsewhere)
    return len(arriving.ids) - len(elsewhere), [*refused, *elsewhere]


def refuse(refused: list[Refused]) -> None:
    """Raise with everything that is wrong."""
    if refused:
        shown = [Problem(("file", each.number), each.code, told(each)) for each in refused[:MOST_TOLD]]
        raise InvalidRequest(shown, count=len(refused))


def told(refused: Refused) -> str:
    """A problem with its place."""
    who = f" ({refused.document_id!r})" if refused.document_id is not None else ""
    return f"Row {refused.number}{who}: {refused.message}"


# Indexes that wait for the end of a load


async def suspend_indexes(
    engine: AsyncEngine, settings: Settings, namespace_id: str, autocommit: AsyncConnection
) -> list[str]:
    """Drop the vector indexes, so that the load need not grow them: until `resume_indexes` searches are exact.

    `autocommit` is a connection in that mode. Nothing is dropped where an index is being built.
    Answers the names of the configs.
    """
    async with transaction(engine, settings) as conn:
        catalog = await lock_catalog(conn, namespace_id, exclusive=True)
        if await open_builds(conn, namespace_id):
            return []
        ready = [config for config in catalog.vector_configs if _is_indexed(config) and config.index_state == "ready"]
        for config in ready:
            place = {"namespace_id": namespace_id, "name": config.name}
            await conn.execute(statement("begin_building"), place)
            await conn.execute(statement("note_loose_index"), {**place, "index_name": config.index_name})
        await functions.follow(conn, namespace_id)
    for config in ready:
        await drop_index_concurrently(autocommit, catalog.schema, config.index_name)
        place = {"namespace_id": namespace_id, "index_name": config.index_name}
        await autocommit.execute(statement("forget_loose_index"), place)
    return [config.name for config in ready]


async def resume_indexes(engine: AsyncEngine, settings: Settings, namespace_id: str) -> dict[str, str]:
    """Have every vector index built that was suspended, by this load or one that was cut off. Answers the tasks."""
    async with transaction(engine, settings) as conn:
        catalog = await lock_catalog(conn, namespace_id, exclusive=True)
        pending = await open_builds(conn, namespace_id)
        waiting = [c for c in catalog.vector_configs if _is_indexed(c) and c.index_state == "building"]
        return {c.name: pending.get(c.name) or await defer_build(conn, namespace_id, c.name) for c in waiting}


def _is_indexed(config: VectorConfig) -> bool:
    return config.index_method != "exact"


async def documents_in(engine: AsyncEngine, settings: Settings, namespace_id: str) -> tuple[Catalog, int]:
    """The namespace, and about how many documents it has."""
    async with transaction(engine, settings) as conn:
        catalog = await load_catalog(conn, namespace_id)
        binds = {"schema": catalog.schema}
        return catalog, (await conn.execute(statement("documents_before_import"), binds)).scalar_one()
