"""Batches: objects of a bucket that are processed together, and a task that ends when all of them can be searched."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import as_json, statement
from app.domain.background import tasks, work
from app.domain.catalog.listing import Listed
from app.domain.content import collections, processing
from app.domain.content.collections import Collection
from app.domain.content.processing import Dedup
from app.domain.documents.documents import holds_nul
from app.domain.security import access
from app.errors import Conflict, NotFound, Problems
from app.retrieval.catalog import Catalog

TIME = sa.TIMESTAMP(timezone=True)
LISTED = Listed(
    statement="list_batches",
    columns={
        **dict.fromkeys(("batch_id", "namespace_id", "bucket_id", "batch_name"), sa.Text()),
        "collection_ids": sa.ARRAY(sa.Text),
        **dict.fromkeys(("dedup", "metadata", "task_id", "created_by"), sa.Text()),
        **dict.fromkeys(("created_at", "submitted_at"), TIME),
        "object_count": sa.BigInteger(),
        **dict.fromkeys(("status", "error"), sa.Text()),
        **dict.fromkeys(("total", "done", "failed"), sa.BigInteger()),
        **dict.fromkeys(("started_at", "finished_at"), TIME),
    },
    key="batch_id",
    sortable=("batch_id", "batch_name", "created_at"),
    searched=("batch_id", "batch_name"),
    opened=("metadata",),
)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch, and how far its task is; JSON parts are kept as text. `status` is DRAFT until it is submitted."""

    batch_id: str
    namespace_id: str
    bucket_id: str
    batch_name: str | None
    collection_ids: Sequence[str] | None
    dedup: Dedup
    metadata: str
    task_id: str | None
    created_by: str | None
    created_at: datetime
    submitted_at: datetime | None
    object_count: int
    status: str
    error: str | None
    total: int | None
    done: int
    failed: int
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A batch as it was asked for; without `object_ids` it is of the whole bucket."""

    object_ids: Sequence[str] | None = None
    collection_ids: Sequence[str] | None = None
    name: str | None = None
    dedup: Dedup = "skip"
    metadata: Mapping[str, Any] | None = None


async def create(conn: AsyncConnection, catalog: Catalog, bucket_id: str, wanted: Wanted) -> Batch:
    """Make a batch, which nothing processes before it is submitted. `InvalidRequest` names every unknown object."""
    problems = Problems()
    if wanted.name is not None and (len(wanted.name) > 256 or "\0" in wanted.name):
        problems.add(("body", "batch_name"), "bad_name", "A batch_name has at most 256 characters, none U+0000.")
    if holds_nul(wanted.metadata):
        problems.add(("body", "metadata"), "nul_character", "PostgreSQL cannot store U+0000 in text; remove it.")
    problems.refuse()
    only = wanted.collection_ids
    if only is not None:
        only = await collections.resolve(conn, catalog.namespace_id, only, ("body", "collection_ids"))
    binds = {
        "batch_id": f"btch_{secrets.token_hex(12)}",
        "namespace_id": catalog.namespace_id,
        "bucket_id": bucket_id,
        "batch_name": wanted.name,
        "collection_ids": only,
        "dedup": wanted.dedup,
        "metadata": as_json(wanted.metadata or {}),
        "created_by": access.actor(),
    }
    try:
        await conn.execute(statement("insert_batch"), binds)
    except IntegrityError as error:
        raise Conflict("The bucket was deleted meanwhile.", code="changing", retryable=True) from error
    await _add(conn, str(binds["batch_id"]), bucket_id, wanted.object_ids)
    return await find(conn, catalog.namespace_id, bucket_id, str(binds["batch_id"]))


async def _add(conn: AsyncConnection, batch_id: str, bucket_id: str, object_ids: Sequence[str] | None) -> None:
    """Objects of the bucket: these, or all of it."""
    problems = Problems()
    if object_ids is not None:
        asked = [each for each in object_ids if "\0" not in each]
        known = await conn.execute(statement("objects_of_bucket"), {"bucket_id": bucket_id, "object_ids": asked})
        there = set(known.scalars())
        for n, object_id in enumerate(object_ids):
            if object_id not in there:
                message = f"The bucket has no object {object_id[:60]!r}."
                problems.add(("body", "object_ids", n), "unknown_object", message)
    problems.refuse()
    binds = {"batch_id": batch_id, "bucket_id": bucket_id}
    ids = None if object_ids is None else list(object_ids)
    await conn.execute(statement("add_batch_objects"), binds | {"object_ids": ids})


async def find(conn: AsyncConnection, namespace_id: str, bucket_id: str | None, batch_id: str) -> Batch:
    binds = {"namespace_id": namespace_id, "bucket_id": bucket_id, "batch_id": batch_id}
    row = None
    if "\0" not in batch_id:
        row = (await conn.execute(statement("find_batch"), binds)).mappings().one_or_none()
    if row is None:
        raise NotFound("batch", batch_id)
    return Batch(**row)


async def find_anywhere(conn: AsyncConnection, batch_id: str) -> Batch:
    """A batch of any namespace that the caller may see."""
    binds = {"batch_id": batch_id, "visible": access.visible()}
    found = None
    if "\0" not in batch_id:
        found = (await conn.execute(statement("namespace_of_batch"), binds)).scalar_one_or_none()
    if found is None:
        raise NotFound("batch", batch_id)
    return await find(conn, found, None, batch_id)


async def object_ids(conn: AsyncConnection, batch_id: str, most: int) -> list[str]:
    """The first of them."""
    binds = {"batch_id": batch_id, "most": most}
    return list((await conn.execute(statement("batch_object_ids"), binds)).scalars())


async def add(conn: AsyncConnection, catalog: Catalog, bucket_id: str, batch_id: str, ids: Sequence[str]) -> Batch:
    """Add objects to a batch that is not submitted yet."""
    found = await _draft(conn, catalog, bucket_id, batch_id, "objects are added before it is")
    await _add(conn, found.batch_id, bucket_id, ids)
    return await find(conn, catalog.namespace_id, bucket_id, batch_id)


async def _draft(conn: AsyncConnection, catalog: Catalog, bucket_id: str, batch_id: str, why: str) -> Batch:
    await conn.execute(statement("lock_batch"), {"batch_id": batch_id})
    found = await find(conn, catalog.namespace_id, bucket_id, batch_id)
    if found.task_id is not None:
        message = f"The batch {batch_id!r} is submitted already ({found.status}); {why}."
        raise Conflict(message, code="batch_submitted")
    return found


async def change(conn: AsyncConnection, batch: Batch, metadata: Mapping[str, Any]) -> Batch:
    """Replace its metadata."""
    problems = Problems()
    if holds_nul(metadata):
        problems.add(("body", "metadata"), "nul_character", "PostgreSQL cannot store U+0000 in text; remove it.")
    problems.refuse()
    binds = {"batch_id": batch.batch_id, "metadata": as_json(metadata)}
    await conn.execute(statement("change_batch"), binds)
    return await find(conn, batch.namespace_id, batch.bucket_id, batch.batch_id)


async def delete(conn: AsyncConnection, batch: Batch) -> None:
    """Forget a batch; `Conflict` while it is processed."""
    if batch.status in ("PENDING", "IN_PROGRESS"):
        raise Conflict("The batch is being processed; cancel it first.", code="batch_submitted")
    await conn.execute(statement("delete_batch"), {"batch_id": batch.batch_id})


async def submit(conn: AsyncConnection, catalog: Catalog, bucket_id: str, batch_id: str) -> Batch:
    """Queue its objects for their collections; its task waits for them, and for all that is made of them."""
    found = await _draft(conn, catalog, bucket_id, batch_id, "a batch is submitted once")
    if not found.object_count:
        raise Conflict("The batch has no objects; add some first.", code="batch_empty")
    about = {"batch_id": batch_id, "bucket_id": bucket_id, "object_count": found.object_count}
    task_id = await tasks.create(conn, catalog.namespace_id, "batch", subject=batch_id, about=about)
    await conn.execute(statement("submit_batch"), {"batch_id": batch_id, "task_id": task_id})
    every = await processing.tiers(conn, catalog.namespace_id, buckets=[bucket_id], only=found.collection_ids)
    for collection_id in (each for tier in every for each in tier):
        collection = await collections.find(conn, catalog.namespace_id, collection_id)
        if bucket_id in collection.made_of:
            await processing.ask_for(conn, catalog.namespace_id, collection_id, task_id)
    await processing.begin_counting(conn, task_id)
    return await find(conn, catalog.namespace_id, bucket_id, batch_id)


@dataclass(frozen=True, slots=True)
class Triggered:
    """What a trigger led to: its task, a batch for each bucket, and how much there is to do."""

    task_id: str
    batch_ids: Sequence[str]
    holders: Sequence[str]
    sources: int
    tiers: Sequence[Sequence[str]]


async def trigger(
    conn: AsyncConnection,
    catalog: Catalog,
    collection: Collection,
    *,
    holders: Sequence[str] | None = None,
    source_ids: Sequence[str] | None = None,
    dedup: Dedup = "skip",
) -> Triggered:
    """Process what a collection's sources have, and the collections over it, as one task."""
    if not collection.enabled:
        raise Conflict(f"The collection {collection.collection_name!r} is not enabled.", code="not_enabled")
    of = [each for each in collection.made_of if holders is None or each in holders]
    await _check_sources(conn, collection, of, holders, source_ids)
    about = {"collection_id": collection.collection_id, "dedup_strategy": dedup, "holders": of}
    task_id = await tasks.create(conn, catalog.namespace_id, "trigger", subject=collection.collection_id, about=about)
    every = await processing.tiers(conn, catalog.namespace_id, collections=[collection.collection_id])
    reached, batch_ids = [each for tier in every for each in tier], list[str]()
    if collection.is_over_collections:
        count = await processing.count_documents(conn, catalog, of)
    else:
        count = 0
        for bucket_id in of:
            batch_ids.append(f"btch_{secrets.token_hex(12)}")
            binds = {"batch_id": batch_ids[-1], "bucket_id": bucket_id}
            more = {"task_id": task_id, "namespace_id": catalog.namespace_id, "dedup": dedup, "collection_ids": reached}
            await conn.execute(statement("insert_trigger_batch"), binds | more | {"created_by": access.actor()})
            ids = None if source_ids is None else list(source_ids)
            count += (await conn.execute(statement("add_batch_objects"), binds | {"object_ids": ids})).rowcount
    if of:
        await processing.ask_for(conn, catalog.namespace_id, collection.collection_id, task_id)
    await processing.begin_counting(conn, task_id)
    return Triggered(task_id, batch_ids, of, count, every)


async def _check_sources(
    conn: AsyncConnection,
    collection: Collection,
    of: Sequence[str],
    holders: Sequence[str] | None,
    object_ids: Sequence[str] | None,
) -> None:
    """Whether the collection is made from all that was named."""
    problems = Problems()
    if others := [each for each in holders or () if each not in of]:
        at = "include_collections" if collection.is_over_collections else "include_buckets"
        message = f"{collection.collection_name!r} is not made from {', '.join(others)}."
        problems.add(("body", at), "not_a_source", message)
    there: set[str] = set()
    asked = [each for each in object_ids or () if "\0" not in each]
    for bucket_id in of if asked else ():
        known = await conn.execute(statement("objects_of_bucket"), {"bucket_id": bucket_id, "object_ids": asked})
        there |= set(known.scalars())
    for n, object_id in enumerate(object_ids or ()):
        if object_id not in there:
            message = f"None of the buckets has an object {object_id[:60]!r}."
            problems.add(("body", "object_ids", n), "unknown_object", message)
    problems.refuse()


async def retry(conn: AsyncConnection, batch: Batch, *, transient: bool) -> int:
    """Try again what a batch's task counts as failed: all, or what may have passed. Answers how much it is."""
    if batch.task_id is None:
        raise Conflict(f"The batch {batch.batch_id!r} is not submitted yet.", code="batch_not_submitted")
    return await work.redrive(conn, batch.namespace_id, task_id=batch.task_id, transient=transient)
