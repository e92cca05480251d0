"""What jobs do for payload indexes, each on a connection in autocommit: build, drop, and keep statistics."""

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.payload_ddl import create_payload_index_concurrently, drop_payload_index_concurrently
from app.db.statements import statement
from app.domain.catalog.namespaces import load_catalog
from app.domain.indexing.payload_indexes import set_state
from app.domain.retrieving import functions
from app.errors import NotFound
from app.retrieval.catalog import Catalog, FieldIndex
from app.retrieval.field_indexes import kinds, name_of


async def build(conn: AsyncConnection, namespace_id: str, number: int) -> bool:
    """Build the index beside readers and writers, with the statistics that estimates need, and tell the catalog.

    False where it is not wanted any more.
    """
    try:
        catalog = await load_catalog(conn, namespace_id)
    except NotFound:
        return False
    index = next((index for index in catalog.payload_indexes if index.number == number), None)
    if index is None:
        return False
    try:
        await create_payload_index_concurrently(conn, catalog.schema, index)
        await conn.execute(statement("analyze_documents"), {"schema": catalog.schema})
    except DBAPIError:
        await conn.rollback()  # gives a new connection where the server ended this one
        await set_state(conn, namespace_id, number, "failed")
        await functions.follow(conn, namespace_id)
        raise
    await set_state(conn, namespace_id, number, "ready" if await is_valid(conn, catalog, index) else "failed")
    await functions.follow(conn, namespace_id)
    return True


async def is_valid(conn: AsyncConnection, catalog: Catalog, index: FieldIndex) -> bool:
    """Whether all that is kept for the index is there and whole."""
    for kind in kinds(index):
        binds = {"schema": catalog.schema, "index_name": name_of(index, kind)}
        if not (await conn.execute(statement("index_is_valid"), binds)).scalar_one():
            return False
    return True


async def drop(conn: AsyncConnection, schema: str, index: FieldIndex) -> None:
    await drop_payload_index_concurrently(conn, schema, index)


async def analyze_grown(conn: AsyncConnection) -> list[str]:
    """New statistics where many documents changed, for a server whose autovacuum is off or late; the schemas."""
    schemas = list((await conn.execute(statement("grown_schemas"))).scalars())
    for schema in schemas:
        await conn.execute(statement("analyze_documents"), {"schema": schema})
    return schemas
