"""What became of a batch: what failed, and of each source of each collection whether it was made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain.content import processing
from app.domain.content.batches import Batch
from app.retrieval.catalog import Catalog


async def failures(
    conn: AsyncConnection, batch: Batch, *, collection_ids: Sequence[str] | None, limit: int, offset: int
) -> tuple[list[dict[str, Any]], int]:
    """Objects and rows that gave no document, and documents that could not be embedded; and how many there are."""
    binds = {
        "batch_id": batch.batch_id,
        "task_id": batch.task_id,
        "collection_ids": None if collection_ids is None else list(collection_ids),
        "limit": limit,
        "offset": offset,
    }
    rows = (await conn.execute(statement("batch_failures"), binds)).mappings().all()
    total = (await conn.execute(statement("count_batch_failures"), binds)).scalar_one()
    return [dict(row) for row in rows], total


async def failed_objects(conn: AsyncConnection, batch: Batch) -> int:
    """Objects that no document was made of."""
    count: int = (await conn.execute(statement("count_failed_objects"), {"task_id": batch.task_id})).scalar_one()
    return count


# Then nothing is on its way any more; what a cancelled batch has left is not lost, it may be asked for again.
SETTLED = ("COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED")


@dataclass(frozen=True, slots=True)
class Accounted:
    """What became of the sources of one collection in a batch."""

    collection_id: str
    tier: int
    submitted: int
    succeeded: int
    failed: int
    pending: int
    gone: int

    @property
    def lost(self) -> int:
        """Sources that are there, and of which nothing is known: never, unless this server has a fault."""
        return self.submitted - self.succeeded - self.failed - self.pending - self.gone


async def audit(conn: AsyncConnection, catalog: Catalog, batch: Batch) -> list[Accounted]:
    """For each collection of a submitted batch what became of its objects, or of the documents made of these."""
    every = await processing.tiers(conn, catalog.namespace_id, buckets=[batch.bucket_id], only=batch.collection_ids)
    binds = {
        "namespace_id": catalog.namespace_id,
        "batch_id": batch.batch_id,
        "bucket_id": batch.bucket_id,
        "collection_ids": [each for tier in every for each in tier],
    }
    rows = {row.collection_id: row for row in await conn.execute(statement("account_of_batch"), binds)}
    found = []
    for n, tier in enumerate(every):
        for collection_id in tier:
            row = rows.get(collection_id)
            if row is None:  # nothing was made that it could be made from
                found.append(Accounted(collection_id, n, 0, 0, 0, 0, 0))
                continue
            gone = await _gone(conn, catalog, row.rest) if row.rest else 0
            later = 0 if row.enabled and batch.status in SETTLED else len(row.rest) - gone
            found.append(
                Accounted(collection_id, n, row.submitted, row.succeeded, row.failed, row.pending + later, gone)
            )
    return found


async def _gone(conn: AsyncConnection, catalog: Catalog, ids: Sequence[str]) -> int:
    """How many of these objects or documents are not there any more."""
    objects = (await conn.execute(statement("count_objects"), {"object_ids": list(ids)})).scalar_one()
    documents = catalog.relation
    given = sa.func.any(sa.bindparam("ids", list(ids), ARRAY(sa.Text)))  # in_() has a bind for each: 65,535 at most
    asked = sa.select(sa.func.count()).where(documents.c.document_id == given)
    return len(ids) - int(objects) - int((await conn.execute(asked)).scalar_one())
