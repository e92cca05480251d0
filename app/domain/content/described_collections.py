"""What answers show of collections beside what is stored: how many documents they have, and what waits for vectors."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.retrieval.catalog import Catalog


async def counts(conn: AsyncConnection, catalog: Catalog, collection_ids: Sequence[str]) -> dict[str, int]:
    """The documents of each; an index answers alone."""
    documents = catalog.relation
    asked = (
        sa.select(documents.c.collection_id, sa.func.count())
        .where(documents.c.collection_id.in_(list(collection_ids)))
        .group_by(documents.c.collection_id)
    )
    return {row[0]: row[1] for row in await conn.execute(asked)}


async def waiting(conn: AsyncConnection, catalog: Catalog) -> set[str]:
    """The indexes for which documents wait to be embedded."""
    columns = {config.column: config.name for config in catalog.vector_configs}
    rows = await conn.execute(
        statement("columns_with_work"), {"namespace_id": catalog.namespace_id, "columns": list(columns)}
    )
    return {columns[column] for column in rows.scalars()}
