"""Stores what was extracted: in one transaction the documents of each source, in place of those that it gave before.

Locks are taken in the order of those who write objects: the objects, then their work. A lease that was lost to newer
content, or with its source, stores nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import as_json, statement
from app.domain.background import work
from app.domain.background.work import Claimed
from app.domain.catalog.namespaces import lock_catalog
from app.domain.content import loading
from app.domain.content.made_documents import Made, Place
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.domain.runtime import Runtime
from app.errors import NotFound, PgretrieveError, Unavailable
from app.retrieval.catalog import Catalog

PAGE = 1_000  # documents in one statement


async def store(runtime: Runtime, place: Place, group: Sequence[Made]) -> None:
    """Raises `InvalidRequest` or `Conflict` where the database cannot take them; then nothing is stored."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        try:
            catalog = await lock_catalog(conn, place.namespace_id, exclusive=False)
        except NotFound:
            return
        now = await _lock_sources(conn, catalog, place, [made.source.source_id for made in group])
        held = await _hold(conn, [made.row for made in group])
        keep = [made for made in group if made.row.work_id in held]
        stale = [made.row for made in keep if now.get(made.source.source_id) != made.source.content_hash]
        keep = [made for made in keep if made.row not in stale]
        if stale:  # changed since, of a collection that is not automatic
            error = Unavailable("The source has changed while it was extracted.", code="changing")
            await work.give_back(conn, runtime.settings, place.namespace_id, stale, error)
        if not keep:
            return
        await _put(conn, runtime, catalog, place, keep)
        await _pass_on(conn, catalog, place, keep)
        await work.finish(conn, [made.row for made in keep])
        await _settle(conn, place, [made.source.source_id for made in keep])


async def _lock_sources(conn: AsyncConnection, catalog: Catalog, place: Place, ids: Sequence[str]) -> dict[str, str]:
    """What their contents are now."""
    if place.source_type == "bucket":
        rows = await conn.execute(statement("lock_objects"), {"object_ids": sorted(ids)})
        return {row.object_id: row.content_hash for row in rows}
    return {
        source_id: source.content_hash
        for source_id, source in (await loading.read_documents(conn, catalog, ids)).items()
    }


async def _hold(conn: AsyncConnection, rows: Sequence[Claimed]) -> set[int]:
    binds = {"ids": [row.work_id for row in rows], "leases": [row.lease for row in rows]}
    return set((await conn.execute(statement("hold_work"), binds)).scalars())


async def _put(conn: AsyncConnection, runtime: Runtime, catalog: Catalog, place: Place, group: Sequence[Made]) -> None:
    written = {sha256: each for made in group for sha256, each in made.written.items()}
    if written:
        rows = as_json([asdict(each) for each in written.values()])
        await conn.execute(statement("put_blobs"), {"blobs": rows})
    gone: list[str] = []
    for made in group:
        binds = {"collection_id": place.collection_id, "source_id": made.source.source_id}
        kept = {
            "input_hash": made.input_hash,
            "document_ids": made.ids,
            "rejected": as_json(msgspec.to_builtins(made.rejected)),
            "rejected_count": made.rejected_count,
        }
        gone += (await conn.execute(statement("keep_extraction"), binds | kept)).scalars()
        await conn.execute(statement("keep_extracted_blobs"), binds | {"sha256": sorted(made.written)})
    await _delete(conn, catalog, place, gone)
    every = (document for made in group for document in made.documents())
    for page in _pages(every):
        # What is made anew of its source is for those who could read it before.
        await documents.upsert(conn, catalog, page, runtime.settings, place.collection_id, keep_acl=True)


def _pages(every: Iterator[Document]) -> Iterator[list[Document]]:
    while page := list(islice(every, PAGE)):
        yield page


async def _delete(conn: AsyncConnection, catalog: Catalog, place: Place, ids: Sequence[str]) -> None:
    if ids:
        stored = catalog.relation
        given = sa.func.any(sa.bindparam("ids", sorted(ids), ARRAY(sa.Text)))
        await conn.execute(
            sa.delete(stored).where(stored.c.document_id == given, stored.c.collection_id == place.collection_id)
        )


async def _pass_on(conn: AsyncConnection, catalog: Catalog, place: Place, group: Sequence[Made]) -> None:
    """Tasks that wait for these sources wait for their documents, too: to be embedded, to be extracted further."""
    rows = {made.row.work_id: made for made in group}
    awaited = await conn.execute(statement("awaited_of"), {"work_ids": list(rows)})
    found = list(awaited.scalars())
    if not found:
        return
    over = await conn.execute(statement("collections_over"), {"bucket_id": None, "parents": [place.collection_id]})
    children = [row.collection_id for row in over]
    columns = [catalog.by_name[name].column for name in place.indexes.values() if name in catalog.by_name]
    for work_id in found:
        binds = {
            "work_id": work_id,
            "namespace_id": place.namespace_id,
            "document_ids": rows[work_id].ids,
            "children": children,
            "columns": columns,
        }
        if children:
            await conn.execute(statement("queue_children"), binds)
        await conn.execute(statement("await_made_of"), binds)


async def end(runtime: Runtime, place: Place | None, rows: Sequence[Claimed]) -> None:
    """End rows for which there is nothing to make: their sources are gone, or the same as before."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        ids = [row.subject for row in rows]
        if place is not None and place.source_type == "bucket":
            await conn.execute(statement("lock_objects"), {"object_ids": sorted(ids)})
        await work.finish(conn, rows)
        if place is not None:
            await _settle(conn, place, ids)


async def give_back(runtime: Runtime, place: Place, rows: Sequence[Claimed], error: PgretrieveError) -> None:
    """These failed: for good, or until later."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        ids = [row.subject for row in rows]
        if place.source_type == "bucket":
            await conn.execute(statement("lock_objects"), {"object_ids": sorted(ids)})
        await work.give_back(conn, runtime.settings, place.namespace_id, rows, error)
        await _settle(conn, place, ids)


async def _settle(conn: AsyncConnection, place: Place, object_ids: Sequence[str]) -> None:
    """Say of the objects how it stands with them; who comes last sees what the others have done."""
    if place.source_type == "bucket":
        binds: Mapping[str, object] = {"namespace_id": place.namespace_id, "object_ids": sorted(object_ids)}
        await conn.execute(statement("settle_objects"), dict(binds))
