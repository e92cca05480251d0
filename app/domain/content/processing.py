"""Processing asked for: by a new collection, a batch or a trigger; tiers of collections.

What comes or changes is queued by triggers, where its collections are automatic.
"""

from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain.documents import sources
from app.retrieval.catalog import Catalog

Dedup = Literal["skip", "replace", "force"]


async def ask_for(conn: AsyncConnection, namespace_id: str, collection_id: str, task_id: str | None = None) -> None:
    """Workers are to process a collection's sources; which of them, the task says, if there is one."""
    binds = {"namespace_id": namespace_id, "collection_id": collection_id, "task_id": task_id}
    await conn.execute(statement("queue_gathering"), binds)


async def count_documents(conn: AsyncConnection, catalog: Catalog, of: Sequence[str]) -> int:
    """How many documents these collections have."""
    documents = catalog.relation
    asked = sa.select(sa.func.count()).where(documents.c.collection_id.in_(list(of)))
    return int((await conn.execute(asked)).scalar_one())


def content_hash(documents: sa.FromClause) -> sa.ColumnElement[Any]:
    """What of a document makes it another source: its payload."""
    return sources.hash_of(sa.cast(documents.c.payload, sa.Text))


async def begin_counting(conn: AsyncConnection, task_id: str) -> int:
    """All that the task waits for is queued now: how much it is. It ends at once where that is nothing."""
    total: int = (await conn.execute(statement("count_awaited"), {"task_id": task_id})).scalar_one()
    await conn.execute(statement("end_counted_tasks"), {"task_ids": [task_id]})
    return total


async def tiers(
    conn: AsyncConnection,
    namespace_id: str,
    *,
    buckets: Sequence[str] = (),
    collections: Sequence[str] = (),
    only: Sequence[str] | None = None,
) -> list[list[str]]:
    """Collections by their distance from these buckets or collections: each after all that it is made from."""
    binds = {"namespace_id": namespace_id, "buckets": list(buckets), "collections": list(collections)}
    found: dict[int, list[str]] = {}
    for row in await conn.execute(statement("tiers_of"), binds):
        if only is None or row.collection_id in only:
            found.setdefault(row.tier, []).append(row.collection_id)
    return [found[tier] for tier in sorted(found)]
