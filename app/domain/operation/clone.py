"""Cloning: a namespace's documents, vectors, configs, mappings and retrievers as another namespace, or nothing."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import ddl
from app.db.statements import as_json, statement
from app.domain.catalog import lexical, namespaces
from app.domain.indexing import payload_indexes
from app.domain.indexing.index_repair import defer_build
from app.domain.security import access, audit
from app.errors import InvalidRequest, Problem, Problems
from app.retrieval.catalog import Catalog
from app.settings import Settings

# The indexes of so few documents are built within the request, those of more by the job.
SMALL_TABLE = 1_000


@dataclass(frozen=True, slots=True)
class Clone:
    """What is to be copied, and how the copy is called; without a description it takes over that of its source."""

    namespace_name: str
    description: str | None = None
    documents: bool = True
    retrievers: bool = True


@dataclass(frozen=True, slots=True)
class Cloned:
    """The ids of source and copy, and what was copied."""

    source_id: str
    namespace_id: str
    documents: int
    collections: int
    retrievers: Sequence[str]


async def clone(conn: AsyncConnection, settings: Settings, identifier: str, wanted: Clone) -> Cloned:
    """Copy the namespace within the caller's transaction. Its writers go on; what they commit later is not copied."""
    problems = Problems()
    namespaces.check_name(wanted.namespace_name, ("body", "namespace_name"), problems, 1, 64)
    problems.refuse()
    source = replace(await namespaces.lock_catalog(conn, identifier, exclusive=False), shadows=())
    count = await _count(conn, source, settings) if wanted.documents else 0
    namespace_id = f"ns_{secrets.token_hex(12)}"
    access.require_creatable(namespace_id)
    copy = await _create(conn, source, namespace_id, wanted)
    state = "ready" if count <= SMALL_TABLE else "building"
    binds = {
        "source": source.namespace_id,
        "copy": namespace_id,
        "retrievers": wanted.retrievers,
        "state": state,
        "created_by": access.actor(),
    }
    retrievers = list((await conn.execute(statement("copy_namespace"), binds)).scalars())
    await ddl.create_tables(conn, copy.schema, copy.vector_configs)
    if copy.sources:
        await namespaces.watch_sources(conn, copy)
    copied = (await conn.execute(_copy_statement(source, copy))).one() if wanted.documents else (0, 0)
    for config in copy.vector_configs:
        if state == "ready":
            await ddl.create_index(conn, copy.schema, config, settings)
        elif config.index_method != "exact":
            await defer_build(conn, namespace_id, config.name)
    copied_catalog = await namespaces.load_catalog(conn, namespace_id)
    await payload_indexes.create(conn, copied_catalog, copied_catalog.payload_indexes)
    await lexical.declare(conn, namespace_id, source.lexical_fields)
    about = {"source": source.namespace_id, "documents": copied[0], "retrievers": len(retrievers)}
    await audit.record(conn, "namespace", "cloned", namespace_id, namespace_id, **about)
    return Cloned(source.namespace_id, namespace_id, copied[0], copied[1], retrievers)


async def _count(conn: AsyncConnection, source: Catalog, settings: Settings) -> int:
    most = settings.max_clone_documents
    some = sa.select(sa.literal(1)).select_from(source.documents).limit(most + 1).subquery()
    count: int = (await conn.execute(sa.select(sa.func.count()).select_from(some))).scalar_one()
    if count > most:
        message = (
            f"The namespace {source.namespace_id!r} has more than {most} documents, too many to be copied within a "
            "request (PGRETRIEVE_MAX_CLONE_DOCUMENTS); clone it without its documents, "
            "`include_resources: {collections: false}`, and upsert them."
        )
        raise InvalidRequest([Problem(("path", "namespace_id"), "too_many_documents", message)])
    return count


async def _create(conn: AsyncConnection, source: Catalog, namespace_id: str, wanted: Clone) -> Catalog:
    """The copy's row; its catalog is its source's in another schema."""
    row = (await conn.execute(statement("namespace_row"), {"namespace_id": source.namespace_id})).one()
    kept = {**msgspec.json.decode(row.settings), "source_namespace_id": source.namespace_id}
    schema = await namespaces.insert(
        conn,
        namespace_id=namespace_id,
        namespace_name=wanted.namespace_name,
        mode=source.mode,
        dynamic=source.dynamic_vector_indexes,
        description=row.description if wanted.description is None else wanted.description,
        settings=as_json(kept),
    )
    return replace(source, namespace_id=namespace_id, namespace_name=wanted.namespace_name, schema=schema)


def _copy_statement(source: Catalog, copy: Catalog) -> sa.Select[int, int]:
    """Documents and multi-vectors, of one snapshot since it is one statement; answers documents and collections."""
    columns = [column.name for column in source.relation.c]
    documents = sa.insert(copy.relation).from_select(columns, sa.select(*source.relation.c))
    copied = documents.returning(copy.relation.c.collection_id).cte("copied")
    distinct = sa.func.count(sa.distinct(copied.c.collection_id))
    answer = sa.select(sa.func.count().label("documents"), distinct.label("collections")).select_from(copied)
    for n, config in enumerate(source.vector_configs):
        if config.kind == "multi":
            side, other = source.side(config), copy.side(config)
            vectors = sa.insert(other).from_select([c.name for c in side.c], sa.select(*side.c))
            answer = answer.add_cte(vectors.returning(other.c.position).cte(f"vectors_{n}"))
    return answer
