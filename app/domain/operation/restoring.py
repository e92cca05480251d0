"""A namespace out of a file that `app.domain.operation.backup` wrote: whole, in one transaction, or not at all."""

import asyncio
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import ddl
from app.db.engine import raw
from app.db.statements import statement
from app.domain.catalog import lexical, namespaces
from app.domain.indexing import payload_indexes
from app.domain.indexing.index_repair import defer_build
from app.domain.operation.backup import CHUNK, FORMAT, MANIFEST, ROWS, Manifest, Progress, copy_statement, tables
from app.domain.security import access, audit
from app.errors import InvalidRequest, Problem, Problems

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, msgspec.DecodeError)


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back, and which indexes are being built by a worker; until then their searches are exact."""

    namespace_id: str
    mode: str
    documents: int
    building: list[str]
    services: list[str]


def refuse(message: str) -> InvalidRequest:
    return InvalidRequest([Problem(("file",), "bad_backup", message)])


def look(path: Path) -> tuple[Manifest, int]:
    """What a file says of itself, and how many bytes its tables are; `InvalidRequest` where it is no backup."""
    try:
        with zipfile.ZipFile(path) as file:
            known = msgspec.json.decode(file.read(MANIFEST), type=Manifest)
            size = sum(file.getinfo(table.entry).file_size for table in known.tables)
    except (*DAMAGED, FileNotFoundError) as error:
        raise refuse(f"{path} is no backup of a namespace, or not whole: {error}.") from None
    if known.format != FORMAT:
        message = f"{path} has format {known.format}, this version reads {FORMAT}"
        raise refuse(f"{message}: restore it with pgretrieve {known.made_by}.")
    return known, size


async def restore(conn: AsyncConnection, path: Path, name: str | None, progress: Progress = lambda _: None) -> Restored:
    """Make the namespace anew, under its own name or another one, in the caller's transaction.

    Triggers are there before its documents, so that what was yet to be embedded is queued again; what a service has
    made is not made again.
    """
    manifest, _ = look(path)
    try:
        with zipfile.ZipFile(path) as file:
            return await _restore(conn, file, manifest, name or manifest.namespace_id, progress)
    except DAMAGED as error:
        raise refuse(f"{path} is damaged: {error}.") from None
    except psycopg.DataError as error:
        raise refuse(f"{path} holds what PostgreSQL refuses: {error}.") from None


async def _restore(
    conn: AsyncConnection, file: zipfile.ZipFile, manifest: Manifest, name: str, progress: Progress
) -> Restored:
    problems = Problems()
    namespaces.check_name(name, ("file",), problems)
    problems.refuse()
    rows = file.read(ROWS).decode()
    schema = await _insert(conn, rows, name)
    binds = {"namespace_id": name, "rows": rows}
    await conn.execute(statement("restore_namespace"), binds)
    await conn.execute(statement("restore_rows"), binds)
    catalog = await namespaces.load_catalog(conn, name)
    # A backup of before has no access lists.
    if manifest.tables not in (tables(catalog), tables(replace(catalog, schema_revision=0))):
        raise refuse("Its tables are not those that its vector configs make.")
    await ddl.create_tables(conn, schema, catalog.vector_configs)
    await namespaces.watch_sources(conn, catalog)
    driver = await raw(conn)
    counts = []
    for table in manifest.tables:
        statement_ = copy_statement(schema, table, "FROM STDIN")
        counts.append(await _copy_in(driver, statement_, file, table.entry, progress))
    building = [config.name for config in catalog.vector_configs if config.index_method != "exact"]
    for index in building:
        await defer_build(conn, name, index)
    await payload_indexes.create(conn, catalog, catalog.payload_indexes)
    await lexical.declare(conn, name, manifest.lexical_fields)
    services = sorted(set(catalog.inference_map.values()))
    about = {"saved_as": manifest.namespace_id, "mode": catalog.mode, "documents": counts[0]}
    await audit.record(conn, "namespace", "restored", name, name, **about)
    return Restored(name, catalog.mode, counts[0], building, services)


async def _insert(conn: AsyncConnection, rows: str, name: str) -> str:
    saved: dict[str, Any] = msgspec.json.decode(rows)["namespace"]
    access.require_creatable(name)
    return await namespaces.insert(
        conn,
        namespace_id=name,
        namespace_name=saved["namespace_name"] if name == saved["namespace_id"] else name,
        mode=saved["mode"],
        dynamic=saved["dynamic_vector_indexes"],
        description=saved["description"],
        settings=msgspec.json.encode(saved["settings"]).decode(),
    )


async def _copy_in(
    driver: psycopg.AsyncConnection[Any], text: sql.Composed, file: zipfile.ZipFile, entry: str, progress: Progress
) -> int:
    with file.open(entry) as data:
        async with driver.cursor() as cursor:
            async with cursor.copy(text) as copy:
                while chunk := await asyncio.to_thread(data.read, CHUNK):
                    await copy.write(chunk)
                    progress(len(chunk))
            return cursor.rowcount
