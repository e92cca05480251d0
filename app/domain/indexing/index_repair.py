"""Vector indexes put right: those that are missing, invalid or failed are built by the job; others rebuilt on request.

`defer_build` is how everything asks for an index: it makes the task and the job in the caller's transaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain.background import tasks
from app.domain.catalog import adopting, lexical
from app.domain.catalog.namespaces import lock_catalog
from app.domain.indexing import payload_builds, payload_indexes
from app.domain.retrieving import functions
from app.domain.security import audit
from app.jobs import queue
from app.retrieval.catalog import Catalog, VectorConfig
from app.retrieval.field_indexes import kinds

# The kinds of tasks: of an index that is not there yet, and of one that is to take the place of another.
BUILD, REBUILD = "build_index", "rebuild_index"
# What a rebuild may change.
DEFINITION = ("index_method", "m", "ef_construction")
NO_CHANGES: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True)
class Ensured:
    """The namespace, and its vector indexes and indexed fields by what was found or done."""

    namespace_id: str
    ensured: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    building: list[str] = field(default_factory=list)
    exact: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    tasks: dict[str, str] = field(default_factory=dict)  # of the vector indexes that are built


async def ensure(conn: AsyncConnection, identifier: str, *, rebuild: bool) -> Ensured:
    """Look at every index. What is not as it should be (with `rebuild`: everything) is given to the job."""
    catalog = await lock_catalog(conn, identifier, exclusive=True, adopted_too=not rebuild)
    found = Ensured(catalog.namespace_id)
    if catalog.adopted is not None:
        catalog = await adopting.look_again(conn, catalog)
        found.exact += [config.name for config in catalog.vector_configs if config.index_method == "exact"]
        found.ensured += [config.name for config in catalog.vector_configs if config.index_method != "exact"]
        await audit.record(conn, "namespace", "indexes_ensured", catalog.namespace_id, catalog.namespace_id)
        return found
    pending = await open_builds(conn, catalog.namespace_id)
    for config in catalog.vector_configs:
        if config.index_method == "exact":
            found.exact.append(config.name)
        elif config.name in pending:
            found.building.append(config.name)
        elif config.index_state == "ready" and await _is_valid(conn, catalog, config):
            if rebuild:
                found.rebuilt.append(config.name)
                found.tasks[config.name] = await defer_rebuild(conn, catalog, config)
            else:
                found.ensured.append(config.name)
        else:
            found.rebuilt.append(config.name)
            found.tasks[config.name] = await defer_build(conn, catalog.namespace_id, config.name)
    await _ensure_payload_indexes(conn, catalog, found, rebuild=rebuild)
    done = await lexical.ensure(conn, catalog, rebuild=rebuild)
    await functions.follow(conn, catalog.namespace_id)
    texts = {"ensured": found.ensured, "rebuilt": found.rebuilt, "building": found.building}[done]
    texts += [text.name for text in catalog.lexical_fields]
    about = {"force_rebuild": rebuild, "rebuilt": found.rebuilt}
    await audit.record(conn, "namespace", "indexes_ensured", catalog.namespace_id, catalog.namespace_id, **about)
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


async def defer_build(conn: AsyncConnection, namespace_id: str, name: str) -> str:
    """Search exactly from now on, until the job has built the index. Answers the task that tells how far it is."""
    await conn.execute(statement("begin_building"), {"namespace_id": namespace_id, "name": name})
    await functions.follow(conn, namespace_id)
    return await _defer(conn, BUILD, namespace_id, name, {})


async def defer_rebuild(
    conn: AsyncConnection, catalog: Catalog, config: VectorConfig, changes: Mapping[str, Any] = NO_CHANGES
) -> str:
    """Have an index built with these changes, beside the one that is in force, which then takes its place."""
    wanted = {name: getattr(config, name) for name in DEFINITION} | dict(changes)
    return await _defer(conn, REBUILD, catalog.namespace_id, config.name, wanted)


async def _defer(conn: AsyncConnection, kind: str, namespace_id: str, name: str, about: Mapping[str, Any]) -> str:
    task_id = await tasks.create(conn, namespace_id, kind, subject=name, about=about)
    arguments = {"namespace_id": namespace_id, "name": name, "task_id": task_id}
    # One after another: two concurrent builds on one table end in a deadlock.
    await queue.defer(conn, "build_index", arguments, lock=lock_of(namespace_id))
    return task_id


async def defer_sweeps(conn: AsyncConnection) -> list[str]:
    """Have dropped what builds left that were cut off. Answers the namespaces."""
    found = list((await conn.execute(statement("namespaces_with_loose_indexes"))).scalars())
    for namespace_id in found:
        await queue.defer(conn, "drop_loose_indexes", {"namespace_id": namespace_id}, lock=lock_of(namespace_id))
    return found


def lock_of(namespace_id: str) -> str:
    """Of the jobs that build or drop indexes of one namespace."""
    return f"build_index:{namespace_id}"


async def open_builds(conn: AsyncConnection, namespace_id: str) -> dict[str, str]:
    """The vector indexes that are being built, or will be, and their tasks."""
    rows = await conn.execute(statement("open_builds"), {"namespace_id": namespace_id})
    return {row.subject: row.task_id for row in rows}


async def _is_valid(conn: AsyncConnection, catalog: Catalog, config: VectorConfig) -> bool:
    binds = {"schema": catalog.schema, "index_name": config.index_name}
    valid: bool = (await conn.execute(statement("index_is_valid"), binds)).scalar_one()
    return valid
