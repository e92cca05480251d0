"""Promotion: one transaction that turns a standalone namespace into a managed one, or changes nothing.

Vectors and documents stay where they are. Deciding is pure and finds every problem at once; `validate` is that alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import ddl
from app.db.statements import as_json, statement
from app.domain.catalog.namespaces import (
    NewVector,
    as_configs,
    check_vectors,
    insert_configs,
    insert_mappings,
    load_catalog,
    lock_catalog,
    state_of,
    watch_sources,
)
from app.domain.documents import sources
from app.domain.indexing.index_repair import defer_build
from app.domain.inference.services import held
from app.domain.models import backfill
from app.domain.models.backfill import check_filled
from app.domain.models.forecasting import Forecast
from app.domain.retrieving import functions
from app.domain.security import audit
from app.errors import Conflict, Problem, Problems
from app.inference.base import ServiceInfo
from app.retrieval.catalog import Catalog, VectorConfig
from app.settings import Settings

BODY = ("body",)
NO_FORECASTS: Mapping[str, Forecast] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Mapped:
    """An existing vector index and the inference service that embeds for it."""

    existing_index: str
    inference_service: str
    source_field: str | None = None


@dataclass(frozen=True, slots=True)
class Promotion:
    """What is asked for; both parts may be empty."""

    vector_mappings: Sequence[Mapped] = ()
    add_vectors: Sequence[NewVector] = ()

    def services(self) -> list[str]:
        mapped = [mapping.inference_service for mapping in self.vector_mappings]
        return mapped + [vector.inference_service for vector in self.add_vectors if vector.inference_service]


@dataclass(frozen=True, slots=True)
class Decision:
    """What will be done, or every problem that forbids it."""

    problems: Sequence[Problem]
    new_configs: Sequence[VectorConfig]
    mappings: Mapping[str, Mapped]

    def configs(self, catalog: Catalog) -> list[VectorConfig]:
        return [*catalog.vector_configs, *self.new_configs]

    def inference_map(self) -> dict[str, str]:
        return {name: mapped.inference_service for name, mapped in self.mappings.items()}


def decide_promotion(
    catalog: Catalog, wanted: Promotion, services: Mapping[str, ServiceInfo], settings: Settings
) -> Decision:
    """Check the request against the namespace and the services. Pure: the same inputs, the same decision."""
    problems = Problems()
    _check_adopted(catalog, wanted, problems)
    _check_mappings(catalog, wanted.vector_mappings, services, problems)
    here = (*BODY, "add_vectors")
    check_vectors(wanted.add_vectors, here, tuple(catalog.by_name), settings, problems)
    for n, vector in enumerate(wanted.add_vectors):
        if vector.inference_service is not None:
            at = (*here, n, "inference_service")
            check_service(vector.inference_service, vector.name, vector.dimension, services, at, problems)
        check_filled(vector, (*here, n), problems)
    if problems:
        return Decision(problems.found, (), {})
    mappings = {mapped.existing_index: mapped for mapped in wanted.vector_mappings}
    mappings |= {
        v.name: Mapped(v.name, v.inference_service, v.source_field) for v in wanted.add_vectors if v.inference_service
    }
    return Decision((), as_configs(wanted.add_vectors, "building", catalog.vector_configs), mappings)


def _check_adopted(catalog: Catalog, wanted: Promotion, problems: Problems) -> None:
    """An adopted table gets services for queries alone: nothing that writes vectors into a table that is its user's."""
    if catalog.adopted is None:
        return
    if wanted.add_vectors:
        message = (
            "The namespace is an adopted table, to which no columns are added: add them in SQL, and adopt it again."
        )
        problems.add((*BODY, "add_vectors"), "adopted_table", message)
    for n, mapped in enumerate(wanted.vector_mappings):
        if mapped.source_field is not None:
            message = "The namespace is an adopted table, whose documents do not embed themselves: leave this out."
            problems.add((*BODY, "vector_mappings", n, "source_field"), "adopted_table", message)


def _check_mappings(
    catalog: Catalog, mappings: Sequence[Mapped], services: Mapping[str, ServiceInfo], problems: Problems
) -> None:
    seen: set[str] = set()
    for n, mapped in enumerate(mappings):
        at = (*BODY, "vector_mappings", n)
        config = catalog.by_name.get(mapped.existing_index)
        if config is None:
            available = ", ".join(repr(name) for name in catalog.by_name) or "none"
            message = f"No vector index {mapped.existing_index!r} exists; available indexes: {available}."
            problems.add((*at, "existing_index"), "unknown_index", message)
        elif mapped.existing_index in seen:
            message = f"The index {mapped.existing_index!r} is mapped more than once."
            problems.add((*at, "existing_index"), "duplicate_mapping", message)
        elif config.kind != "dense":
            message = f"The index {mapped.existing_index!r} is {config.kind}; services make dense vectors."
            problems.add((*at, "existing_index"), "not_dense", message)
        seen.add(mapped.existing_index)
        sources.check_field(mapped.source_field, (*at, "source_field"), problems)
        dimension = config.dimension if config else None
        service_at = (*at, "inference_service")
        check_service(mapped.inference_service, mapped.existing_index, dimension, services, service_at, problems)


def check_service(
    name: str,
    index: str,
    dimension: int | None,
    services: Mapping[str, ServiceInfo],
    at: tuple[str | int, ...],
    problems: Problems,
) -> None:
    """Find what forbids mapping an index to a service; its dimension is None where there is no such index."""
    service = services.get(name)
    if service is None:
        message = f"No inference service {name!r}; the services are {', '.join(sorted(services))}."
        problems.add(at, "unknown_service", message)
    elif dimension is not None and service.dimension != dimension:
        message = f"The index {index!r} has {dimension} dimensions, the service {name!r} makes {service.dimension}."
        problems.add(at, "dimension_mismatch", message)


def refuse_mode(catalog: Catalog) -> None:
    if catalog.mode != "standalone":
        raise Conflict(
            f"The namespace {catalog.namespace_id!r} is {catalog.mode} already; only standalone ones can be promoted.",
            code="not_standalone",
            mode=catalog.mode,
        )


async def promote(
    conn: AsyncConnection,
    identifier: str,
    wanted: Promotion,
    services: Mapping[str, ServiceInfo],
    settings: Settings,
    promoted_by: str,
    forecasts: Mapping[str, Forecast] = NO_FORECASTS,
) -> Catalog:
    """Promote within the caller's transaction: all of it is there when that commits, else none.

    `forecasts` are of the indexes that are to be filled; their tasks begin when it commits.
    Raises `Conflict` (not standalone), `InvalidRequest` (every problem), `NotFound`, or the driver's
    lock timeout, after which the caller may try again in a new transaction.
    """
    before = await lock_catalog(conn, identifier, exclusive=True, adopted_too=True)
    refuse_mode(before)
    services = await held(conn, services, wanted.services())
    decision = decide_promotion(before, wanted, services, settings)
    Problems(list(decision.problems)).refuse()

    namespace_id = before.namespace_id
    if decision.new_configs:
        await insert_configs(conn, namespace_id, decision.new_configs)
    mappings = [(name, m.inference_service, m.source_field) for name, m in decision.mappings.items()]
    await insert_mappings(conn, namespace_id, mappings)
    await backfill.start_new(conn, namespace_id, wanted.add_vectors, decision.new_configs, forecasts)
    await conn.execute(statement("set_mode"), {"namespace_id": namespace_id, "mode": "managed"})
    after = await load_catalog(conn, namespace_id)
    row = {"namespace_id": namespace_id, "promoted_by": promoted_by, "request": as_json(asdict(wanted))}
    row |= {"before": as_json(state_of(before)), "after": as_json(state_of(after))}
    await conn.execute(statement("insert_promotion"), row)
    about = {"vector_inference_map": decision.inference_map(), "added": [c.name for c in decision.new_configs]}
    await audit.record(conn, "namespace", "promoted", namespace_id, namespace_id, **about)
    await functions.follow(conn, namespace_id)
    for config in decision.new_configs:
        if config.index_state == "building":
            await defer_build(conn, namespace_id, config.name)
    # The table last, for its lock shuts out readers, too, until the transaction ends; the strongest lock on it first,
    # for one that has to grow can deadlock.
    if decision.new_configs:
        await ddl.add_vector_columns(conn, before.schema, decision.new_configs)
    if after.sources:
        await watch_sources(conn, after)
    return after


def shown(configs: Sequence[VectorConfig]) -> list[dict[str, Any]]:
    """Vector configs as answers show them; a kind is shown where it is not the public API's, dense."""
    return [
        {"name": config.name, "dimension": config.dimension, "metric": config.metric}
        | ({"kind": config.kind} if config.kind != "dense" else {})
        for config in configs
    ]
