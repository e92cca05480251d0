"""A promotion rehearsed over HTTP: what it would answer, and what was seen of it; nothing of it stays."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import msgspec
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.api.locks import giving_way
from app.api.problems import error_of
from app.domain.promoting import rehearsal
from app.domain.promoting.rehearsal import Lock, Rehearsal
from app.domain.retrieving.formatting import readable
from app.domain.runtime import Runtime
from app.errors import PgretrieveError
from app.retrieval.catalog import Catalog

# What a promotion may be refused with; anything else says nothing of it (no such namespace, no database).
REFUSALS = (409, 422)


class RehearsedDdl(msgspec.Struct, kw_only=True):
    """A statement that changes tables, as it ran."""

    statement: str
    ms: float


class RehearsedLock(msgspec.Struct, kw_only=True):
    """The strongest lock on a table (or the turn at the namespace), and whether others wait for it until the commit."""

    target: str
    mode: str
    waited_ms_at_most: float
    held_ms: float
    stops_reads: bool
    stops_writes: bool


class RehearsedRows(msgspec.Struct, kw_only=True):
    """Rows that were touched, as PostgreSQL counted them; `rewritten` is null for a new table."""

    table: str
    inserted: int
    updated: int
    deleted: int
    read: int
    rewritten: bool | None


class RehearsedIndex(msgspec.Struct, kw_only=True):
    """The estimate of an index that the job will build: on the empty column, and once all documents have vectors."""

    name: str
    index_name: str
    index_method: str
    build_seconds: float
    bytes: int
    filled_build_seconds: float
    filled_bytes: int
    fits_in_memory: bool


class Rehearsed(msgspec.Struct, kw_only=True):
    """A rehearsal. `verdict` is `promoted` or `refused`, with the answer or the error that promoting would give."""

    dry_run: str = "rehearse"
    namespace_id: str
    verdict: str
    answer: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    took_ms: float | None = None
    ddl: list[RehearsedDdl] = []
    locks: list[RehearsedLock] = []
    rows: list[RehearsedRows] = []
    documents_estimated: int | None = None
    indexes: list[RehearsedIndex] = []
    estimated_how: str = (
        "Documents by PostgreSQL's statistics, one vector each; sizes by the layout of pgvector's pages; times by "
        "rates that were measured elsewhere: an order of magnitude."
    )


async def rehearse(
    runtime: Runtime,
    namespace_id: str,
    change: Callable[[AsyncConnection], Awaitable[Catalog]],
    answer: Callable[[Catalog], Any],
) -> Rehearsed:
    """Run `change` as a real request runs it, with its locks and retries, and roll it back."""

    async def work(conn: AsyncConnection) -> Rehearsal:
        return await rehearsal.rehearse(conn, namespace_id, change, runtime.settings)

    try:
        seen = await giving_way(runtime, namespace_id, work, keep=False)
    except (PgretrieveError, DBAPIError) as error:
        told = error_of(error, ())
        if told["status"] not in REFUSALS:
            raise
        return Rehearsed(namespace_id=namespace_id, verdict="refused", error=told)
    return Rehearsed(
        namespace_id=seen.after.namespace_id,
        verdict="promoted",
        answer=msgspec.to_builtins(answer(seen.after)),
        took_ms=_ms(seen.took_ms),
        ddl=[RehearsedDdl(statement=readable(ran.text), ms=_ms(ran.ms)) for ran in seen.ddl],
        locks=[_lock(lock) for lock in seen.locks],
        rows=[_rows(asdict(touched)) for touched in seen.rows],
        documents_estimated=seen.documents,
        indexes=[_index(asdict(index)) for index in seen.indexes],
    )


def _lock(lock: Lock) -> RehearsedLock:
    return RehearsedLock(
        target=lock.target,
        mode=lock.mode,
        waited_ms_at_most=_ms(lock.waited_ms),
        held_ms=_ms(lock.held_ms),
        stops_reads=lock.stops_reads,
        stops_writes=lock.stops_writes,
    )


def _rows(touched: dict[str, Any]) -> RehearsedRows:
    return RehearsedRows(table=touched.pop("relation"), **touched)


def _index(found: dict[str, Any]) -> RehearsedIndex:
    found["build_seconds"] = round(found.pop("build_s"), 3)
    found["filled_build_seconds"] = round(found.pop("filled_build_s"), 3)
    return RehearsedIndex(**found)


def _ms(value: float) -> float:
    return round(value, 3)
