"""The vector indexes of collections: made with the first that fills them, given a source field, dropped with the last.

All within the transaction that makes or deletes the collection; each change is on record in `vector_changes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import ddl
from app.db.statements import statement
from app.domain.catalog.namespaces import NewVector, as_configs, check_vectors, insert_configs, insert_mappings
from app.domain.content.collection_configs import Filled, Use
from app.domain.indexing import vector_changes
from app.domain.indexing.index_repair import defer_build
from app.errors import Problems
from app.retrieval.catalog import Catalog
from app.retrieval.stages.base import Limits
from app.settings import Settings


async def uses(conn: AsyncConnection, namespace_id: str) -> dict[str, Use]:
    """The indexes that were made for collections of the namespace."""
    found = await conn.execute(statement("collection_index_uses"), {"namespace_id": namespace_id})
    return {row.name: Use(row.made_for, row.filled) for row in found}


def check(catalog: Catalog, filled: Sequence[Filled], settings: Settings, problems: Problems) -> None:
    """Whether the namespace can take the new ones."""
    new = [_new(each) for each in filled if each.new]
    at = ("body", "feature_extractor", "parameters")
    found = Problems()
    check_vectors(new, at, [config.name for config in catalog.every_config], settings, found)
    for problem in found.found:
        problems.add((*at, "vector_index"), problem.code, problem.message)


def _new(filled: Filled) -> NewVector:
    return NewVector(filled.index, filled.dimension, filled.metric, filled.service, filled.source_field)


async def prepare(
    conn: AsyncConnection,
    before: Catalog,
    filled: Sequence[Filled],
    made_for: str,
    request: Mapping[str, Any],
    changed_by: str,
) -> None:
    """Make the new ones, and give each mapping that has none its source field. The caller holds the namespace for
    itself, and does this last: the table's lock shuts out readers, too, until the transaction ends."""
    new = as_configs([_new(each) for each in filled if each.new], "building", before.every_config)
    sourced = {source.name for source in before.sources}
    unsourced = [each for each in filled if not each.new and each.service and each.index not in sourced]
    if not new and not unsourced:
        return
    await insert_configs(conn, before.namespace_id, new)
    mapped = [(each.index, each.service, each.source_field) for each in filled if each.new and each.service]
    await insert_mappings(conn, before.namespace_id, mapped)
    marked = {"namespace_id": before.namespace_id, "names": [config.name for config in new], "made_for": made_for}
    await conn.execute(statement("mark_made_for"), marked)
    for each in unsourced:
        binds = {"namespace_id": before.namespace_id, "name": each.index, "source_field": each.source_field}
        await conn.execute(statement("set_source_field"), binds)
    for config in new:
        if config.index_state == "building":
            await defer_build(conn, before.namespace_id, config.name)
    if new:  # before the triggers: a lock that has to grow can deadlock
        await ddl.add_vector_columns(conn, before.schema, new)
    await vector_changes.finish(conn, before, "fill_by_collection", changed_by, request)


async def drop_unused(
    conn: AsyncConnection, before: Catalog, names: Sequence[str], limits: Limits, request: Mapping[str, Any], by: str
) -> list[str]:
    """Drop those of these indexes that a collection made and none fills any more. Answers their names.

    `Conflict` while retrievers search one, or a migration of models runs on it.
    """
    made = await uses(conn, before.namespace_id)
    configs = [before.by_name[name] for name in names if name in made and not made[name].filled]
    if not configs:
        return []
    rest = replace(before, vector_configs=tuple(each for each in before.vector_configs if each not in configs))
    for config in configs:
        await vector_changes.refuse_while_migrating(conn, before, config.name)
        await vector_changes.refuse_broken(conn, before, rest, config.name, limits)
        binds = {"namespace_id": before.namespace_id, "name": config.name}
        await conn.execute(statement("delete_vector_config"), binds)
        await conn.execute(statement("forget_work"), binds | {"target": config.column})
    for config in configs:
        await vector_changes.drop_column(conn, before, config)
    await vector_changes.finish(conn, before, "drop_with_collection", by, request)
    return [config.name for config in configs]
