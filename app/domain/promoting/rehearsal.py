"""A rehearsal: the real change in a transaction that its caller rolls back, and what was seen of it.

It is handed the very function that the real transaction runs, so its verdict is that function's. What it sees is
counted by PostgreSQL: the locks of its own backend, the rows that it touched, the files that the rows lie in.
"""

import re
import time
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain.catalog.namespaces import load_catalog
from app.domain.indexing.index_estimates import Estimate, estimate
from app.retrieval.catalog import Catalog
from app.settings import Settings

NAMESPACE = "the namespace"  # as the target of a lock: one's turn to change it
# The last one is a function of ours that makes triggers.
DDL = ("ALTER ", "CREATE ", "COMMENT ", "DROP ", "SELECT pgretrieve.watch_sources(")
# PostgreSQL's lock modes from the weakest to the strongest, and from which on others cannot write, or read.
MODES = ("AccessShare", "RowShare", "RowExclusive", "ShareUpdateExclusive")
STOP_WRITES = ("Share", "ShareRowExclusive", "Exclusive")
STOP_READS = ("AccessExclusive",)
STRENGTH = {f"{mode}Lock": strength for strength, mode in enumerate((*MODES, *STOP_WRITES, *STOP_READS))}


LEADING = re.compile(r"(\s+|--[^\n]*\n)*")  # blanks, and comments of named statements


@dataclass(frozen=True, slots=True)
class Ran:
    """A statement that changes tables, and how long it took with its waits."""

    text: str
    ms: float


@dataclass(frozen=True, slots=True)
class Lock:
    """The strongest lock that was taken on a table. It was waited for at most as long as its statement took."""

    target: str
    mode: str
    waited_ms: float
    held_ms: float
    new: bool  # the table was made by the change, so nobody else knows it

    @property
    def stops_writes(self) -> bool:
        return not self.new and STRENGTH[self.mode] >= STRENGTH["ShareLock"]

    @property
    def stops_reads(self) -> bool:
        return not self.new and STRENGTH[self.mode] >= STRENGTH["AccessExclusiveLock"]


@dataclass(frozen=True, slots=True)
class Touched:
    """Rows of a table that were touched; `rewritten` where they lie in another file than before, None for a new one."""

    relation: str
    inserted: int
    updated: int
    deleted: int
    read: int
    rewritten: bool | None

    @property
    def any(self) -> bool:
        return bool(self.inserted or self.updated or self.deleted or self.rewritten is not False)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """All that was seen; times are those of the change, without those of looking."""

    before: Catalog
    after: Catalog
    took_ms: float
    ddl: list[Ran]
    locks: list[Lock]
    rows: list[Touched]
    documents: int
    indexes: list[Estimate]


async def rehearse(
    conn: AsyncConnection, identifier: str, change: Callable[[AsyncConnection], Awaitable[Catalog]], settings: Settings
) -> Rehearsal:
    """Do `change` and tell what it did. What it raises is raised: that is its verdict, too."""
    before = await load_catalog(conn, identifier)
    here = {"schema": before.schema}
    size = (await conn.execute(statement("documents_size"), here)).one()
    was = await _changes(conn, before.schema)
    watch = Watch(before.schema)
    with watch.on(conn):
        after = await change(conn)
    now = await _changes(conn, before.schema)
    documents = f"{before.schema}.documents"
    touched = [_touched(name, was.get(name), row) for name, row in now.items()]
    new = [config for config in after.vector_configs if config.name not in before.by_name]
    return Rehearsal(
        before=before,
        after=after,
        took_ms=watch.took_ms,
        ddl=watch.ddl,
        locks=watch.locks({*was, NAMESPACE}),
        rows=sorted((t for t in touched if t.any or t.relation == documents), key=lambda t: t.relation),
        documents=size.documents,
        indexes=[estimate(c, size.documents, size.bytes, settings) for c in new if c.index_method != "exact"],
    )


async def _changes(conn: AsyncConnection, schema: str) -> dict[str, Mapping[Any, Any]]:
    rows = (await conn.execute(statement("own_changes"), {"schema": schema})).mappings()
    return {row["relation"]: row for row in rows}


def _touched(relation: str, was: Mapping[Any, Any] | None, now: Mapping[Any, Any]) -> Touched:
    counts = {name: now[name] - (was[name] if was else 0) for name in ("inserted", "updated", "deleted", "read")}
    return Touched(relation, **counts, rewritten=None if was is None else was["file"] != now["file"])


class Watch:
    """Sees each statement of a connection, and which locks there are after it; its clock stands while it looks."""

    def __init__(self, schema: str) -> None:
        self._binds = {"schema": schema}
        self._taken: dict[str, tuple[str, float, float]] = {}  # the mode, the wait, and when it was there
        self._looking = False
        self._aside = 0.0
        self._looked = self._began = self._ended = self._now()
        self.ddl: list[Ran] = []

    @contextmanager
    def on(self, conn: AsyncConnection) -> Iterator[None]:
        """Look at what runs within the block."""
        sync = conn.sync_connection
        assert sync is not None
        event.listen(sync, "after_cursor_execute", self._after)
        self._looked = self._began = self._now()
        try:
            yield
        finally:
            self._ended = self._now()
            event.remove(sync, "after_cursor_execute", self._after)

    @property
    def took_ms(self) -> float:
        return (self._ended - self._began) * 1000

    def locks(self, present: Container[str]) -> list[Lock]:
        """Of each table the strongest, those first that shut others out."""
        found = [
            Lock(target, mode, waited * 1000, (self._ended - since) * 1000, target not in present)
            for target, (mode, waited, since) in self._taken.items()
        ]
        return sorted(found, key=lambda lock: (lock.new, -STRENGTH[lock.mode], lock.target))

    def _now(self) -> float:
        return time.perf_counter() - self._aside

    def _after(self, conn: sa.Connection, _cursor: Any, text: str, *_: Any) -> None:
        if self._looking:
            return
        now = self._now()
        took = now - self._looked
        bare = LEADING.sub("", text, count=1)
        if bare.startswith(DDL):
            self.ddl.append(Ran(bare, took * 1000))
        self._looking = True
        for row in conn.execute(statement("own_locks"), self._binds):
            if row.target not in self._taken or STRENGTH[row.mode] > STRENGTH[self._taken[row.target][0]]:
                self._taken[row.target] = (row.mode, took, now)
        self._looking = False
        self._aside += self._now() - now
        self._looked = now
