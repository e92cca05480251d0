"""Extracting: makes the documents that the work table asks for, of objects or of other collections' documents.

Sources are read first; bytes, extractors and the blob store have no transaction open; then one transaction stores what
each source gave in place of what it gave before, ends its work, and lets the triggers queue what is to be embedded.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import statement
from app.domain.background.work import Claimed
from app.domain.catalog.namespaces import load_catalog
from app.domain.content import loading, made_documents, storing
from app.domain.content.collection_configs import Recipe, stored_recipe
from app.domain.content.loading import Source
from app.domain.content.made_documents import Made, Place
from app.domain.runtime import Runtime
from app.errors import ExtractionFailed, InvalidRequest, NotFound, PgretrieveError, Unavailable
from app.retrieval.catalog import Catalog

log = logging.getLogger(__name__)
# What is stored in one transaction: small objects share one.
GROUP_DOCUMENTS, GROUP_BYTES = 500, 8 * 2**20


@dataclass(frozen=True, slots=True)
class Wanted:
    """A source that is to be made, under a lease."""

    row: Claimed
    source: Source
    input_hash: str


async def extract(runtime: Runtime, namespace_id: str, rows: Sequence[Claimed]) -> bool:
    """Make what these sources give, all for one collection, and end their rows: made, postponed or dead."""
    place, wanted = await _prepare(runtime, namespace_id, rows)
    if place is None:
        return True
    group: list[Made] = []
    try:
        for one in wanted:
            made = await _make(runtime, place, one)
            group += [made] if made is not None else []
            if sum(m.size for m in group) >= GROUP_BYTES or sum(len(m.ids) for m in group) >= GROUP_DOCUMENTS:
                await _store(runtime, place, group)
                group = []
        await _store(runtime, place, group)
    finally:
        for made in group:
            made.close()
    return True


async def _prepare(
    runtime: Runtime, namespace_id: str, rows: Sequence[Claimed]
) -> tuple[Place | None, Sequence[Wanted]]:
    """What there is to make; rows of what is gone, or was made of the same content before, end here."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        try:
            catalog = await load_catalog(conn, namespace_id)
        except NotFound:
            return None, ()
        place = await _place(conn, catalog, rows[0].target)
        sources = await read_sources(conn, place, rows) if place is not None else {}
        known = await _known(conn, place, rows) if place is not None else {}
    wanted: list[Wanted] = []
    done: list[Claimed] = []
    for row in rows:
        source = sources.get(row.subject)
        if place is None or source is None:
            done.append(row)
            continue
        input_hash = input_hash_of(source.content_hash, place.fingerprint)
        if known.get(row.subject) == input_hash:
            done.append(row)
        else:
            wanted.append(Wanted(row, source, input_hash))
    if done:
        await storing.end(runtime, place, done)
    return place, wanted


async def _place(conn: AsyncConnection, catalog: Catalog, collection_id: str) -> Place | None:
    """The collection, if it is to be filled still."""
    binds = {"namespace_id": catalog.namespace_id, "collection_id": collection_id}
    row = (await conn.execute(statement("find_recipe"), binds)).one_or_none()
    if row is None or not row.enabled:
        return None
    recipe: Recipe = stored_recipe(row.feature_extractor, row.paths)
    return Place(
        catalog.namespace_id,
        row.collection_id,
        row.source_type,
        recipe,
        row.fingerprint,
        row.indexes,
        {source.name: source.field for source in catalog.sources},
    )


async def read_sources(conn: AsyncConnection, place: Place, rows: Sequence[Claimed]) -> dict[str, Source]:
    ids = [row.subject for row in rows]
    if place.source_type == "bucket":
        return await loading.read_objects(conn, ids)
    return await loading.read_documents(conn, await load_catalog(conn, place.namespace_id), ids)


async def _known(conn: AsyncConnection, place: Place, rows: Sequence[Claimed]) -> dict[str, str]:
    """Of what each of the sources was made before."""
    binds = {"collection_id": place.collection_id, "source_ids": [row.subject for row in rows]}
    return {row.source_id: row.input_hash for row in await conn.execute(statement("extraction_inputs"), binds)}


def input_hash_of(content_hash: str, fingerprint: str) -> str:
    """As `pgretrieve.input_hash` has it."""
    return hashlib.sha256(f"{content_hash}:{fingerprint}".encode()).hexdigest()


async def _make(runtime: Runtime, place: Place, wanted: Wanted) -> Made | None:
    """What the source gives; None where that failed, which is then noted."""
    try:
        return await made_documents.make(runtime, place, wanted.row, wanted.source, wanted.input_hash)
    except (SQLAlchemyError, psycopg.Error):
        raise  # the database's trouble is none of the content's
    except (ExtractionFailed, Unavailable, NotFound, InvalidRequest) as error:
        await _give_back(runtime, place, [wanted.row], error)
    except Exception as error:  # a fault of ours must not hold up the other sources
        log.exception("extracting %s for %s failed", wanted.source.source_id, place.collection_id)
        message = f"The worker failed ({type(error).__name__}): its log has more."
        await _give_back(runtime, place, [wanted.row], Unavailable(message, code="worker_failed"))
    return None


async def _store(runtime: Runtime, place: Place, group: Sequence[Made]) -> None:
    """Store them together; where the database refuses one, each by itself."""
    if not group:
        return
    try:
        await storing.store(runtime, place, group)
    except (InvalidRequest, PgretrieveError) as error:
        if len(group) > 1:
            for made in group:
                await _store(runtime, place, [made])
        else:
            await _give_back(runtime, place, [group[0].row], error)
    finally:
        for made in group:
            made.close()


async def _give_back(runtime: Runtime, place: Place, rows: Sequence[Claimed], error: PgretrieveError) -> None:
    log.warning("%s was not extracted for %s: %s", rows[0].subject, place.collection_id, error.message)
    await storing.give_back(runtime, place, rows, error)
