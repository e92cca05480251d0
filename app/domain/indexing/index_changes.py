"""Vector indexes as they are, and changes of how they search: method and parameters of HNSW, rebuilt beside the old."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement
from app.domain.catalog.namespaces import load_catalog, lock_catalog
from app.domain.indexing.index_repair import DEFINITION, defer_rebuild, open_builds
from app.domain.security import audit
from app.errors import Conflict, NotFound, Problems
from app.retrieval.catalog import IndexMethod, VectorConfig
from app.retrieval.vectors import MAX_HNSW_HALFVEC, MAX_HNSW_VECTOR
from app.settings import Settings

# Below, the signs of a vector's numbers say too little of its direction for 8 candidates a row.
FEW_SIGNS = 512


@dataclass(frozen=True, slots=True)
class PhysicalIndex:
    """A vector index: its config, what PostgreSQL has of it, and the task that builds or rebuilds it."""

    config: VectorConfig
    valid: bool
    bytes: int
    parameters: Mapping[str, int]
    task_id: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """A rebuild that was asked for: its task, the definition that is to be, and what to know of it."""

    namespace_id: str
    task_id: str
    wanted: Mapping[str, Any]
    warnings: list[str]


async def list_all(conn: AsyncConnection, identifier: str) -> tuple[str, list[PhysicalIndex]]:
    """The id of the namespace, and each of its vector indexes in their order."""
    catalog = await load_catalog(conn, identifier)
    names = [config.index_name for config in catalog.vector_configs]
    binds = {"schema": catalog.schema, "index_names": names}
    rows = (await conn.execute(statement("physical_indexes"), binds)).mappings()
    there = {row["index_name"]: row for row in rows}
    building = await open_builds(conn, catalog.namespace_id)
    found = []
    for config in catalog.vector_configs:
        row = there.get(config.index_name) if config.index_method != "exact" else None
        valid, size, parameters = (row["valid"], row["bytes"], row["parameters"]) if row else (False, 0, None)
        found.append(PhysicalIndex(config, valid, size, parameters or {}, building.get(config.name)))
    return catalog.namespace_id, found


async def change(
    conn: AsyncConnection, identifier: str, name: str, changes: Mapping[str, Any], settings: Settings
) -> Change:
    """Have the index rebuilt with these changes. Raises `InvalidRequest` with every problem, `NotFound`, and `Conflict`
    where it is being built anyway."""
    catalog = await lock_catalog(conn, identifier, exclusive=True)
    config = catalog.by_name.get(name)
    if config is None:
        hint = f"The vector indexes are {', '.join(map(repr, catalog.by_name)) or 'none'}."
        raise NotFound("vector index", name, hint)
    problems = Problems()
    if not changes:
        problems.add(("body",), "nothing_to_change", f"Give at least one of {', '.join(DEFINITION)}.")
    wanted = {field: getattr(config, field) for field in DEFINITION} | dict(changes)
    check(config, wanted, settings, problems)
    problems.refuse()
    task_id = (await open_builds(conn, catalog.namespace_id)).get(name)
    if task_id is not None:
        message = (
            f"The index {name!r} is being built by the task {task_id!r}; wait for its end, or cancel it "
            f"(DELETE /v1/tasks/{task_id})."
        )
        raise Conflict(message, code="index_building", task_id=task_id)
    started = await defer_rebuild(conn, catalog, config, changes)
    await audit.record(
        conn, "vector_index", "updated", name, catalog.namespace_id, task_id=started, changed=sorted(changes), **changes
    )
    return Change(catalog.namespace_id, started, wanted, _warnings(config, wanted))


def check(config: VectorConfig, wanted: Mapping[str, Any], settings: Settings, problems: Problems) -> None:
    """Find everything that forbids such an index of these vectors."""
    method: IndexMethod = wanted["index_method"]
    if method not in methods(config):
        message = (
            f"The index {config.name!r} ({config.kind}, {config.dimension} dimensions, {config.metric}) can be "
            f"{', '.join(methods(config))}, not {method}."
        )
        problems.add(("body", "index_method"), "bad_index_method", message)
    m = wanted["m"] or settings.hnsw_m
    ef_construction = wanted["ef_construction"] or settings.hnsw_ef_construction
    if method != "exact" and ef_construction < 2 * m:
        message = f"ef_construction ({ef_construction}) is at least twice m ({m}): give both."
        problems.add(("body", "ef_construction"), "out_of_range", message)


def methods(config: VectorConfig) -> list[IndexMethod]:
    """How vectors of this kind, dimension and metric can be indexed."""
    limits: dict[IndexMethod, bool] = {
        "hnsw_vector": config.kind != "sparse" and config.dimension <= MAX_HNSW_VECTOR,
        "hnsw_halfvec": config.kind != "sparse" and config.dimension <= MAX_HNSW_HALFVEC,
        # The signs of a vector say much about its direction and nothing about its length.
        "hnsw_binary": config.kind == "dense" and config.metric == "cosine",
        "exact": True,
    }
    return [method for method in get_args(IndexMethod) if limits[method]]


def _warnings(config: VectorConfig, wanted: Mapping[str, Any]) -> list[str]:
    found = []
    if wanted["index_method"] == "hnsw_binary" and config.dimension < FEW_SIGNS:
        found.append(
            f"An index of signs alone says little of vectors of {config.dimension} dimensions: compare its answers "
            "with `exact: true` before you rely on it."
        )
    if wanted["index_method"] == "hnsw_halfvec" and config.index_method != "hnsw_halfvec":
        found.append("From now on vectors with numbers beyond ±65504 are refused, which half precision cannot hold.")
    return found
