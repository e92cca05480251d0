"""Namespaces: creating a standalone one, reading, listing, deleting."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import ddl
from app.db.identifiers import RESERVED_COLUMNS, RESERVED_SCHEMAS, sql_name
from app.db.statements import statement
from app.errors import Conflict, NotFound, Problems
from app.retrieval.catalog import Catalog, IndexState, VectorConfig
from app.retrieval.vectors import METRIC_SPELLINGS, index_method
from app.settings import Settings

# Exact counts above this would make a read of the namespace slow; the statistics' estimate serves there.
COUNT_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class NewVector:
    """A vector config as it was asked for, not yet checked."""

    name: str
    dimension: int
    metric: str = "cosine"
    inference_service: str | None = None
    source_field: str | None = None


def check_vectors(
    vectors: Sequence[NewVector],
    location: tuple[str | int, ...],
    taken: Sequence[str],
    settings: Settings,
    problems: Problems,
) -> None:
    """Find everything that is wrong with new vector configs: metric, dimension, names; `taken` names exist already."""
    seen: set[str] = set()
    for n, vector in enumerate(vectors):
        here = (*location, n)
        if not vector.name or len(vector.name) > 128 or "\0" in vector.name:
            problems.add((*here, "name"), "bad_name", "The name of a vector index has 1 to 128 characters.")
        elif vector.name in taken:
            message = f"The vector index {vector.name!r} exists already; choose another name."
            problems.add((*here, "name"), "name_conflict", message)
        elif vector.name in seen:
            problems.add((*here, "name"), "duplicate_name", f"The name {vector.name!r} is given more than once.")
        seen.add(vector.name)
        if vector.metric not in METRIC_SPELLINGS:
            message = f"Unknown metric {vector.metric!r}; the metrics are cosine, dot and euclidean."
            problems.add((*here, "metric"), "unknown_metric", message)
        if not 1 <= vector.dimension <= settings.max_dimension:
            message = f"A dimension is from 1 to {settings.max_dimension}, not {vector.dimension}."
            problems.add((*here, "dimension"), "bad_dimension", message)
    if len(vectors) + len(taken) > settings.max_vector_configs:
        message = f"A namespace has at most {settings.max_vector_configs} vector indexes."
        problems.add(location, "too_many_vectors", message)


def as_config(vector: NewVector, state: IndexState) -> VectorConfig:
    """The physical side of a vector config: its column, and its index by dimension and metric."""
    metric = METRIC_SPELLINGS[vector.metric]
    method = index_method(vector.dimension, metric)
    column = sql_name(vector.name, RESERVED_COLUMNS)
    return VectorConfig(
        name=vector.name,
        column=column,
        dimension=vector.dimension,
        metric=metric,
        index_name=sql_name(f"documents_{column}_hnsw", frozenset()),
        index_method=method,
        index_state="ready" if method == "exact" else state,
    )


async def create_standalone(
    conn: AsyncConnection,
    settings: Settings,
    *,
    namespace_id: str,
    namespace_name: str | None = None,
    vectors: Sequence[NewVector] | None = None,
    description: str | None = None,
    kept: dict[str, Any] | None = None,
) -> Catalog:
    """Create schema, table, indexes and catalog rows. 409 where id or name is taken by any namespace."""
    problems = Problems()
    check_vectors(vectors or (), ("body", "vector_configs"), (), settings, problems)
    problems.refuse()
    configs = tuple(as_config(vector, "ready") for vector in vectors or ())
    name = namespace_name or namespace_id
    schema = await _free_schema(conn, namespace_id)
    row: dict[str, Any] = {"namespace_id": namespace_id, "namespace_name": name, "schema": schema}
    row |= {"mode": "standalone", "dynamic": vectors is None, "description": description, "settings": _json(kept or {})}
    try:
        await conn.execute(statement("insert_namespace"), row)
        identifiers = {"namespace_id": namespace_id, "identifiers": [namespace_id, name]}
        await conn.execute(statement("insert_namespace_identifiers"), identifiers)
    except IntegrityError as error:
        raise Conflict(f"A namespace {namespace_id!r} or {name!r} exists already.", code="already_exists") from error
    await insert_configs(conn, namespace_id, 0, configs)
    await ddl.create_namespace(conn, schema, configs, settings)
    return await load_catalog(conn, namespace_id)


async def _free_schema(conn: AsyncConnection, namespace_id: str) -> str:
    """The schema's name; one that exists in the user's own database is never touched."""
    schema = sql_name(namespace_id, RESERVED_SCHEMAS)
    if (await conn.execute(statement("schema_exists"), {"schema": schema})).scalar_one():
        return sql_name(namespace_id, frozenset({namespace_id}))
    return schema


async def insert_configs(conn: AsyncConnection, namespace_id: str, first: int, configs: Sequence[VectorConfig]) -> None:
    rows = {
        "namespace_id": namespace_id,
        "first": first,
        "configs": _json([asdict(config) for config in configs]),
    }
    await conn.execute(statement("insert_vector_configs"), rows)


async def load_catalog(conn: AsyncConnection, identifier: str) -> Catalog:
    """The namespace with that id or name; `NotFound` when there is none."""
    row = (await conn.execute(statement("load_catalog"), {"identifier": identifier})).mappings().one_or_none()
    if row is None:
        raise NotFound("namespace", identifier)
    configs = tuple(VectorConfig(**config) for config in row["vector_configs"])
    # jsonb orders keys by length; the map is shown in the order of the configs.
    services = {c.name: row["inference_map"][c.name] for c in configs if c.name in row["inference_map"]}
    return Catalog(**{**row, "vector_configs": configs, "inference_map": services})


async def lock_catalog(conn: AsyncConnection, identifier: str, *, exclusive: bool) -> Catalog:
    """The same, kept from changing until the transaction ends."""
    name = "lock_namespace" if exclusive else "share_namespace"
    found = (await conn.execute(statement(name), {"identifier": identifier})).scalar_one_or_none()
    if found is None:
        raise NotFound("namespace", identifier)
    return await load_catalog(conn, found)


@dataclass(frozen=True, slots=True)
class Description:
    """A namespace as answers show it; JSON parts are kept as text."""

    namespace_id: str
    namespace_name: str
    mode: str
    version: int
    dynamic_vector_indexes: bool
    description: str | None
    settings: str
    created_at: Any
    updated_at: Any
    estimated_documents: int
    vector_configs: str
    inference_map: str
    counted: bool = False


async def describe(conn: AsyncConnection, identifier: str) -> Description:
    catalog = await load_catalog(conn, identifier)
    (found,) = await describe_all(conn, namespace_id=catalog.namespace_id)
    some = sa.select(sa.literal(1)).select_from(catalog.documents).limit(COUNT_LIMIT + 1).subquery()
    count = (await conn.execute(sa.select(sa.func.count()).select_from(some))).scalar_one()
    if count > COUNT_LIMIT:
        return replace(found, estimated_documents=max(count, found.estimated_documents))
    return replace(found, estimated_documents=count, counted=True)


async def describe_all(
    conn: AsyncConnection, *, namespace_id: str | None = None, after: str | None = None, limit: int = 1
) -> list[Description]:
    binds = {"namespace_id": namespace_id, "after": after, "limit": limit}
    rows = (await conn.execute(statement("describe_namespaces"), binds)).mappings()
    return [Description(**row) for row in rows]


async def count(conn: AsyncConnection) -> int:
    total: int = (await conn.execute(statement("count_namespaces"))).scalar_one()
    return total


async def delete(conn: AsyncConnection, identifier: str) -> str:
    """Delete the namespace with everything in it; its promotions' audit rows stay."""
    catalog = await lock_catalog(conn, identifier, exclusive=True)
    await ddl.drop_namespace(conn, catalog.schema)
    await conn.execute(statement("delete_namespace"), {"namespace_id": catalog.namespace_id})
    return catalog.namespace_id


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
