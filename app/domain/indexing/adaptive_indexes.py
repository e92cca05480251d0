"""Adaptive payload indexes: made from what filters ask for, where a namespace does not forbid it."""

import logging
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from app.db.engine import transaction
from app.db.statements import statement
from app.domain.indexing.payload_indexes import defer_build
from app.domain.runtime import Runtime
from app.errors import Unavailable
from app.retrieval.catalog import Catalog, FieldType

log = logging.getLogger(__name__)


async def note_use(runtime: Runtime, catalog: Catalog, unindexed: Sequence[tuple[str, FieldType]]) -> None:
    """Count these fields, which filters read every document for; of one that comes often an index is asked for.

    Counts are the process's own. A request does not fail by it: what cannot be asked for now is, after as many uses.
    """
    settings, indexed = runtime.settings, {index.field for index in catalog.payload_indexes}
    for field, type_ in unindexed if settings.adaptive_indexes else ():
        if field in indexed:
            continue
        place = (catalog.namespace_id, field, type_)
        uses = (runtime.filter_uses.get(place) or 0) + 1
        if uses < settings.adaptive_index_uses:
            runtime.filter_uses.put(place, uses)
            continue
        runtime.filter_uses.forget(place)
        try:
            await _adapt(runtime, catalog.namespace_id, field, type_)
        except (DBAPIError, Unavailable):
            log.warning("no index on %r of %s could be asked for", field, catalog.namespace_id, exc_info=True)


async def _adapt(runtime: Runtime, namespace_id: str, field: str, type_: FieldType) -> None:
    settings = runtime.settings
    binds = {
        "namespace_id": namespace_id,
        "field": field,
        "type": type_,
        "documents": settings.adaptive_index_documents,
        "most": settings.adaptive_indexes,
    }
    async with transaction(runtime.engine, settings, lock_timeout_ms=settings.lock_timeout_ms) as conn:
        number = (await conn.execute(statement("adapt_payload_index"), binds)).scalar_one_or_none()
        if number is not None:
            await defer_build(conn, namespace_id, number)
            log.info("asked for a payload index on %r of %s, which filters use", field, namespace_id)
