"""What a back-fill will cost, before it starts: documents, characters, tokens, and how long its rate takes."""

import logging
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.domain.documents import sources
from app.domain.inference.services import refresh_for
from app.domain.runtime import Runtime
from app.errors import PgretrieveError
from app.inference.turns import Urgency, urgency
from app.retrieval.catalog import Catalog

log = logging.getLogger(__name__)

# Texts whose tokens are counted, and how much of each: no service of ours reads more than 8,192 tokens of one.
SAMPLE, SAMPLE_CHARS = 256, 32_768
# English in the tokens of common models; where a service's own tokenizer is not at hand.
CHARS_PER_TOKEN = 4

Counted = Literal["tokenizer", "tokenizer on a sample", "estimate"]


@dataclass(frozen=True, slots=True)
class Forecast:
    """`items` are to be embedded; `without_source` have no text there, and stay out of the index. `tokens` are counted
    as `tokens_by` says: by the service's tokenizer, by it on a sample, or estimated from the characters. `seconds` is
    the least that the rate takes; None where there is none."""

    items: int
    without_source: int
    characters: int
    tokens: int
    tokens_by: Counted
    seconds: float | None


async def forecast(
    runtime: Runtime, catalog: Catalog, column: str | None, field: str, service: str, rate_per_minute: int | None
) -> Forecast:
    """Of the documents without a vector in `column` (None: it is not there yet, so of all). Takes no lock.
    Call it with no transaction open."""
    await refresh_for(runtime, [service])
    async with transaction(runtime.engine, runtime.settings) as conn:
        items, without, characters = await _totals(conn, catalog, column, field)
        texts = await _sample(conn, catalog, column, field, max(1, items // SAMPLE)) if items else []
    tokens, by = await _tokens(runtime, service, texts, items, characters)
    seconds = round(items * 60 / rate_per_minute, 1) if rate_per_minute else None
    return Forecast(items, without, characters, tokens, by, seconds)


def _open(catalog: Catalog, column: str | None) -> list[sa.ColumnElement[bool]]:
    return [] if column is None else [catalog.relation.c[column].is_(None)]


def _text(catalog: Catalog) -> sa.ColumnElement[Any]:
    return sources.text_of(catalog.relation.c.payload, sa.bindparam("field", type_=sa.Text))


async def _totals(conn: AsyncConnection, catalog: Catalog, column: str | None, field: str) -> tuple[int, int, int]:
    found = sa.select(_text(catalog).label("text")).where(*_open(catalog, column)).subquery()
    asked = sa.select(
        sa.func.count(found.c.text),
        sa.func.count() - sa.func.count(found.c.text),
        sa.func.coalesce(sa.func.sum(sa.func.length(found.c.text)), sa.literal_column("0")),
    ).select_from(found)
    items, without, characters = (await conn.execute(asked, {"field": field})).one()
    return items, without, int(characters)


async def _sample(conn: AsyncConnection, catalog: Catalog, column: str | None, field: str, every: int) -> list[str]:
    """About `SAMPLE` texts, chosen by a hash of the ids, so that the order of the ids does not matter."""
    number = sa.func.hashtext(catalog.relation.c.document_id).op("&")(sa.literal_column(str(2**31 - 1)))
    text = _text(catalog)
    asked = (
        sa.select(sa.func.left(text, SAMPLE_CHARS))
        .where(text.is_not(None), *_open(catalog, column), number % sa.bindparam("every", every, sa.Integer) == 0)
        .limit(2 * SAMPLE)
    )
    return list((await conn.execute(asked, {"field": field})).scalars())


async def _tokens(runtime: Runtime, service: str, texts: list[str], items: int, characters: int) -> tuple[int, Counted]:
    counted = None
    try:
        with urgency(Urgency.BACKFILL):
            counted = await runtime.inference.count_tokens(service, texts) if texts else None
    except PgretrieveError as error:  # not installed here: the forecast is an estimate, not a failure
        log.info("the tokens of %s are estimated: %s", service, error.message)
    if counted is None:
        return -(-characters // CHARS_PER_TOKEN), "estimate"
    if len(texts) == items:
        return counted, "tokenizer"
    return round(counted / len(texts) * items), "tokenizer on a sample"
