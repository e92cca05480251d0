"""Processing asked for: sources of collections become work, which a task may wait for; tiers of collections.

What comes or changes is queued by triggers, where its collections are automatic; here is what a request or a new
collection asks for.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain import sources
from app.domain.collections import Collection
from app.retrieval.catalog import Catalog

PAGE = 5_000
# Below what is written now, above back-fills.
PRIORITY = 0
Dedup = Literal["skip", "replace", "force"]


@dataclass(frozen=True, slots=True)
class Queued:
    """How many sources there were, and how many of them are to be made."""

    sources: int = 0
    queued: int = 0

    def __add__(self, other: "Queued") -> "Queued":
        return Queued(self.sources + other.sources, self.queued + other.queued)


async def queue(
    conn: AsyncConnection,
    catalog: Catalog,
    collection: Collection,
    *,
    holders: Sequence[str] | None = None,
    batch_id: str | None = None,
    again: bool = False,
    task_id: str | None = None,
) -> Queued:
    """Queue the sources of a collection: of these of its buckets or parents alone, or those of a batch, where given."""
    of = [each for each in collection.made_of if holders is None or each in holders]
    pages = _documents(conn, catalog, of) if collection.is_over_collections else _objects(conn, of, batch_id)
    total = Queued()
    async for found in pages:
        binds = {
            "namespace_id": catalog.namespace_id,
            "collection_id": collection.collection_id,
            "source_ids": [row[0] for row in found],
            "hashes": [row[1] for row in found],
            "again": again,
            "task_id": task_id,
            "priority": PRIORITY,
        }
        count = (await conn.execute(statement("queue_sources"), binds)).scalar_one()
        total += Queued(len(found), count)
    if total.queued:
        await conn.execute(statement("defer_work"), {"namespace_id": catalog.namespace_id})
    return total


async def _objects(
    conn: AsyncConnection, bucket_ids: Sequence[str], batch_id: str | None
) -> AsyncIterator[Sequence[Sequence[Any]]]:
    of: dict[str, Any] = {"bucket_ids": list(bucket_ids)} if batch_id is None else {"batch_id": batch_id}
    asked, after = statement("sources_of" if batch_id is None else "sources_of_batch"), ""
    while True:
        found = (await conn.execute(asked, of | {"after": after, "size": PAGE})).all()
        if found:
            yield found
        if len(found) < PAGE:
            return
        after = found[-1].object_id


async def _documents(
    conn: AsyncConnection, catalog: Catalog, parent_ids: Sequence[str]
) -> AsyncIterator[Sequence[Sequence[Any]]]:
    documents, after = catalog.relation, ""
    while True:
        asked = (
            sa.select(documents.c.document_id, content_hash(documents))
            .where(documents.c.collection_id.in_(list(parent_ids)), documents.c.document_id > after)
            .order_by(documents.c.document_id)
            .limit(PAGE)
        )
        found = (await conn.execute(asked)).all()
        if found:
            yield found
        if len(found) < PAGE:
            return
        after = found[-1].document_id


def content_hash(documents: sa.FromClause) -> sa.ColumnElement[Any]:
    """What of a document makes it another source: its payload."""
    return sources.hash_of(sa.cast(documents.c.payload, sa.Text))


async def go_on(
    conn: AsyncConnection,
    catalog: Catalog,
    tiers_: Sequence[Sequence[str]],
    batch_ids: Sequence[str] | None,
    task_id: str,
    *,
    again: bool,
) -> None:
    """What was made already of the sources of these collections, of these batches or all, goes through the collections
    over them, and the task waits for that, and for what is not embedded yet."""
    binds: dict[str, Any] = {
        "namespace_id": catalog.namespace_id,
        "first": tiers_[0] if tiers_ else [],
        "collection_ids": [each for tier in tiers_ for each in tier],
        "batch_ids": None if batch_ids is None else list(batch_ids),
    }
    if len(tiers_) > 1:
        further = binds | {"again": again, "priority": PRIORITY}
        if (await conn.execute(statement("queue_further"), further)).rowcount:
            await conn.execute(statement("defer_work"), {"namespace_id": catalog.namespace_id})
    await conn.execute(statement("await_made"), binds | {"task_id": task_id})


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
