"""Schema on write: in a namespace without declared vectors, the first vectors of a name make its config."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import ddl
from app.db.statements import statement
from app.domain.catalog.namespaces import (
    NewVector,
    as_configs,
    check_vectors,
    insert_configs,
    load_catalog,
    lock_catalog,
)
from app.domain.documents.documents import Document, check_documents
from app.domain.indexing.index_repair import defer_build
from app.domain.retrieving import functions
from app.errors import Problem, Problems
from app.retrieval.catalog import Catalog, VectorConfig
from app.retrieval.vectors import MAX_SPARSE_DIMENSION
from app.settings import Settings

# An index on so few documents that do not have the vector yet is built within the write.
SMALL_TABLE = 10_000
Location = tuple[str | int, ...]


@dataclass(slots=True)
class Inferred:
    """The vectors that are new, each with the place of its first one, and what is wrong with them."""

    vectors: dict[str, NewVector] = field(default_factory=dict)
    places: dict[str, Location] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)


def needed(catalog: Catalog, documents: Sequence[Document]) -> bool:
    """Whether writing these documents makes vector configs; the caller then takes the namespace for itself."""
    known = catalog.by_name
    return catalog.dynamic_vector_indexes and any(name not in known for d in documents for name in d.vectors)


async def add_vectors_on_write(
    conn: AsyncConnection,
    identifier: str,
    documents: Sequence[Document],
    settings: Settings,
    refused: Sequence[Problem] = (),
) -> Catalog:
    """Take the namespace, and make configs for vector names that it does not have, in the write's own transaction.

    The transaction must not hold the namespace shared: two that did would wait for each other. Whoever comes second
    finds the configs of the first. Raises `InvalidRequest` with all that is wrong with the documents.
    """
    catalog = await lock_catalog(conn, identifier, exclusive=True)
    if not needed(catalog, documents):
        return catalog
    inferred = infer(catalog, documents, settings)
    if inferred.problems:
        _refuse(catalog, documents, settings, inferred, refused)
    small = await _is_small(conn, catalog)
    configs = as_configs(inferred.vectors.values(), "building", catalog.every_config)
    await ddl.add_vector_columns(conn, catalog.schema, configs)
    await insert_configs(conn, catalog.namespace_id, configs)
    await conn.execute(statement("bump_namespace"), {"namespace_id": catalog.namespace_id})
    for config in configs:
        await _index(conn, catalog, config, settings, now=small)
    await functions.follow(conn, catalog.namespace_id)
    return await load_catalog(conn, catalog.namespace_id)


def infer(catalog: Catalog, documents: Sequence[Document], settings: Settings) -> Inferred:
    """The vector configs that the documents need and the namespace lacks: kind and dimension from the data, cosine."""
    found = Inferred()
    for n, document in enumerate(documents):
        for name, given in document.vectors.items():
            if name in catalog.by_name:
                continue
            at: Location = ("body", "documents", n, "vectors", name)
            vector, first = _vector(name, given), found.vectors.get(name)
            if vector is None:
                message = f"{document.document_id!r}: the first vector {name!r} must hold numbers, to make an index."
                found.problems.add(at, "bad_vector", message)
            elif first is None:
                found.vectors[name], found.places[name] = vector, at
            elif vector != first:
                message = (
                    f"{document.document_id!r}: the new vector {name!r} is {_shape(vector)}, "
                    f"but {_shape(first)} in documents.{found.places[name][2]}."
                )
                found.problems.add(at, "inconsistent_vectors", message)
    _check(catalog, found, settings)
    return found


def _vector(name: str, given: Any) -> NewVector | None:
    if isinstance(given, dict):
        return NewVector(name, MAX_SPARSE_DIMENSION, "dot", kind="sparse")
    if not isinstance(given, list) or not given:
        return None
    if isinstance(given[0], list):
        return NewVector(name, len(given[0]), kind="multi") if given[0] else None
    return NewVector(name, len(given))


def _shape(vector: NewVector) -> str:
    return "sparse" if vector.kind == "sparse" else f"{vector.kind} with {vector.dimension} dimensions"


def _check(catalog: Catalog, found: Inferred, settings: Settings) -> None:
    """The rules of declared vectors, told at the place of the first such vector."""
    vectors, problems = list(found.vectors.values()), Problems()
    check_vectors(vectors, (), tuple(catalog.by_name), settings, problems)
    for problem in problems.found:
        n = int(problem.location[0]) if problem.location else -1  # too many: told at the last
        found.problems.add(found.places[vectors[n].name], problem.code, problem.message)


def _refuse(
    catalog: Catalog, documents: Sequence[Document], settings: Settings, inferred: Inferred, refused: Sequence[Problem]
) -> None:
    """Raise with these problems and all others that the documents have."""
    bad = {problem.location[4] for problem in inferred.problems.found if len(problem.location) > 4}
    good = [vector for name, vector in inferred.vectors.items() if name not in bad]
    configs = (*catalog.vector_configs, *as_configs(good, "ready", catalog.vector_configs))
    shown = [replace(d, vectors={k: v for k, v in d.vectors.items() if k not in bad}) for d in documents]
    check_documents(replace(catalog, vector_configs=configs), shown, settings, [*refused, *inferred.problems.found])


async def _is_small(conn: AsyncConnection, catalog: Catalog) -> bool:
    some = sa.select(sa.literal(1)).select_from(catalog.documents).limit(SMALL_TABLE + 1).subquery()
    count: int = (await conn.execute(sa.select(sa.func.count()).select_from(some))).scalar_one()
    return count <= SMALL_TABLE


async def _index(
    conn: AsyncConnection, catalog: Catalog, config: VectorConfig, settings: Settings, *, now: bool
) -> None:
    if config.index_method == "exact":
        return
    if not now:
        await defer_build(conn, catalog.namespace_id, config.name)
        return
    await ddl.create_index(conn, catalog.schema, config, settings)
    binds = {"namespace_id": catalog.namespace_id, "name": config.name, "state": "ready"}
    await conn.execute(statement("finish_index"), binds)
