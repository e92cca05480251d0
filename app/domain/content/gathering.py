"""Gathering: sources that a new collection, a batch or a trigger asks for become work, a page in each transaction.

What a trigger has queued already, and what was made of the same content, stays as it is; so a walk that its worker did
not end is begun again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import statement
from app.domain.background import work
from app.domain.background.work import Claimed
from app.domain.catalog.namespaces import lock_catalog
from app.domain.content import collections, processing
from app.domain.content.collections import Collection
from app.domain.runtime import Runtime
from app.errors import NotFound
from app.retrieval.catalog import Catalog

PAGE = 5_000
PRIORITY = 0  # as what is written now; back-fills are below


class Ended(Exception):
    """The task was cancelled, or is gone with what it was for: nothing of this page is to stay."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which sources of a collection: those in `holders` (buckets or collections), or of these batches; whether what was
    made is made again; and the collections that it goes on to."""

    collection: Collection
    holders: Sequence[str]
    batch_ids: Sequence[str] | None = None
    again: bool = False
    task_id: str | None = None
    reached: Sequence[str] = ()


async def gather(runtime: Runtime, namespace_id: str, rows: Sequence[Claimed]) -> bool:
    """Queue what these ask for, all for one collection, and end their rows."""
    for row in rows:
        after: str | None = ""
        while after is not None:
            try:
                async with transaction(runtime.engine, runtime.settings) as conn:
                    after = await _page(conn, namespace_id, row, after)
            except Ended:
                async with transaction(runtime.engine, runtime.settings) as conn:
                    await work.finish(conn, [row])
                break
    return True


async def _page(conn: AsyncConnection, namespace_id: str, row: Claimed, after: str) -> str | None:
    """Queue a page of sources after that one. Answers the last of them; None where there are no more: the row ends."""
    try:
        catalog = await lock_catalog(conn, namespace_id, exclusive=False)
        asked = await _asked(conn, catalog, row)
    except NotFound:
        raise Ended from None
    found = await _sources(conn, catalog, asked, after)
    if found:
        await _queue(conn, catalog, asked, found)
    if len(found) == PAGE:
        return str(found[-1][0])
    await work.finish(conn, [row])
    return None


async def _asked(conn: AsyncConnection, catalog: Catalog, row: Claimed) -> Asked:
    collection = await collections.find(conn, catalog.namespace_id, row.target)
    if not collection.enabled:
        raise Ended
    if not row.subject:
        return Asked(collection, collection.made_of)
    task = (await conn.execute(statement("open_task"), {"task_id": row.subject})).one_or_none()
    if task is None:
        raise Ended
    batches = (await conn.execute(statement("batches_of_task"), {"task_id": row.subject})).all()
    only = batches[0].collection_ids if batches else None
    from_here: Mapping[str, Any] = {"collections": [row.target]}
    tiers = await processing.tiers(conn, catalog.namespace_id, **from_here, only=only)
    return Asked(
        collection,
        [each.bucket_id for each in batches] or task.about["holders"],
        [each.batch_id for each in batches] or None,
        (batches[0].dedup if batches else task.about["dedup_strategy"]) != "skip",
        row.subject,
        [each for tier in tiers for each in tier],
    )


async def _sources(conn: AsyncConnection, catalog: Catalog, asked: Asked, after: str) -> Sequence[Sequence[Any]]:
    """Each with the hash of its content."""
    if asked.collection.is_over_collections:
        documents = catalog.relation
        found = (
            sa.select(documents.c.document_id, processing.content_hash(documents))
            .where(documents.c.collection_id.in_(list(asked.holders)), documents.c.document_id > after)
            .order_by(documents.c.document_id)
            .limit(PAGE)
        )
        return (await conn.execute(found)).all()
    binds = {"bucket_ids": list(asked.holders), "after": after, "size": PAGE}
    if asked.batch_ids is None:
        return (await conn.execute(statement("sources_of"), binds)).all()
    return (await conn.execute(statement("sources_of_batches"), binds | {"batch_ids": list(asked.batch_ids)})).all()


async def _queue(conn: AsyncConnection, catalog: Catalog, asked: Asked, found: Sequence[Sequence[Any]]) -> None:
    binds: dict[str, Any] = {
        "namespace_id": catalog.namespace_id,
        "collection_id": asked.collection.collection_id,
        "source_ids": [row[0] for row in found],
    }
    queued = {"hashes": [row[1] for row in found], "again": asked.again, "task_id": asked.task_id, "priority": PRIORITY}
    more = (await conn.execute(statement("queue_sources"), binds | queued)).scalar_one()
    if asked.task_id is not None:
        binds |= {"collection_ids": list(asked.reached)}
        if len(asked.reached) > 1:
            await conn.execute(statement("queue_further"), binds | {"again": asked.again, "priority": PRIORITY})
        more += (await conn.execute(statement("await_made"), binds | {"task_id": asked.task_id})).rowcount
        grown = await conn.execute(statement("grow_task"), {"task_id": asked.task_id, "more": more})
        if grown.one_or_none() is None:
            raise Ended
    await conn.execute(statement("defer_work"), {"namespace_id": catalog.namespace_id})
