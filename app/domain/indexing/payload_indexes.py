"""Payload indexes: which fields of payloads are declared to be filtered by, and the indexes that serve the filters."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.payload_ddl import create_payload_index
from app.db.statements import as_json, statement
from app.domain.catalog import lexical
from app.errors import Problems
from app.jobs import queue
from app.retrieval.catalog import Catalog, FieldIndex, IndexState
from app.retrieval.field_indexes import kinds

TYPES = ("keyword", "integer", "float", "bool", "datetime", "geo", "text", "uuid")
# Indexes of so few documents are made within the request (10 µs for each document), those of more by a job.
SMALL = 2_000


@dataclass(frozen=True, slots=True)
class PayloadIndex:
    """A declared field, a dotted path into the payload; `field_schema` has the options that came with it."""

    field_name: str
    type: str
    field_schema: Any = None


def check_declared(indexes: Sequence[PayloadIndex], problems: Problems) -> None:
    """Find everything that is wrong with declarations."""
    seen: set[str] = set()
    for n, index in enumerate(indexes):
        here = ("body", "payload_indexes", n)
        if not 1 <= len(index.field_name) <= 255 or "\0" in index.field_name:
            message = "Name a field by a dotted path of 1 to 255 characters."
            problems.add((*here, "field_name"), "bad_field", message)
        if index.field_name in seen:
            message = f"The field {index.field_name!r} is declared more than once."
            problems.add((*here, "field_name"), "duplicate_name", message)
        seen.add(index.field_name)
        if index.type not in TYPES:
            message = f"Unknown type {index.type!r}; the types are {', '.join(TYPES)}."
            problems.add((*here, "type"), "unknown_type", message)
        if index.type == "text":
            lexical.check_options(index.field_schema, (*here, "field_schema"), problems)


async def put_declared(
    conn: AsyncConnection, catalog: Catalog, indexes: Sequence[PayloadIndex], *, adaptive_too: bool = False
) -> None:
    """These declarations in the place of those before, and with `adaptive_too` of what the service made by itself.

    The caller holds the namespace's lock, and gives the namespace a new version. What is stored is indexed now or by a
    job.
    """
    rows = as_json([asdict(index) for index in indexes])
    binds = {"namespace_id": catalog.namespace_id, "indexes": rows}
    gone = await conn.execute(statement("forget_payload_indexes"), {**binds, "adaptive_too": adaptive_too})
    for row in gone.mappings().all():
        await _defer_drop(conn, catalog, FieldIndex(**row))
    added = (await conn.execute(statement("put_payload_indexes"), binds)).mappings().all()
    await create(conn, catalog, [FieldIndex(**row) for row in added])
    texts = {index.field_name: index.field_schema for index in indexes if index.type == "text"}
    await lexical.declare(conn, catalog.namespace_id, lexical.fields_of(texts))


async def create(conn: AsyncConnection, catalog: Catalog, indexes: Sequence[FieldIndex]) -> None:
    """Make what new indexes need: now where there are few documents, by jobs otherwise."""
    some = sa.select(sa.literal(1)).select_from(catalog.documents).limit(SMALL + 1).subquery()
    small = bool(indexes) and (await conn.execute(sa.select(sa.func.count()).select_from(some))).scalar_one() <= SMALL
    for index in indexes:
        if small or not kinds(index):
            await create_payload_index(conn, catalog.schema, index)
            await set_state(conn, catalog.namespace_id, index.number, "ready")
        else:
            await defer_build(conn, catalog.namespace_id, index.number)


async def defer_build(conn: AsyncConnection, namespace_id: str, number: int) -> None:
    """Filters read the documents from now on, until the job has built the index."""
    await set_state(conn, namespace_id, number, "building")
    arguments = {"namespace_id": namespace_id, "number": number}
    # With builds of vector indexes: two concurrent ones on one table end in a deadlock.
    await queue.defer(conn, "build_payload_index", arguments, lock=f"build_index:{namespace_id}")


async def _defer_drop(conn: AsyncConnection, catalog: Catalog, index: FieldIndex) -> None:
    if kinds(index):
        arguments = {"schema": catalog.schema, "index": asdict(index)}
        await queue.defer(conn, "drop_payload_index", arguments, lock=f"build_index:{catalog.namespace_id}")


async def set_state(conn: AsyncConnection, namespace_id: str, number: int, state: IndexState) -> None:
    # One statement, so that in autocommit the state and the version change together.
    binds = {"namespace_id": namespace_id, "number": number, "state": state}
    await conn.execute(statement("set_payload_index_state"), binds)
