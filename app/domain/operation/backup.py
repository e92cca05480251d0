"""A namespace in a file: a zip with what the catalog has of it as JSON, and its tables as PostgreSQL's binary COPY.

Vectors, payloads and times are the same bits when they come back. Buckets, objects and collections are not in it.
"""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import LiteralString

import msgspec
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import __version__
from app.db.engine import connection, raw
from app.db.statements import statement
from app.domain.catalog import namespaces
from app.errors import Conflict
from app.retrieval.catalog import Catalog, LexicalField

FORMAT = 1
MANIFEST, ROWS = "manifest.json", "catalog.json"
CHUNK = 2**20
# A table is copied in one statement, however long that takes.
A_DAY_MS = 24 * 3600 * 1000
Progress = Callable[[int], None]
"""Is told of bytes as they go by."""


class Table(msgspec.Struct, frozen=True):
    """One table: its name in the schema, its columns, and its entry in the file."""

    name: str
    columns: list[str]

    @property
    def entry(self) -> str:
        return f"tables/{self.name}.copy"


class Manifest(msgspec.Struct, frozen=True):
    """What a backup says of itself."""

    format: int
    made_by: str
    namespace_id: str
    tables: list[Table]
    lexical_fields: list[LexicalField]
    left_out: dict[str, int]


def tables(catalog: Catalog) -> list[Table]:
    """The tables of a namespace that hold what its owner gave; indexes and postings are made anew."""
    found = [Table("documents", [column.name for column in catalog.relation.c])]
    sides = [catalog.side(config) for config in catalog.vector_configs if config.kind == "multi"]
    return found + [Table(side.name, [column.name for column in side.c]) for side in sides]


async def save(engine: AsyncEngine, namespace: str, path: Path, progress: Progress = lambda _: None) -> Manifest:
    """Write the namespace as one snapshot has it; writers go on meanwhile."""
    with _whole(path) as part:
        async with connection(engine) as conn, conn.begin():
            await conn.execute(statement("one_snapshot"))
            return await _save(conn, namespace, part, progress)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """The file is there when it is whole, and for its owner alone."""
    if path.exists():
        raise Conflict(f"{path} exists already; a backup is never written over.", code="file_exists")
    part = path.with_name(f"{path.name}.partial")
    try:
        part.touch(mode=0o600)
        yield part
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


async def _save(conn: AsyncConnection, namespace: str, part: Path, progress: Progress) -> Manifest:
    await conn.execute(statement("set_time_limits"), {"statement": f"{A_DAY_MS}ms", "lock": "0", "origin": None})
    catalog = await namespaces.load_catalog(conn, namespace)
    namespaces.refuse_adopted(catalog)
    catalog = replace(catalog, shadows=())
    binds = {"namespace_id": catalog.namespace_id}
    rows: str = (await conn.execute(statement("backup_rows"), binds)).scalar_one()
    left = dict((await conn.execute(statement("not_in_backup"), binds)).one()._mapping)
    manifest = Manifest(FORMAT, __version__, catalog.namespace_id, tables(catalog), list(catalog.lexical_fields), left)
    driver = await raw(conn)
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr(MANIFEST, msgspec.json.encode(manifest))
        file.writestr(ROWS, rows)
        for table in manifest.tables:
            text = copy_statement(catalog.schema, table, "TO STDOUT")
            with file.open(table.entry, "w", force_zip64=True) as entry:
                async with driver.cursor() as cursor, cursor.copy(text) as copy:
                    async for data in copy:  # a row at a time
                        entry.write(data)
                        progress(len(data))
    return manifest


def copy_statement(schema: str, table: Table, way: LiteralString) -> sql.Composed:
    """COPY of a table's columns, `TO STDOUT` or `FROM STDIN`, in binary."""
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    text = sql.SQL("COPY {} ({}) {} (FORMAT BINARY)")
    return text.format(sql.Identifier(schema, table.name), columns, sql.SQL(way))
