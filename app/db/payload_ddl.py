"""The DDL of payload indexes, on the table of a namespace's documents."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateIndex, DropIndex

from app.db.ddl import documents_table
from app.retrieval.catalog import FieldIndex, Fields
from app.retrieval.field_indexes import Kind, expressions, kinds, name_of


async def create_payload_index(conn: AsyncConnection, schema: str, index: FieldIndex) -> None:
    """Create it in this transaction: for tables that hold few documents."""
    for kind in kinds(index):
        await conn.execute(CreateIndex(physical_index(schema, index, kind)))


async def create_payload_index_concurrently(conn: AsyncConnection, schema: str, index: FieldIndex) -> None:
    """Build it beside readers and writers, on a connection in autocommit; left-overs are dropped first."""
    await drop_payload_index_concurrently(conn, schema, index)
    for kind in kinds(index):
        physical = physical_index(schema, index, kind)
        physical.dialect_options["postgresql"]["concurrently"] = True
        await conn.execute(CreateIndex(physical))


async def drop_payload_index_concurrently(conn: AsyncConnection, schema: str, index: FieldIndex) -> None:
    for kind in kinds(index):
        physical = physical_index(schema, index, kind)
        physical.dialect_options["postgresql"]["concurrently"] = True
        await conn.execute(DropIndex(physical, if_exists=True))


def physical_index(schema: str, index: FieldIndex, kind: Kind) -> sa.Index:
    table = documents_table(schema, ())
    name, columns = name_of(index, kind), expressions(kind, Fields(table), index.field)
    if kind not in ("keys", "cells"):
        return sa.Index(name, *columns, _table=table)
    # Without a list of pending entries, which each search would read, and each estimate.
    return sa.Index(name, *columns, _table=table, postgresql_using="gin", postgresql_with={"fastupdate": "off"})
