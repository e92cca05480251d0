"""Vector indexes put right: those that are missing, invalid or failed are built anew by the job; others on request."""

from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain import lexical, payload_builds, payload_indexes
from app.domain.namespaces import lock_catalog
from app.jobs import queue
from app.retrieval.catalog import Catalog, VectorConfig
from app.retrieval.field_indexes import kinds


@dataclass(slots=True)
class Ensured:
    """The namespace, and its vector indexes and indexed fields by what was found or done."""

    namespace_id: str
    ensured: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    building: list[str] = field(default_factory=list)
    exact: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)


async def ensure(conn: AsyncConnection, identifier: str, *, rebuild: bool) -> Ensured:
    """Look at every index. What is not as it should be (with `rebuild`: everything) is given to the job."""
    catalog = await lock_catalog(conn, identifier, exclusive=True)
    found = Ensured(catalog.namespace_id)
    pending = await _pending(conn, catalog.namespace_id)
    for config in catalog.vector_configs:
        if config.index_method == "exact":
            found.exact.append(config.name)
        elif config.name in pending:
            found.building.append(config.name)
        elif not rebuild and config.index_state == "ready" and await _is_valid(conn, catalog, config):
            found.ensured.append(config.name)
        else:
            await defer_build(conn, catalog.namespace_id, config.name)
            found.rebuilt.append(config.name)
    await _ensure_payload_indexes(conn, catalog, found, rebuild=rebuild)
    done = await lexical.ensure(conn, catalog, rebuild=rebuild)
    texts = {"ensured": found.ensured, "rebuilt": found.rebuilt, "building": found.building}[done]
    texts += [text.name for text in catalog.lexical_fields]
    return found


async def _ensure_payload_indexes(conn: AsyncConnection, catalog: Catalog, found: Ensured, *, rebuild: bool) -> None:
    binds = {"namespace_id": catalog.namespace_id}
    pending = set((await conn.execute(statement("pending_payload_builds"), binds)).scalars())
    for index in catalog.payload_indexes:
        if index.type == "text":
            continue  # served by the lexical index
        if not kinds(index):
            found.without.append(index.field)
        elif index.number in pending:
            found.building.append(index.field)
        elif not rebuild and index.state == "ready" and await payload_builds.is_valid(conn, catalog, index):
            found.ensured.append(index.field)
        else:
            await payload_indexes.defer_build(conn, catalog.namespace_id, index.number)
            found.rebuilt.append(index.field)


async def defer_build(conn: AsyncConnection, namespace_id: str, name: str) -> None:
    """Search exactly from now on, until the job has built the index."""
    binds = {"namespace_id": namespace_id, "name": name}
    await conn.execute(statement("finish_index"), {**binds, "state": "building"})
    # One after another: two concurrent builds on one table end in a deadlock.
    await queue.defer(conn, "build_index", binds, lock=f"build_index:{namespace_id}")


async def _pending(conn: AsyncConnection, namespace_id: str) -> set[str]:
    return set((await conn.execute(statement("pending_builds"), {"namespace_id": namespace_id})).scalars())


async def _is_valid(conn: AsyncConnection, catalog: Catalog, config: VectorConfig) -> bool:
    binds = {"schema": catalog.schema, "index_name": config.index_name}
    valid: bool = (await conn.execute(statement("index_is_valid"), binds)).scalar_one()
    return valid
