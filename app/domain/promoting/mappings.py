"""Mappings of vector indexes to inference services after promotion: made, changed, taken back.

Vectors of one model are never searched by another's: a mapping over vectors that another service made is refused, and
one over callers' vectors needs proof. What moves an index from one model to another is a migration of models.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import statement
from app.domain.catalog.namespaces import load_catalog, lock_catalog
from app.domain.documents import sources
from app.domain.indexing import vector_changes
from app.domain.indexing.vector_indexes import require_managed
from app.domain.inference.services import held
from app.domain.promoting.promotion import check_service
from app.domain.promoting.proof import Proof, prove
from app.domain.runtime import Runtime
from app.domain.security import audit
from app.errors import Conflict, InvalidRequest, Problem, Problems
from app.inference.base import ServiceInfo
from app.retrieval.catalog import Catalog, VectorConfig
from app.retrieval.stages.base import Limits

Verify = Literal["off", "sample", "require"]
SERVICE = ("body", "inference_service")
_SERVICE = sa.literal_column("'service'", sa.Text)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The service of an index, and the payload field that it embeds by itself."""

    index: str
    inference_service: str
    source_field: str | None = None
    verify: Verify | None = None  # None: `require` in the place of another service, else `sample`


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found out before the transaction: the mapping that was there then, and the proof."""

    service: str | None
    proof: Proof | None


async def check(runtime: Runtime, identifier: str, wanted: Wanted, services: Mapping[str, ServiceInfo]) -> Checked:
    """Whether the stored vectors are the service's; with no lock, and no transaction while it embeds.

    Raises all that `put` does, and `Conflict` or `InvalidRequest` where vectors are, or may be, another model's.
    """
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, identifier)
        config = _decide(catalog, wanted, services)
        before = catalog.inference_map.get(wanted.index)
        if before == wanted.inference_service:
            return Checked(before, None)
        await refuse_foreign(conn, catalog, config, wanted.inference_service)
        stored = await _any(conn, catalog, catalog.relation.c[config.column].is_not(None))
    verify = wanted.verify or ("sample" if before is None else "require")
    if not stored or verify == "off":
        return Checked(before, None)
    proof = await prove(runtime, catalog, wanted.index, wanted.inference_service, wanted.source_field)
    replaces = before is not None
    if not proof.usable and (verify == "require" or (replaces and proof.verdict == "mismatch")):
        raise InvalidRequest([_unproven(catalog, wanted, proof)], verdict=proof.verdict)
    return Checked(before, proof)


def _unproven(catalog: Catalog, wanted: Wanted, proof: Proof) -> Problem:
    name, service = wanted.index, wanted.inference_service
    said = "did not make" if proof.verdict == "mismatch" else "is not proven to have made"
    message = f"{service!r} {said} the vectors of {name!r}. {' '.join(proof.reasons)} {_migrate(catalog)}"
    return Problem(SERVICE, "proof_mismatch" if proof.verdict == "mismatch" else "proof_unknown", message)


def _migrate(catalog: Catalog) -> str:
    return f"To embed the documents anew, start a migration: POST /v1/namespaces/{catalog.namespace_id}/migrations."


async def put(
    conn: AsyncConnection,
    identifier: str,
    wanted: Wanted,
    checked: Checked,
    services: Mapping[str, ServiceInfo],
    changed_by: str,
) -> Catalog:
    """Map the index, in the place of what was mapped when it was `checked`."""
    before = await lock_catalog(conn, identifier, exclusive=True)
    services = await held(conn, services, [wanted.inference_service])
    config = _decide(before, wanted, services)
    await vector_changes.refuse_while_migrating(conn, before, wanted.index)
    present = before.inference_map.get(wanted.index)
    if present != checked.service:
        raise Conflict(f"The mapping of {wanted.index!r} was changed by another request.", code="changed")
    embedded = {source.column for source in before.sources}
    if present != wanted.inference_service and config.column in embedded:
        # Workers have gone on since: read again what they may have written.
        await refuse_foreign(conn, before, config, wanted.inference_service)
    binds: dict[str, Any] = {"namespace_id": before.namespace_id, "target": config.column}
    mapping = {"name": wanted.index, "inference_service": wanted.inference_service}
    await conn.execute(statement("put_mapping"), {**binds, **mapping, "source_field": wanted.source_field})
    await conn.execute(statement("release_work" if wanted.source_field else "forget_work"), binds)
    request = {**asdict(wanted), "verdict": checked.proof.verdict if checked.proof else None}
    about = {"inference_service": wanted.inference_service, "source_field": wanted.source_field, "before": present}
    await audit.record(conn, "vector_mapping", "updated", wanted.index, before.namespace_id, **about)
    return await vector_changes.finish(conn, before, "map", changed_by, request)


def _decide(catalog: Catalog, wanted: Wanted, services: Mapping[str, ServiceInfo]) -> VectorConfig:
    require_managed(catalog)
    config = vector_changes.index_of(catalog, wanted.index)
    problems = Problems()
    if config.kind != "dense":
        message = f"The index {wanted.index!r} is {config.kind}; services make dense vectors."
        problems.add(SERVICE, "not_dense", message)
    sources.check_field(wanted.source_field, ("body", "source_field"), problems)
    check_service(wanted.inference_service, wanted.index, config.dimension, services, SERVICE, problems)
    problems.refuse()
    return config


async def refuse_foreign(conn: AsyncConnection, catalog: Catalog, config: VectorConfig, service: str) -> None:
    """Raises `Conflict` where another service is on record as the maker of a stored vector: no proof changes that."""
    documents = catalog.relation
    maker = documents.c.provenance.op("->", return_type=JSONB())(sa.bindparam("column", config.column, sa.Text))
    made_by = maker.op("->>", return_type=sa.Text())(_SERVICE)
    foreign = sa.and_(documents.c[config.column].is_not(None), made_by != sa.bindparam("service", service, sa.Text))
    found = (await conn.execute(sa.select(made_by).select_from(documents).where(foreign).limit(1))).scalar_one_or_none()
    if found is not None:
        message = (
            f"The service {found!r} made vectors of {config.name!r}; queries that {service!r} embeds would not find "
            f"them. {_migrate(catalog)}"
        )
        raise Conflict(message, code="made_by_another_service", service=found)


async def _any(conn: AsyncConnection, catalog: Catalog, condition: sa.ColumnElement[bool]) -> bool:
    some = sa.select(sa.literal(1)).select_from(catalog.relation).where(condition).limit(1)
    return (await conn.execute(some)).scalar_one_or_none() is not None


async def take_back(
    conn: AsyncConnection, identifier: str, name: str, limits: Limits, changed_by: str, *, force: bool
) -> Catalog:
    """Map the index to nothing: its vectors stay. Without `force` not while retrievers search it by text."""
    before = await lock_catalog(conn, identifier, exclusive=True)
    require_managed(before)
    config = vector_changes.index_of(before, name)
    if name not in before.inference_map:
        raise Conflict(f"The index {name!r} is mapped to no inference service.", code="not_mapped")
    await vector_changes.refuse_while_migrating(conn, before, name)
    if not force:
        rest = {index: service for index, service in before.inference_map.items() if index != name}
        await vector_changes.refuse_broken(conn, before, replace(before, inference_map=rest), name, limits)
    binds = {"namespace_id": before.namespace_id, "name": name, "target": config.column}
    await conn.execute(statement("delete_mapping"), binds)
    await conn.execute(statement("forget_work"), binds)
    about = {"before": before.inference_map[name], "force": force}
    await audit.record(conn, "vector_mapping", "deleted", name, before.namespace_id, **about)
    return await vector_changes.finish(conn, before, "unmap", changed_by, {"name": name, "force": force})
