"""What of an upsert a service has yet to embed: told in the answer, and waited for where that is asked."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import statement
from app.domain.background import working
from app.domain.documents.documents import Document
from app.domain.runtime import Runtime
from app.retrieval.catalog import Catalog

# Of a request's time, what is left for its answer.
MARGIN_S = 2.0
# Seconds between looks at what another worker has.
FIRST_LOOK, LONGEST_LOOK = 0.02, 0.5
_working: set[asyncio.Task[int]] = set()


@dataclass(frozen=True, slots=True)
class Pending:
    """`open` documents are to be embedded, into these `indexes`, the first after `pause` seconds; `failed` ones were
    refused for good, and why; `without_vector` can be found by none now."""

    without_vector: list[str]
    open: list[str] = field(default_factory=list)
    failed: Mapping[str, str] = field(default_factory=dict)
    indexes: list[str] = field(default_factory=list)
    pause: float = 0.0

    def warnings(self) -> list[str]:
        found = []
        if self.open:
            what = "1 document is" if len(self.open) == 1 else f"{len(self.open)} documents are"
            indexes = ", ".join(map(repr, self.indexes))
            found.append(f"{what} yet to be embedded for {indexes}, and cannot be found there until then.")
        for document_id, reason in list(self.failed.items())[:10]:
            found.append(f"{document_id!r} was not embedded and is not tried again as it is: {reason}")
        if len(self.failed) > 10:
            found.append(f"Neither were {len(self.failed) - 10} others.")
        return found


async def look(conn: AsyncConnection, catalog: Catalog, given: Sequence[Document]) -> Pending:
    """As it stands for documents that were just stored; where nothing embeds itself, without asking the database."""
    bare = [document.document_id for document in given if not document.vectors]
    names = {source.column: source.name for source in catalog.sources if source.name in catalog.by_name}
    if not names:
        return Pending(bare)
    ids = [document.document_id for document in given]
    binds = {"namespace_id": catalog.namespace_id, "targets": list(names), "subjects": ids}
    open_, failed, indexes, pauses = dict[str, None](), dict[str, str](), set[str](), list[float]()
    for subject, target, has_failed, message, pause in await conn.execute(statement("pending_work"), binds):
        if has_failed:
            failed[subject] = message
        else:
            open_[subject] = None
            indexes.add(target)
            pauses.append(pause)
    without = await _without_vector(conn, catalog, list(names), bare) if bare else []
    in_order = [name for column, name in names.items() if column in indexes]
    return Pending(without, list(open_), failed, in_order, min(pauses, default=0.0))


async def _without_vector(
    conn: AsyncConnection, catalog: Catalog, columns: Sequence[str], bare: Sequence[str]
) -> list[str]:
    """Those that came without a vector and have none: not those whose unchanged source keeps what was made of it."""
    c = catalog.relation.c
    ids = sa.bindparam("ids", list(bare), sa.ARRAY(sa.Text))
    asked = sa.select(c.document_id).where(
        c.document_id == sa.func.any(ids), *(c[column].is_(None) for column in columns)
    )
    found = set((await conn.execute(asked)).scalars())
    return [document_id for document_id in bare if document_id in found]


async def wait(runtime: Runtime, catalog: Catalog, given: Sequence[Document], until: float) -> Pending:
    """Embed these documents now, or wait for who does, until this time of the monotonic clock. What is begun goes on
    after it: a call that is given up would hold its documents for as long as a lease lasts."""
    pause, todo = FIRST_LOOK, [document.document_id for document in given]
    while True:
        task = asyncio.create_task(working.do_all(runtime, catalog.namespace_id, todo))
        _working.add(task)
        task.add_done_callback(_ended)
        await asyncio.wait({task}, timeout=max(0.0, until - time.monotonic()))
        async with transaction(runtime.engine, runtime.settings) as conn:
            found = await look(conn, catalog, given)
        left = until - time.monotonic()
        if not found.open or left <= max(found.pause, pause):
            return found
        todo = found.open
        await asyncio.sleep(max(found.pause, pause))
        pause = min(2 * pause, LONGEST_LOOK)


def _ended(task: asyncio.Task[int]) -> None:
    _working.discard(task)
    if not task.cancelled():
        task.exception()  # its work is as it was: others will do it
