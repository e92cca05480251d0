"""Filling: makes the vectors that the work table asks for, of their documents' sources.

No transaction is open while a service embeds. A vector is written only where the source is still what was embedded,
the mapping is still in force, and no caller has brought a vector meanwhile.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import raw, transaction
from app.db.statements import as_json
from app.domain.background import work
from app.domain.background.work import Claimed
from app.domain.catalog.namespaces import load_catalog, lock_catalog
from app.domain.documents import sources
from app.domain.inference.embedding import embed, embed_images
from app.domain.inference.image_sources import is_content, read_image
from app.domain.inference.services import refresh_for
from app.domain.runtime import Runtime
from app.errors import InferenceUnavailable, InvalidRequest, NotFound, PgretrieveError
from app.inference.base import Vectors
from app.inference.turns import Urgency, urgency
from app.retrieval.catalog import Catalog, Source, VectorConfig, vector_type
from app.retrieval.plan import render

log = logging.getLogger(__name__)
_INPUT, _AT = sa.literal_column("'input'", sa.Text), sa.literal_column("'at'", sa.Text)


# Of which each has as many bytes as `max_image_bytes` allows.
IMAGES_AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """A document's source that has no vector yet."""

    row: Claimed
    text: str
    hash: str


Embedder = Callable[[Sequence[Wanted]], Awaitable[Vectors]]


async def fill(runtime: Runtime, namespace_id: str, rows: Sequence[Claimed]) -> bool:
    """Make these vectors, all of one column, and end their rows: made, postponed or dead. Whether the service is up."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        try:
            catalog = await load_catalog(conn, namespace_id)
        except NotFound:
            return True
        source = source_of(catalog, rows[0].target)
        wanted = await _wanted(conn, catalog, source, rows) if source else []
        open_ = {one.row for one in wanted}
        await work.finish(conn, [row for row in rows if row not in open_])
    if source is None or not wanted:
        return True
    await refresh_for(runtime, [source.service])
    with urgency(Urgency.BACKFILL if rows[0].priority < 0 else Urgency.WRITE):
        return await _make(runtime, catalog, source, wanted)


def source_of(catalog: Catalog, column: str) -> Source | None:
    """What is embedded into that column, if anything still is."""
    return next((source for source in catalog.sources if source.column == column), None)


def config_of(catalog: Catalog, column: str) -> VectorConfig:
    """The vector config of a column, or of the shadow that has it."""
    return next(config for config in catalog.every_config if config.column == column)


async def _wanted(conn: AsyncConnection, catalog: Catalog, source: Source, rows: Sequence[Claimed]) -> list[Wanted]:
    """The rows whose documents have a source and no vector."""
    documents = catalog.relation
    field = sa.bindparam("field", source.field, sa.Text)
    found = (
        sa.select(documents.c.document_id, sources.text_of(documents.c.payload, field).label("text"))
        .where(
            documents.c.document_id == sa.func.any(sa.bindparam("ids", [row.subject for row in rows], ARRAY(sa.Text))),
            documents.c[source.column].is_(None),
        )
        .subquery()
    )
    asked = sa.select(found.c.document_id, found.c.text, sources.hash_of(found.c.text)).where(found.c.text.is_not(None))
    by_id = {row.subject: row for row in rows}
    return [Wanted(by_id[document_id], text, hash_) for document_id, text, hash_ in await conn.execute(asked)]


async def _make(runtime: Runtime, catalog: Catalog, source: Source, wanted: Sequence[Wanted]) -> bool:
    """Texts as texts; images, where the service embeds those, in small groups, since each is held in memory."""
    service = runtime.inference.get(source.service)
    seen = service is not None and "image" in service.info.modalities
    images = [one for one in wanted if seen and is_content(one.text)]
    texts = [one for one in wanted if one not in images] if images else wanted

    async def embed_some(some: Sequence[Wanted]) -> Vectors:
        return (await embed(runtime, source.service, [one.text for one in some], "document")).vectors

    up = await _embedded(runtime, catalog, source, texts, embed_some) if texts else True
    for first in range(0, len(images), IMAGES_AT_A_TIME):
        up = await _make_images(runtime, catalog, source, images[first : first + IMAGES_AT_A_TIME]) and up
    return up


async def _make_images(runtime: Runtime, catalog: Catalog, source: Source, wanted: Sequence[Wanted]) -> bool:
    read: dict[int, bytes] = {}
    for one in wanted:
        try:
            read[one.row.work_id] = await read_image(runtime, catalog.namespace_id, one.text)
        except PgretrieveError as error:
            await _give_back(runtime, catalog, [one], error)

    async def embed_some(some: Sequence[Wanted]) -> Vectors:
        return (await embed_images(runtime, source.service, [read[one.row.work_id] for one in some])).vectors

    found = [one for one in wanted if one.row.work_id in read]
    return await _embedded(runtime, catalog, source, found, embed_some) if found else True


async def _embedded(
    runtime: Runtime, catalog: Catalog, source: Source, wanted: Sequence[Wanted], embed_some: Embedder
) -> bool:
    """Embed and store; where a call of several fails for one of them, the halves are tried apart."""
    try:
        vectors = await embed_some(wanted)
    except (InvalidRequest, InferenceUnavailable, NotFound) as error:
        if len(wanted) > 1 and _may_be_of_one(error):
            half = len(wanted) // 2
            parts = (wanted[:half], wanted[half:])
            halves = [await _embedded(runtime, catalog, source, some, embed_some) for some in parts]
            return all(halves)
        await _give_back(runtime, catalog, wanted, error)
        return not work.may_pass(error)
    await _store(runtime, catalog, source, wanted, vectors)
    return True


def _may_be_of_one(error: PgretrieveError) -> bool:
    """Whether one text of a call may be what made all of it fail."""
    return isinstance(error, InvalidRequest) or error.error_code == "inference_bad_answer"


async def _give_back(runtime: Runtime, catalog: Catalog, wanted: Sequence[Wanted], error: PgretrieveError) -> None:
    log.warning("%d texts of %s were not embedded: %s", len(wanted), catalog.namespace_id, error.message)
    async with transaction(runtime.engine, runtime.settings) as conn:
        await work.give_back(conn, runtime.settings, catalog.namespace_id, [one.row for one in wanted], error)


async def _store(
    runtime: Runtime, catalog: Catalog, source: Source, wanted: Sequence[Wanted], vectors: Vectors
) -> None:
    """Write vectors and who made them, and end the rows, in one transaction."""
    config = config_of(catalog, source.column)
    service = runtime.inference.get(source.service)
    assert service is not None, "it has just answered"
    made = {"service": source.service, "model": service.info.model, "revision": service.info.fingerprint}
    values = {
        "ids": [one.row.subject for one in wanted],
        "hashes": [one.hash for one in wanted],
        "vectors": [np.asarray(vector) for vector in vectors],
        "column": source.column,
        "field": source.field,
        "made": as_json(made),
    }
    async with transaction(runtime.engine, runtime.settings) as conn:
        now = await lock_catalog(conn, catalog.namespace_id, exclusive=False)
        if source in now.sources:
            await (await raw(conn)).execute(render(_statement(now, config)), values)
        await work.finish(conn, [one.row for one in wanted])


def _statement(catalog: Catalog, config: VectorConfig) -> sa.Update:
    documents = catalog.relation
    arrays = [
        sa.cast(sa.bindparam("ids"), ARRAY(sa.Text)),
        sa.cast(sa.bindparam("hashes"), ARRAY(sa.Text)),
        sa.cast(sa.bindparam("vectors"), ARRAY(vector_type(config))),
    ]
    given = sa.func.unnest(*arrays).table_valued("document_id", "hash", "vector").render_derived(name="given")
    column, field = (sa.cast(sa.bindparam(name), sa.Text) for name in ("column", "field"))
    when = sa.func.jsonb_build_object(_INPUT, given.c.hash, _AT, sa.func.now(), type_=JSONB)
    maker = sa.cast(sa.bindparam("made"), JSONB).op("||", return_type=JSONB())(when)
    entry = sa.func.jsonb_build_object(column, maker, type_=JSONB)
    provenance = documents.c.provenance.op("||", return_type=JSONB())(entry)
    return (
        sa.update(documents)
        .where(
            documents.c.document_id == given.c.document_id,
            documents.c[config.column].is_(None),
            sources.hash_of(sources.text_of(documents.c.payload, field)) == given.c.hash,
        )
        .values({config.column: given.c.vector, "provenance": provenance})
    )
