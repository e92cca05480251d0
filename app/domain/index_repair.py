"""Vector indexes put right: those that are missing, invalid or failed are built anew by the job; others on request."""

from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain.namespaces import lock_catalog
from app.jobs import queue
from app.retrieval.catalog import Catalog, VectorConfig


@dataclass(slots=True)
class Ensured:
    """The namespace, and its vector indexes by what was found or done."""

    namespace_id: str
    ensured: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    building: list[str] = field(default_factory=list)
    exact: list[str] = field(default_factory=list)


async def ensure(conn: AsyncConnection, identifier: str, *, rebuild: bool) -> Ensured:
    """Look at every vector index. What is not as it should be (with `rebuild`: everything) is given to the job."""
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
    return found


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
