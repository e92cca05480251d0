"""Migrations of models: an index gets a second column, its shadow, that another service fills; then they change places.

Starting, finding and the gate are here; `migrating` goes on by itself, `cutting_over` does what is asked for.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import ddl
from app.db.statements import as_json, statement
from app.domain.background import tasks
from app.domain.catalog.namespaces import NewVector, as_config, insert_configs, insert_mappings, lock_catalog
from app.domain.documents import sources
from app.domain.indexing import vector_changes
from app.domain.indexing.vector_indexes import require_managed
from app.domain.inference.services import held
from app.domain.security import audit
from app.errors import Conflict, NotFound, PgretrieveError, Problems
from app.inference.base import ServiceInfo
from app.jobs import queue
from app.retrieval.catalog import Catalog

State = Literal["backfilling", "comparing", "ready", "cut_over", "rolled_back", "finished", "failed", "canceled"]
# Documents of which both models' answers are compared.
DEPTH = 10


@dataclass(frozen=True, slots=True)
class Gate:
    """What must hold before a cut-over: the share of the documents with a vector that have the new one, the mean
    overlap of both models' first ten, the new model's mean nDCG@10, and on how many queries these are measured."""

    min_coverage: float = 0.99
    min_overlap: float | None = None
    min_ndcg: float | None = None
    min_queries: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """A query and the documents that answer it."""

    query: str
    relevant_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for; without a `source_field` that of the index's mapping."""

    index: str
    to_service: str
    source_field: str | None = None
    gate: Gate = Gate()
    rate_per_minute: int | None = None
    judgements: Sequence[Judged] = ()


@dataclass(frozen=True, slots=True)
class Migration:
    """A migration as it stands; `total`, `done` and `failed` are of its back-fill."""

    migration_id: str
    namespace_id: str
    index: str
    from_service: str | None
    to_service: str
    source_field: str
    gate: Gate
    rate_per_minute: int | None
    state: State
    task_id: str | None
    metrics: Mapping[str, Any]
    error: Mapping[str, str] | None
    created_by: str
    created_at: datetime
    changed_at: datetime
    total: int | None
    done: int | None
    failed: int | None

    @property
    def shadow(self) -> str:
        """The vector config that is the shadow: of the new model until the cut-over, of the old one after it."""
        return f"{self.index}@{self.migration_id}"

    @property
    def new_is_shadow(self) -> bool:
        return self.state not in ("cut_over", "finished")


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of the gate, what was measured for it, and whether it holds."""

    name: str
    wanted: float
    found: float | None
    met: bool


def checks(gate: Gate, metrics: Mapping[str, Any]) -> list[Check]:
    """The gate against what was measured. Pure. What was not measured is not met."""
    compared, judged = metrics.get("queries", 0), metrics.get("judged", 0)
    found = [_check("min_coverage", gate.min_coverage, metrics.get("coverage"))]
    if gate.min_queries or gate.min_overlap is not None:
        found.append(_check("min_queries", max(gate.min_queries, 1), compared))
    if gate.min_overlap is not None:
        found.append(_check("min_overlap", gate.min_overlap, metrics.get("overlap")))
    if gate.min_ndcg is not None:
        found.append(_check("min_ndcg", gate.min_ndcg, metrics.get("ndcg_after") if judged else None))
    return found


def _check(name: str, wanted: float, found: float | None) -> Check:
    return Check(name, wanted, found, found is not None and found >= wanted)


async def start(
    conn: AsyncConnection, identifier: str, wanted: Wanted, services: Mapping[str, ServiceInfo], created_by: str
) -> Migration:
    """Give the index a shadow, in the caller's transaction, with the job that fills it."""
    before = await lock_catalog(conn, identifier, exclusive=True)
    services = await held(conn, services, [wanted.to_service])
    field = _decide(before, wanted, services)
    await vector_changes.refuse_while_migrating(conn, before, wanted.index)
    config, migration_id = before.by_name[wanted.index], f"mig_{secrets.token_hex(8)}"
    shadow = f"{wanted.index}@{migration_id}"
    vector = NewVector(shadow, services[wanted.to_service].dimension, config.metric)
    made = as_config(vector, "building", before.every_config)
    made = replace(made, m=config.m, ef_construction=config.ef_construction)
    await insert_configs(conn, before.namespace_id, [made])
    place = {"namespace_id": before.namespace_id, "index_name": wanted.index}
    await conn.execute(statement("set_shadow"), {**place, "shadow": shadow})
    await insert_mappings(conn, before.namespace_id, [(shadow, wanted.to_service, field)])
    about: dict[str, Any] = {"migration_id": migration_id, "to_service": wanted.to_service, "config": shadow}
    about |= {"rate_per_minute": wanted.rate_per_minute}
    task_id = await tasks.create(conn, before.namespace_id, "migrate_model", subject=wanted.index, about=about)
    await _insert(conn, before, wanted, field, migration_id, task_id, created_by)
    await defer(conn, migration_id)
    request = {**asdict(wanted), "migration_id": migration_id, "judgements": len(wanted.judgements)}
    await vector_changes.finish(conn, before, "start_migration", created_by, request)
    changes = {"index": wanted.index, "to_service": wanted.to_service, "source_field": field}
    await audit.record(conn, "model_migration", "started", migration_id, before.namespace_id, **changes)
    # Last, for its lock shuts out readers, too, until the transaction ends.
    await ddl.add_vector_columns(conn, before.schema, [made])
    return await find(conn, before.namespace_id, migration_id)


async def _insert(
    conn: AsyncConnection,
    catalog: Catalog,
    wanted: Wanted,
    field: str,
    migration_id: str,
    task_id: str,
    created_by: str,
) -> None:
    binds = {
        "migration_id": migration_id,
        "namespace_id": catalog.namespace_id,
        "index_name": wanted.index,
        "from_service": catalog.inference_map.get(wanted.index),
        "to_service": wanted.to_service,
        "source_field": field,
        "gate": as_json(asdict(wanted.gate)),
        "rate_per_minute": wanted.rate_per_minute,
        "task_id": task_id,
        "created_by": created_by,
    }
    try:
        await conn.execute(statement("insert_model_migration"), binds)
    except IntegrityError as error:
        raise Conflict(f"The index {wanted.index!r} has a migration of models.", code="migration_open") from error
    judged = {hash_of(one.query): one for one in wanted.judgements}
    rows = [{"query_hash": key, "query": one.query, "relevant_ids": one.relevant_ids} for key, one in judged.items()]
    if rows:
        binds = {"migration_id": migration_id, "judgements": as_json(rows)}
        await conn.execute(statement("judge_queries"), binds)


def hash_of(query: str) -> str:
    """By which a query counts once."""
    return hashlib.sha256(query.encode("utf-8", "surrogatepass")).hexdigest()


def _decide(catalog: Catalog, wanted: Wanted, services: Mapping[str, ServiceInfo]) -> str:
    """The source field; raises with everything that forbids the migration."""
    require_managed(catalog)
    problems = Problems()
    config = catalog.by_name.get(wanted.index)
    if config is None:
        available = ", ".join(map(repr, catalog.by_name)) or "none"
        message = f"No vector index {wanted.index!r} exists; available indexes: {available}."
        problems.add(("body", "index"), "unknown_index", message)
    elif config.kind != "dense":
        message = f"The index {wanted.index!r} is {config.kind}; services make dense vectors."
        problems.add(("body", "index"), "not_dense", message)
    if wanted.to_service not in services:
        message = f"No inference service {wanted.to_service!r}; the services are {', '.join(sorted(services))}."
        problems.add(("body", "to_service"), "unknown_service", message)
    elif catalog.inference_map.get(wanted.index) == wanted.to_service:
        message = f"The index {wanted.index!r} is mapped to {wanted.to_service!r} already."
        problems.add(("body", "to_service"), "same_service", message)
    sources.check_field(wanted.source_field, ("body", "source_field"), problems)
    own = next((source.field for source in catalog.sources if source.name == wanted.index), None)
    field = wanted.source_field or own
    if field is None:
        message = f"The index {wanted.index!r} embeds no payload field by itself: name the one that is to be embedded."
        problems.add(("body", "source_field"), "no_source_field", message)
    problems.refuse()
    assert field is not None
    return field


async def defer(conn: AsyncConnection, migration_id: str, pause_s: float = 0.0) -> None:
    """Have the job go on with it, after a pause where one is given."""
    lock, after = f"migrate_model:{migration_id}", timedelta(seconds=pause_s) if pause_s > 0 else None
    await queue.defer(conn, "migrate_model", {"migration_id": migration_id}, lock=lock, after=after)


async def find(conn: AsyncConnection, namespace_id: str, migration_id: str) -> Migration:
    """By its id; `NotFound` when there is none in this namespace."""
    found = await page(conn, namespace_id, migration_id=migration_id)
    if not found:
        raise NotFound("migration", migration_id)
    return found[0]


async def page(
    conn: AsyncConnection,
    namespace_id: str,
    *,
    migration_id: str | None = None,
    after: str | None = None,
    limit: int = 1,
) -> list[Migration]:
    """Those of a namespace in the order of their ids."""
    binds = {"namespace_id": namespace_id, "migration_id": migration_id, "after": after, "limit": limit}
    if "\0" in f"{migration_id}{after}":
        return []
    rows = await conn.execute(statement("find_model_migrations"), binds)
    return [_of(row) for row in rows]


async def count(conn: AsyncConnection, namespace_id: str) -> int:
    found: int = (await conn.execute(statement("count_model_migrations"), {"namespace_id": namespace_id})).scalar_one()
    return found


def _of(row: Any) -> Migration:
    values = [*row]
    values[6] = Gate(**values[6])
    return Migration(*values)


async def move(
    conn: AsyncConnection, migration_id: str, before: Sequence[State], to: State, error: PgretrieveError | None = None
) -> bool:
    """Into another state, from one of these; whether it was in one of them."""
    told = None if error is None else as_json({"code": error.error_code, "message": error.message})
    binds = {"migration_id": migration_id, "before": list(before), "state": to, "error": told}
    moved: int = (await conn.execute(statement("set_model_migration_state"), binds)).scalar_one()
    return moved > 0
