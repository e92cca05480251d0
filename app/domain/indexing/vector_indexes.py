"""Vector indexes added and dropped after a namespace was made, each in one transaction of the caller."""

from collections.abc import Mapping
from dataclasses import asdict, replace

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import ddl
from app.db.statements import statement
from app.domain.catalog.namespaces import (
    NewVector,
    as_configs,
    check_vectors,
    insert_configs,
    insert_mappings,
    lock_catalog,
)
from app.domain.indexing import vector_changes
from app.domain.indexing.index_repair import defer_build
from app.domain.inference.services import held
from app.domain.promoting.promotion import check_service
from app.domain.security import audit
from app.errors import Conflict, Problems
from app.inference.base import ServiceInfo
from app.retrieval.catalog import Catalog
from app.retrieval.stages.base import Limits
from app.settings import Settings


async def add(
    conn: AsyncConnection,
    identifier: str,
    vector: NewVector,
    services: Mapping[str, ServiceInfo],
    settings: Settings,
    changed_by: str,
) -> Catalog:
    """Add one, with a service in managed namespaces. Its column is empty; its index is the job's."""
    before = await lock_catalog(conn, identifier, exclusive=True)
    services = await held(conn, services, [vector.inference_service] if vector.inference_service else [])
    problems = Problems()
    check_vectors([vector], ("body",), [config.name for config in before.every_config], settings, problems)
    # One vector stands in the body itself.
    problems.found = [replace(p, location=(p.location[0], *p.location[2:])) for p in problems.found]
    if vector.inference_service is not None:
        require_managed(before)
        at = ("body", "inference_service")
        check_service(vector.inference_service, vector.name, vector.dimension, services, at, problems)
    problems.refuse()
    configs = as_configs([vector], "building", before.every_config)
    await insert_configs(conn, before.namespace_id, configs)
    if vector.inference_service is not None:
        mapping = (vector.name, vector.inference_service, vector.source_field)
        await insert_mappings(conn, before.namespace_id, [mapping])
    if configs[0].index_state == "building":
        await defer_build(conn, before.namespace_id, vector.name)
    after = await vector_changes.finish(conn, before, "add_vector", changed_by, asdict(vector))
    about = {"kind": vector.kind, "dimension": vector.dimension, "inference_service": vector.inference_service}
    await audit.record(conn, "vector_index", "created", vector.name, before.namespace_id, **about)
    # Last, for its lock shuts out readers, too, until the transaction ends.
    await ddl.add_vector_columns(conn, before.schema, configs)
    return after


async def drop(
    conn: AsyncConnection, identifier: str, name: str, limits: Limits, changed_by: str, *, force: bool
) -> Catalog:
    """Drop one with all its vectors. Without `force` it is kept while retrievers search it."""
    before = await lock_catalog(conn, identifier, exclusive=True)
    config = vector_changes.index_of(before, name)
    await vector_changes.refuse_while_migrating(conn, before, name)
    if not force:
        configs = tuple(each for each in before.vector_configs if each is not config)
        await vector_changes.refuse_broken(conn, before, replace(before, vector_configs=configs), name, limits)
    await conn.execute(statement("delete_vector_config"), {"namespace_id": before.namespace_id, "name": name})
    after = await vector_changes.finish(conn, before, "drop_vector", changed_by, {"name": name, "force": force})
    await audit.record(conn, "vector_index", "deleted", name, before.namespace_id, force=force)
    await vector_changes.drop_column(conn, before, config)
    return after


def require_managed(catalog: Catalog) -> None:
    if catalog.mode != "managed":
        message = (
            f"The namespace {catalog.namespace_id!r} is {catalog.mode}; services are mapped in managed ones: promote "
            f"it by POST /v1/namespaces/{catalog.namespace_id}/promote."
        )
        raise Conflict(message, code="not_managed", mode=catalog.mode)
